"""A run from the command line to its record, on the demo corpus."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emopeft.downstream.records.record import verify
from emopeft.downstream.runs import run as runs
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError
from tests.calls import SHORT, demo_run, predictions, read, scores
from tests.shared import ROOT


@pytest.fixture(scope="module")
def finished(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of fold 1."""
    out = tmp_path_factory.mktemp("runs")
    assert demo_run(demo_corpus, out) == 0
    return out / "r"


def fold_of(run: Path) -> dict:
    return read(run / "fold1_seed0" / "fold.json")


def history(run: Path) -> list[dict]:
    return fold_of(run)["stages"][0]["result"]["history"]


def test_the_record_is_complete_and_counts_again(finished: Path) -> None:
    assert verify(finished) == []
    data = read(finished / "result.json")
    assert data["status"] == "incomplete"  # one fold of five
    assert data["upstream"]["note"] == "random weights, for the demo and tests only"
    # LoRA r=8 on q, k, v, o of 2 blocks of width 64; Linear(64, 256), Linear(256, 4), 3 weights.
    assert data["parameters"]["method"] == 2 * 4 * 2 * 8 * 64
    assert data["parameters"]["head"] == 64 * 256 + 256 + 256 * 4 + 4 + 3
    assert data["audit"]["clean"] is True
    assert data["cost"]["cache"]["bytes"] > 0
    assert data["cost"]["peak_memory_bytes"]["host"] > 1e8
    fold = data["folds"][0]
    assert fold["utterances"] == {"train": 144, "dev": 48, "tests": {"test": 48}}
    assert [h["step"] for h in history(finished)] == [5, 10]
    assert (finished / "recipe.yaml").is_file()
    place = finished / "fold1_seed0"
    assert list((place / "curves").iterdir()) and not list(place.glob("*.pt"))
    rows = predictions(place / "predictions.csv")
    assert len(rows) == 48 and len(predictions(place / "dev.csv")) == 48
    # What is known of the speaker stands beside each prediction.
    assert {r["sex"] for r in rows} == {"female", "male"} and {r["session"] for r in rows} == {"1"}
    assert all(r["id"].startswith("demo/") and r["speaker"].startswith("demo/") for r in rows)


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
    assert "holds a run that differs in methods" in error and error.count("\n") == 1


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
    data = read(tmp_path / "r" / "result.json")
    assert [(f["seed"], f["fold"]) for f in data["folds"]] == [
        (0, "1"), (0, "3"), (1, "1"), (1, "3")
    ]  # fmt: skip
    assert demo_run(demo_corpus, tmp_path, "--fold", "all", "--seed", "0,1", method="none") == 0
    assert read(tmp_path / "r" / "result.json")["status"] == "finished"


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
    short, full = (history(r) for r in (tmp_path / "r", finished))
    for a, b in zip(short, full, strict=True):
        assert a["loss"] != b["loss"] and a["loss"] == pytest.approx(b["loss"], rel=0.02)
    assert fold_of(tmp_path / "r")["numerics"]["precision"] == "bf16"
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
    assert fold_of(tmp_path / "r")["device"]["count"] == 2
    for (_, one), (_, other) in zip(scores(tmp_path / "r"), scores(finished), strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_finished_fold_is_not_lost_when_the_next_one_cannot_be_written(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, done = runs.write_finished, []

    def full_disk(session, work, *rest):
        if done:
            raise UserError("cannot write: No space left on device")
        done.append(work.place)
        write(session, work, *rest)

    monkeypatch.setattr(runs, "write_finished", full_disk)
    assert demo_run(demo_corpus, tmp_path, "--fold", "1,2", method="none") == 2
    assert (done[0] / "fold.json").is_file()


def test_a_fold_that_diverged_is_written_and_the_others_go_on(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One fold's failure used to end the run, and nothing said why it was missing."""
    wild = ["-o", "train.lr=1e6", "-o", "train.optimizer=sgd", "-o", "train.clip=null"]
    assert demo_run(demo_corpus, tmp_path, "--fold", "1,2", *wild) == 1
    shown = capsys.readouterr().out
    assert "failed" in shown and "learning rate 1e+06" in shown
    for name in ("fold1_seed0", "fold2_seed0"):
        fold = read(tmp_path / "r" / name / "fold.json")
        assert fold["status"] == "failed" and "1e+06" in fold["reason"]
    assert verify(tmp_path / "r") == []
    assert read(tmp_path / "r" / "result.json")["status"] == "incomplete"
