"""Plans with two stages, and with two named tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emopeft.downstream.records.record import verify, write_record
from emopeft.downstream.runs import stages
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.training.trainer import Trainer
from tests.calls import call, read
from tests.runs.rated import manifest, protocol

STAGED = [
    {
        "name": "1",
        "tests": {"near": ["1"], "far": ["2"]},
        "stages": [
            {"name": "first", "train": ["3"], "dev": ["4"]},
            {"name": "second", "train": ["5"], "dev": ["4"], "freeze": ["lora_A"],
             "keys": {"lr": 1e-3, "epochs": 1}},
        ],
    }
]  # fmt: skip


@pytest.fixture(scope="module")
def command(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    root = tmp_path_factory.mktemp("staged")
    data = manifest(demo_corpus, root / "clips.csv")
    folds = protocol(root / "staged.json", "toy-staged", "emotion", STAGED)
    return ["-u", "demo", "-d", "emotion", "-p", "lora", "--corpus", "manifest", "--data", data,
            "--protocol", folds, "-o", "train.epochs=2", "-o", "train.lr=3e-3"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(command: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert call(*command, "--out", out, "-n", "r") == 0
    return out / "r"


def test_trained_recorded_and_audited(trained: Path) -> None:
    assert verify(trained) == []
    before = (trained / "result.json").read_bytes()
    write_record(trained)
    assert (trained / "result.json").read_bytes() == before
    fold = read(trained / "fold1_seed0" / "fold.json")
    assert [s["name"] for s in fold["stages"]] == ["first", "second"]
    assert fold["stages"][1]["freeze"] == ["lora_A"]
    assert [s["result"]["steps"] for s in fold["stages"]] == [4, 2]  # 48 clips, batches of 32
    assert fold["stages"][1]["result"]["lr"] == 1e-3
    assert list(fold["metrics"]) == ["near", "far"]
    record = read(trained / "result.json")
    assert record["audit"]["clean"] is True
    rows = (trained / "fold1_seed0" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + 48 + 48
    assert rows[0].startswith("id,fold,seed,test,speaker,")


def test_tested_again_in_another_process(trained: Path) -> None:
    results = evaluate(trained)
    assert [r["test"] for r in results] == ["near", "far"]
    assert all(r["difference"] < 1e-4 for r in results)


def test_the_second_stage_starts_where_the_first_ended(
    command: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, begun = [], []
    keep, fit = stages._keep, Trainer.fit

    def keeping(session, place, outcome):
        ended.append({k: v.clone() for k, v in outcome.state.items()})
        keep(session, place, outcome)

    def fitting(self):
        begun.append((self.plain.kept_state(), [n for n, _ in self.plain.upstream.trainable()]))
        return fit(self)

    monkeypatch.setattr(stages, "_keep", keeping)
    monkeypatch.setattr(Trainer, "fit", fitting)
    assert call(*command, "--out", tmp_path, "-n", "r") == 0
    (after,), (_, (start, trains)) = ended, begun
    assert after.keys() == start.keys()
    assert all(torch.equal(after[name], start[name]) for name in after)
    assert trains and not any("lora_A" in name for name in trains)
    final = load_file(tmp_path / "r" / "fold1_seed0" / "adapter.safetensors")
    frozen = [n for n in final if "lora_A" in n]
    assert frozen and all(torch.equal(final[n], start[n]) for n in frozen)
    moved = [n for n in final if "lora_B" in n]
    assert moved and not any(torch.equal(final[n], start[n]) for n in moved)


@pytest.mark.parametrize("stop", [2, 5])
def test_killed_in_a_stage_and_resumed(
    command: list[object],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    optimise, done = Trainer._optimise, [0]

    def stops(self: Trainer, batch: list[int]) -> None:
        optimise(self, batch)
        done[0] += 1
        if done[0] == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimise", stops)
        assert call(*command, "--out", tmp_path, "-n", "r") == 130
    counted = [0]

    def counts(self: Trainer, batch: list[int]) -> None:
        optimise(self, batch)
        counted[0] += 1

    monkeypatch.setattr(Trainer, "_optimise", counts)
    assert call(*command, "--out", tmp_path, "-n", "r") == 0
    assert counted[0] == 6 - (stop - 1)  # nothing that was saved is done again
    one, other = (r / "fold1_seed0" / "predictions.csv" for r in (tmp_path / "r", trained))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"freeze": ["head", "lora"]}, "freezes all that trains"),
        ({"freeze": ["lora_Z"]}, "lora_Z"),
        ({"method": "ba"}, "has no place for"),
        ({"keys": {"learning_rate": 1}}, "learning_rate"),
    ],
)
def test_mistakes(
    demo_corpus: Path,
    tmp_path: Path,
    command: list[object],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    says: str,
) -> None:
    (fold,) = STAGED
    second = {**fold["stages"][1], **change}
    folds = [{**fold, "stages": [fold["stages"][0], second]}]
    place = protocol(tmp_path / "p.json", "toy-staged", "emotion", folds)
    changed = [place if str(x).endswith("staged.json") else x for x in command]
    assert call(*changed, "--out", tmp_path, "-n", "r", "-o", "train.epochs=1") == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))  # said before anything was trained
