"""A second task of thirty lines (tests/tasks/toy.py) through everything; no other file knows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emopeft.commands.door import main as door
from emopeft.downstream.records.record import verify, write_record
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.sharing.hub import export, load
from emopeft.downstream.tasks.base import TASKS
from emopeft.downstream.training.trainer import Trainer
from tests.calls import call, read
from tests.runs.rated import TWO_FOLDS, manifest, protocol
from tests.tasks.toy import Together


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """The task registers itself, as a file in tasks/ would."""
    TASKS.add("together", Together)
    yield
    TASKS._items.pop("together")


@pytest.fixture(scope="module")
def rated(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Flags for the rated corpus and its protocol."""
    root = tmp_path_factory.mktemp("rated")
    data = manifest(demo_corpus, root / "rated.csv")
    folds = protocol(root / "toy.json", "toy-together", "together", TWO_FOLDS)
    return ["-u", "demo", "-d", "together", "--corpus", "manifest", "--data", data,
            "--protocol", folds]  # fmt: skip


# Four groups in a batch of 32 clips.
SPLIT = ["-o", "train.batch_seconds=12", "-o", "train.epochs=3", "-o", "train.lr=3e-3"]


@pytest.fixture(scope="module")
def trained(rated: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of both folds."""
    out = tmp_path_factory.mktemp("runs")
    assert call(*rated, "-p", "lora", "--out", out, "-n", "lora", *SPLIT) == 0
    return out / "lora"


def test_probes(rated: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["-o", "train.lr_grid=[1e-1, 1e-3]", "-o", "train.epochs=20"]
    assert call(*rated, "-p", "none", "--out", tmp_path, "-n", "none", "--tune", "lr", *grid) == 0
    shown = capsys.readouterr().out
    assert "CCC" in shown and "UAR" not in shown
    run = tmp_path / "none"
    assert verify(run) == []
    fold = read(run / "fold1_seed0" / "fold.json")
    assert fold["task"]["name"] == "together"
    assert fold["metrics"]["test"]["ccc"] > 0.5  # its ratings follow the emotion
    assert set(fold["stages"][0]["result"]["tried"]) == {"0.1", "0.001"}
    # Clips without a rating take no part: 240 clips in 5 sessions.
    counts = fold["utterances"]
    assert counts["train"] + counts["dev"] + counts["tests"]["test"] == 240 - 22


def test_the_loss_is_taken_on_whole_batches(trained: Path) -> None:
    history = read(trained / "fold1_seed0" / "fold.json")["stages"][0]["result"]["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert all("ccc" in step for step in history)


def test_killed_and_resumed(
    trained: Path, rated: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimise = Trainer._optimise

    def stops(self: Trainer, batch: list[int]) -> None:
        optimise(self, batch)
        if self.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    command = [*rated, "-p", "lora", "--out", tmp_path, "-n", "r", "--fold", "1", *SPLIT]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimise", stops)
        assert call(*command) == 130
    assert list((tmp_path / "r" / "fold1_seed0").glob("stage*.pt"))
    assert call(*command) == 0
    one, other = (r / "fold1_seed0" for r in (tmp_path / "r", trained))
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    assert not list(one.glob("stage*.pt"))


def test_record_and_board(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(trained) == []
    before = (trained / "result.json").read_bytes()
    write_record(trained)
    assert (trained / "result.json").read_bytes() == before
    assert read(trained / "result.json")["summary"]["test"]["ccc"]["n"] == 2
    assert door(["board", str(trained.parent), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "leaderboard.md").read_text()
    assert "toy-together" in page and "CCC" in page
    capsys.readouterr()


def test_export_and_evaluate(trained: Path, rated: list[object], tmp_path: Path) -> None:
    for result in evaluate(trained):
        assert result["difference"] < 1e-4
    export(trained, tmp_path / "card", fold="1")
    classify = load(tmp_path / "card")
    first = (trained / "fold1_seed0" / "predictions.csv").read_text().splitlines()
    header, row = (line.split(",") for line in first[:2])
    from emopeft.downstream.corpora.manifest import read as utterances

    clip = {u.id: u for u in utterances(Path(str(rated[7])))}[row[0].partition("/")[2]]
    wanted = float(row[header.index("prediction")])
    assert classify(clip.path)["prediction"] == pytest.approx(wanted, abs=1e-4)
