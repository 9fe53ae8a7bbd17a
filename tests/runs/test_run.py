"""A run from the command line to its record, on the demo corpus: repeated, resumed, used again."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emopeft.downstream.records.record import read_predictions, read_record, recount
from emopeft.downstream.runs import run as runs
from emopeft.downstream.runs.apply_checkpoint import evaluate
from emopeft.downstream.training.trainer import Trainer
from tests.calls import SHORT, call, demo_run, read
from tests.shared import ROOT


@pytest.fixture(scope="module")
def finished(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of fold 1."""
    out = tmp_path_factory.mktemp("runs")
    assert demo_run(demo_corpus, out) == 0
    return out / "r"


def scores(run: Path) -> list[tuple[str, dict[str, float]]]:
    return [(row.id, dict(row.scores)) for row in read_predictions(run / "predictions.csv")]


def test_the_record_is_complete_and_counts_again(finished: Path) -> None:
    record = read_record(finished)
    assert recount(record) == []
    data = record.data
    assert data["status"] == "incomplete"  # one fold of five
    assert data["upstream"]["note"] == "random weights, for the demo and tests only"
    # LoRA r=8 on q, k, v, o of 2 blocks of width 64; Linear(64, 256), Linear(256, 4), 3 weights.
    assert data["parameters"]["method"] == 2 * 4 * 2 * 8 * 64
    assert data["parameters"]["head"] == 64 * 256 + 256 + 256 * 4 + 4 + 3
    assert data["protocol"]["audit"]["clean"] is True
    assert data["cost"]["cache_bytes"] > 0 and data["cost"]["peak_memory_bytes"] > 1e8
    fold = data["folds"][0]
    assert fold["utterances"] == {"train": 144, "dev": 48, "test": 48}
    assert [h["step"] for h in fold["history"]] == [5, 10]
    assert len(record.rows) == 48
    assert (finished / "recipe.yaml").is_file()
    assert list((finished / "fold1_seed0" / "curves").iterdir())
    assert not (finished / "fold1_seed0" / "progress.pt").exists()


def test_the_same_command_repeats_nothing(
    finished: Path, demo_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_train(self: Trainer) -> None:
        raise AssertionError("a finished fold was trained again")

    monkeypatch.setattr(Trainer, "fit", must_not_train)
    before = read(finished / "fold1_seed0" / "fold.json")
    assert demo_run(demo_corpus, finished.parent) == 0
    assert read(finished / "fold1_seed0" / "fold.json") == before


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    assert demo_run(demo_corpus, tmp_path, name="again") == 0
    assert scores(tmp_path / "again") == scores(finished)
    assert demo_run(demo_corpus, tmp_path, "--seed", "1", name="other") == 0
    assert scores(tmp_path / "other") != scores(finished)


def test_a_step_split_for_memory_gives_the_same_predictions(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    assert demo_run(demo_corpus, tmp_path, "-o", "train.batch_seconds=4", name="split") == 0
    for (_, one), (_, other) in zip(scores(tmp_path / "split"), scores(finished), strict=True):
        assert one == pytest.approx(other, abs=2e-4)


def test_another_recipe_under_the_same_name_is_refused(
    finished: Path, demo_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo_run(demo_corpus, finished.parent, method="none") == 2
    error = capsys.readouterr().err
    assert "holds a run that differs in method" in error and error.count("\n") == 1


def test_the_head_has_a_rate_of_its_own(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []
    optimise = Trainer._optimise

    def watch(self: Trainer, batch: list[int]) -> None:
        optimise(self, batch)
        for group in self.optimizer.param_groups:
            seen.append((group["lr"], sum(p.numel() for p in group["params"])))

    monkeypatch.setattr(Trainer, "_optimise", watch)
    assert demo_run(demo_corpus, tmp_path, "-o", "train.head_lr=0.01") == 0
    assert set(seen) == {(3e-3, 8192), (0.01, 64 * 256 + 256 + 256 * 4 + 4 + 3)}


def test_two_folds_and_two_seeds_fill_one_record(demo_corpus: Path, tmp_path: Path) -> None:
    assert demo_run(demo_corpus, tmp_path, "--fold", "1,3", "--seed", "0,1", method="none") == 0
    data = read_record(tmp_path / "r").data
    assert [(f["seed"], f["fold"]) for f in data["folds"]] == [
        (0, "1"), (0, "3"), (1, "1"), (1, "3")
    ]  # fmt: skip
    assert demo_run(demo_corpus, tmp_path, "--fold", "all", "--seed", "0,1", method="none") == 0
    assert read_record(tmp_path / "r").data["status"] == "finished"


def test_interrupted_at_any_step_and_resumed_equals_uninterrupted(
    finished: Path, demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # keep progress at every step
    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    optimise = Trainer._optimise
    for count, stop in enumerate((3, 5, 8), start=1):

        def interrupted(self: Trainer, batch: list[int], stop: int = stop) -> None:
            if self.step == stop:
                raise KeyboardInterrupt
            optimise(self, batch)

        monkeypatch.setattr(Trainer, "_optimise", interrupted)
        assert demo_run(demo_corpus, tmp_path) == 130
        kept = torch.load(tmp_path / "r" / "fold1_seed0" / "progress.pt", weights_only=True)
        assert kept["step"] == stop, count
        assert not (tmp_path / "r" / "result.json").exists()
    monkeypatch.setattr(Trainer, "_optimise", optimise)
    assert demo_run(demo_corpus, tmp_path) == 0
    assert scores(tmp_path / "r") == scores(finished)
    one, other = (read(p / "fold1_seed0" / "fold.json") for p in (tmp_path / "r", finished))
    assert one["history"] == other["history"]


def test_killed_and_called_again_equals_uninterrupted(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    program = (
        "import sys, emopeft.downstream.training.trainer as t, run_downstream as r; "
        "t.SAVE_SECONDS = 0.0; "
        "step = t.Trainer._optimise; "
        "t.Trainer._optimise = lambda self, b: (step(self, b), __import__('time').sleep(0.3)); "
        "r.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, "-u", "demo", "-d", "emotion", "-p", "lora",
               "--corpus", "demo", "--data", str(demo_corpus), "--fold", "1",
               "--out", str(tmp_path), "-n", "r", *SHORT]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    progress = tmp_path / "r" / "fold1_seed0" / "progress.pt"
    for _ in range(600):
        if progress.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert progress.exists() and not (tmp_path / "r" / "result.json").exists()
    assert demo_run(demo_corpus, tmp_path) == 0
    assert scores(tmp_path / "r") == scores(finished)


def test_evaluate_in_a_new_process_gives_the_recorded_predictions(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "run_downstream.py", "-m", "evaluate", "--run", str(finished)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    row = done.stdout.splitlines()[-1].split()
    accuracy = read(finished / "result.json")["folds"][0]["metrics"]["accuracy"]
    assert row[:3] == ["1", "0", "48"] and row[3] == f"{100 * accuracy:.2f}"
    assert float(row[-1]) < 1e-4


def test_predict_gives_the_recorded_scores_for_a_folder(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    table = tmp_path / "out.csv"
    assert call("-m", "predict", "--run", finished, "--audio", demo_corpus / "session1",
                "--output", table) == 0  # fmt: skip
    with table.open() as file:
        rows = {Path(r["path"]).stem: r for r in csv.DictReader(file)}
    recorded = read_predictions(finished / "predictions.csv")
    assert len(rows) == len(recorded) == 48
    for row in recorded:
        for label, score in row.scores.items():
            assert float(rows[row.id][f"score_{label}"]) == pytest.approx(score, abs=1e-4)
    clip = next(demo_corpus.rglob("*.wav"))
    assert call("-m", "predict", "--run", finished / "fold1_seed0", "--audio", clip,
                "--output", tmp_path / "out.json") == 0  # fmt: skip
    assert set(read(tmp_path / "out.json")[0]) >= {"path", "prediction", "score_angry"}


def test_lr_is_chosen_on_dev_alone(demo_corpus: Path, tmp_path: Path) -> None:
    grid = "train.lr_grid=[1e-7, 3e-3]"
    assert demo_run(demo_corpus, tmp_path, "--tune", "lr", "-o", grid, method="none") == 0
    fold = read_record(tmp_path / "r").data["folds"][0]
    assert fold["lr"] == 3e-3 and set(fold["dev"]["tried"]) == {"1e-07", "0.003"}
    assert fold["dev"]["tried"]["0.003"] == pytest.approx(fold["dev"]["uar"])


@pytest.mark.parametrize("method", ["full", "partial:1", "lora+ws", "full:cnn=true"])
def test_every_method_trains_and_is_read_back(
    method: str, demo_corpus: Path, tmp_path: Path
) -> None:
    assert demo_run(demo_corpus, tmp_path, "-o", "train.epochs=1", method=method) == 0
    results = evaluate(tmp_path / "r")
    assert results[0]["difference"] < 1e-4


def test_the_conv_head_sees_frames(demo_corpus: Path, tmp_path: Path) -> None:
    for method in ("none", "partial:1"):
        name = method.partition(":")[0]
        assert demo_run(demo_corpus, tmp_path, "-o", "head.name=conv", method=method,
                        name=name) == 0  # fmt: skip
        assert evaluate(tmp_path / name)[0]["difference"] < 1e-4


def test_bf16_learns_what_fp32_learns_but_for_rounding(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    """Not the same numbers, or it would not be bf16; near ones; weights kept in float32."""
    assert demo_run(demo_corpus, tmp_path, "-o", "train.precision=bf16") == 0
    short, full = (
        read(r / "fold1_seed0" / "fold.json")["history"] for r in (tmp_path / "r", finished)
    )
    for a, b in zip(short, full, strict=True):
        assert a["loss"] != b["loss"] and a["loss"] == pytest.approx(b["loss"], rel=0.02)
    assert read_record(tmp_path / "r").data["device"]["precision"] == "bf16"
    saved = load_file(tmp_path / "r" / "fold1_seed0" / "adapter.safetensors")
    assert {t.dtype for t in saved.values()} == {torch.float32}
    [again] = evaluate(tmp_path / "r")
    assert again["difference"] < 0.02  # other batches, rounded otherwise


def test_two_processes_learn_what_one_learns(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    # On GPUs this is `accelerate launch`; on CPUs that asks for MPI, so torch's launcher it is.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone",
              "--nproc_per_node", "2"]  # fmt: skip
    done = subprocess.run(
        [*launch, "run_downstream.py", "-u", "demo", "-d", "emotion", "-p", "lora",
         "--corpus", "demo", "--data", str(demo_corpus), "--fold", "1", "--out", str(tmp_path),
         "-n", "r", *SHORT],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_record(tmp_path / "r").data["device"]["processes"] == 2
    for (_, one), (_, other) in zip(scores(tmp_path / "r"), scores(finished), strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_finished_fold_is_not_lost_when_the_next_one_fails(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = runs.write_fold

    def full_disk(folder: Path, *args: object) -> None:
        if folder.name.startswith("fold2"):
            from emopeft.errors import UserError

            raise UserError("cannot write: No space left on device")
        write(folder, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "write_fold", full_disk)
    assert demo_run(demo_corpus, tmp_path, "--fold", "1,2", method="none") == 2
    assert (tmp_path / "r" / "fold1_seed0" / "fold.json").is_file()
    assert not (tmp_path / "r" / "result.json").exists()
