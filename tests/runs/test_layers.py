"""``emopeft layers``: the probes of all states at once are the ordinary runs, kept and shown."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from emopeft.commands.door import main
from emopeft.downstream.records.record import verify
from emopeft.downstream.reports.layer_numbers import CHOSEN, SUM, Layers, read_layers
from emopeft.downstream.reports.layers import layers_sections
from emopeft.downstream.reports.sections import terminal
from emopeft.downstream.training.probes import Probe
from emopeft.leaderboard.gather import gather
from tests.calls import demo_run, read, scores

STATES = 3  # of the demo encoder
SHORT = ["-o", "train.epochs=3", "-o", "train.lr=3e-3", "-o", "head.standardise=true"]
NAMES = [*(f"layer{i}" for i in range(STATES)), "weighted_sum"]


def layers(corpus: Path, out: Path, *more: str) -> int:
    return main(
        ["layers", "-u", "demo", "-d", "emotion", "--corpus", "demo", "--data", str(corpus),
         "--fold", "1,2", "--out", str(out), "-n", "all", *SHORT, *more]
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the probes of two folds."""
    out = tmp_path_factory.mktemp("layers")
    assert layers(demo_corpus, out) == 0
    return out / "all"


@pytest.fixture(scope="module")
def found(done: Path) -> Layers:
    return read_layers([done / name for name in NAMES[:-1]], done / SUM.replace(" ", "_"))


def assert_same(one: Path, other: Path) -> None:
    assert read(one / "identity.json") == read(other / "identity.json")
    for mine, theirs in zip(scores(one), scores(other), strict=True):
        assert mine[0] == theirs[0] and mine[1] == pytest.approx(theirs[1], abs=1e-6)


@pytest.mark.parametrize("layers", ["1", "weighted_sum"])
def test_each_is_the_ordinary_run(
    layers: str, done: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    name = f"layer{layers}" if layers.isdecimal() else layers
    keys = ["-o", f"head.layers={layers}", "-o", "train.epochs=3", "--fold", "1,2", *SHORT]
    assert demo_run(demo_corpus, tmp_path, *keys, method="none", name=name) == 0
    assert_same(done / name, tmp_path / name)
    assert read(done / name / "result.json")["id"] == read(tmp_path / name / "result.json")["id"]


def test_the_board_counts_them_again(done: Path) -> None:
    board = gather(done)
    assert board.refused == [] and board.replaced == []
    assert {row.place for row in board.incomplete} == set(NAMES)  # two of five folds
    assert all(verify(done / name) == [] for name in NAMES)
    assert len({read(done / name / "result.json")["id"] for name in NAMES}) == len(NAMES)


def test_nothing_is_done_twice_and_what_is_missing_is_done(
    done: Path, demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the middle of training, too."""
    again = Path(shutil.copytree(done, tmp_path / "all"))
    kept = {p: p.stat().st_mtime_ns for p in again.rglob("fold.json")}
    shutil.rmtree(again / "layer1" / "fold2_seed0")
    shutil.rmtree(again / "layer2")

    def stops(self: Probe, advance: object) -> None:
        self.save()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Probe, "evaluate", stops)
        assert layers(demo_corpus, tmp_path) == 130
    assert list(again.glob("layer[12]/*/stage1.pt")) and not (again / "layer2/result.json").exists()
    assert layers(demo_corpus, tmp_path) == 0
    assert not list(again.rglob("stage1.pt"))
    for name in NAMES:
        assert_same(again / name, done / name)
    lost = {p for p in kept if "layer2" in p.parts or p.parent.name == "fold2_seed0"}
    assert {p for p, when in kept.items() if p.stat().st_mtime_ns == when} >= kept.keys() - lost


def test_numbers_are_those_of_the_records(done: Path, found: Layers) -> None:
    for name, probe in zip(NAMES, [*found.states, found.others[0]], strict=True):
        summary = read(done / name / "result.json")["summary"]["test"]
        for metric in ("accuracy", "uar", "macro_f1"):
            number = found.numbers[probe.name, metric]
            assert number.value == pytest.approx(summary[metric]["mean"], abs=1e-12)
            assert number.interval is not None
            assert number.interval[0] <= number.value <= number.interval[1]
    same = found.numbers[SUM, "uar"]
    assert (same.difference, same.difference_interval) == (0.0, (0.0, 0.0))
    state = found.numbers["state 2", "uar"]
    assert state.difference == pytest.approx(state.value - same.value)
    assert found.speakers == 4  # of two folds


def test_the_state_chosen_on_dev_is_taken_fold_by_fold(found: Layers) -> None:
    for key, state in found.chosen.items():
        dev = [probe.dev[key]["uar"] for probe in found.states]
        assert state == dev.index(max(dev))
    (chosen,) = (p for p in found.others if p.name == CHOSEN)
    for key, rows in chosen.rows.items():
        assert rows == found.states[found.chosen[key]].rows[key]


def test_shares_are_the_softmax_of_the_checkpoints(done: Path, found: Layers) -> None:
    shares = found.others[0].weights
    assert set(shares) == {("1", 0), ("2", 0)}
    for (fold, seed), row in shares.items():
        place = done / "weighted_sum" / f"fold{fold}_seed{seed}" / "adapter.safetensors"
        weights = load_file(place)["head.featurizer.weights"].double()
        assert row == pytest.approx((weights.exp() / weights.exp().sum()).tolist())
        assert row != pytest.approx([1 / STATES] * STATES, abs=1e-6)


def test_table_csv_and_picture(done: Path, found: Layers) -> None:
    text = terminal(layers_sections(found))
    assert "state 2" in text and "picked after the fact" in text
    assert "<svg" in (done / "layers-uar.svg").read_text()
    assert "](layers-uar.svg)" in (done / "layers.md").read_text()
    with (done / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (STATES + 2) * 3
    number = found.numbers["state 0", "accuracy"]
    (row,) = (r for r in rows if (r["probe"], r["metric"]) == ("state 0", "accuracy"))
    assert (float(row["value"]), float(row["low"])) == (number.value, (number.interval or (0,))[0])


@pytest.fixture(scope="module")
def runs(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that adapts the encoder, and its fold 1 alone."""
    out = tmp_path_factory.mktemp("runs")
    assert demo_run(demo_corpus, out, "-o", "train.epochs=1", name="lora") == 0
    yield out


def test_beside_a_run_that_adapts(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its probes are of the frozen encoder, on its folds, with the defaults for one."""
    assert main(["layers", str(runs / "lora"), "--out", str(tmp_path)]) == 0
    assert "this run (lora)" in capsys.readouterr().out
    recorded = read(tmp_path / "lora" / "layer0" / "result.json")
    assert recorded["method"]["spec"] == "none" and recorded["train"]["epochs"] == 200
    assert [fold["fold"] for fold in recorded["folds"]] == ["1"]


def test_of_a_probe_that_is_there_the_sum_is_not_trained_again(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layers", str(done / "weighted_sum"), "--out", str(tmp_path)]) == 0
    out = tmp_path / "weighted_sum"
    assert {p.name for p in out.iterdir() if p.is_dir()} == set(NAMES[:-1])
    assert_same(out / "layer2", done / "layer2")
    assert "this run" not in capsys.readouterr().out


def test_one_state_has_no_layers(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert layers(demo_corpus, tmp_path, "-o", "upstream.name=fbank", "-o", "folds=1") == 0
    assert "fbank has one state" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "head.layers=last"], "no weighted sum"),
        (["-o", "head.layers=1"], "no weighted sum"),
        (["-o", "head.layers=lst"], "unknown value of head.layers 'lst': did you mean last?"),
        (["-o", "method=lora"], "changes the encoder in each fold"),
        (["-o", "head.init=probe", "-o", "method=none"], "head.init"),
        (["-o", "train.lr=0.5"], "differs in train"),
        (["--metric", "ccc"], "unknown metric"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], says: str, done: Path, demo_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert layers(demo_corpus, done.parent, *words) == 2
    error = capsys.readouterr().err
    assert says in error and error.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-u", "demo"], "--upstream is the run's own"),
        (["-o", "train.lr=1"], "train.lr is the run's own"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_is_the_runs_own(
    words: list[str], says: str, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layers", str(done / "weighted_sum"), "--out", str(tmp_path), *words]) == 2
    assert says in capsys.readouterr().err


def test_neither_a_run_nor_an_upstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers"]) == 2
    assert "needs a run, or -u" in capsys.readouterr().err
    assert main(["layers", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_nothing_may_train_above_the_state_that_is_seen(
    demo_corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A LoRA in the block above would be dead."""
    flags = ["-o", "head.layers=1", "-o", "train.epochs=1"]
    assert demo_run(demo_corpus, tmp_path, *flags, name="dead") == 2
    assert "would train above state 1" in capfd.readouterr().err
    assert demo_run(demo_corpus, tmp_path, *flags, method="lora:blocks=0", name="live") == 0
    assert demo_run(demo_corpus, tmp_path, "-o", "head.layers=9", name="nine") == 2
    assert "states 0 to 2" in capfd.readouterr().err
