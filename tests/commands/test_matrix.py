"""The cross-corpus matrix and zero-shot evaluation, on the demo corpus of two domains."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from emopeft.commands.door import main as door
from emopeft.commands.matrix import split_methods
from emopeft.downstream.measures.resampling import Measure, Sample, over_folds
from emopeft.downstream.measures.weighted import confusions, uar
from emopeft.downstream.runs import probing
from emopeft.downstream.runs import run as runs
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError
from emopeft.leaderboard.matrix import gather_matrix
from emopeft.leaderboard.paired import mean_uar
from tests.calls import call, predictions, read

CORPORA = ("demo-acted", "demo-natural")
METHODS = ("none", "ws:layers=blocks")
KEYS = ["-u", "demo", "-o", "train.epochs=3", "-o", "train.lr=3e-3",
        "-o", "corpus.allow_incomplete=true"]  # fmt: skip


def matrix(places: Path, out: Path, methods: str = ",".join(METHODS)) -> int:
    return door(
        ["matrix", "--corpus", "+".join(CORPORA), "--data", str(places), "-p", methods,
         "--out", str(out), *KEYS]
    )  # fmt: skip


@pytest.fixture(scope="module")
def small(demo_domains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the clips: 48 of each corpus, 16 of which each fold tests."""
    root = tmp_path_factory.mktemp("small")
    for place in demo_domains.glob("demo-*/*_0[12].*"):
        (root / place.parent.name).mkdir(exist_ok=True)
        (root / place.parent.name / place.name).symlink_to(place)
    return root


@pytest.fixture(scope="module")
def finished(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both homes with both methods."""
    out = tmp_path_factory.mktemp("matrix")
    assert matrix(small, out) == 0
    return out


def run_of(out: Path, home: str, method: str) -> Path:
    """The folder of one of the runs."""
    return next(
        p.parent
        for p in out.glob("away-*/result.json")
        if p.parent.name.startswith(f"away-{home}-") and read(p)["method"]["asked"] == method
    )


def uar_of(rows: list[dict[str, str]], **weights: Any) -> float:
    return balanced_accuracy_score(
        [r["truth"] for r in rows], [r["prediction"] for r in rows], **weights
    )


def by_fold(run: Path, test: str) -> list[list[dict[str, str]]]:
    rows = [r for r in predictions(run / "predictions.csv") if r["test"] == test]
    return [[r for r in rows if r["fold"] == fold] for fold in sorted({r["fold"] for r in rows})]


def test_every_number_is_that_of_the_predictions(finished: Path) -> None:
    """By scikit-learn, from predictions.csv alone."""
    data = read(finished / "matrix.json")
    cells = {(c["trained on"], c["tested on"], c["method"]): c for c in data["cells"]}
    assert len(cells) == 8
    for home, test in itertools.product(CORPORA, CORPORA):
        means = {}
        for method in METHODS:
            folds = by_fold(run_of(finished, home, method), test)
            values = [uar_of(rows) for rows in folds]
            # At home each fold tests its own two speakers, away each tests all 48 clips.
            assert [len(rows) for rows in folds] == [16 if test == home else 48] * 3
            cell = cells[home, test, method]
            assert cell["mean"] == pytest.approx(np.mean(values), abs=1e-12)
            assert cell["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            means[method] = np.mean(values)
        assert cell["gain"] == pytest.approx(means["ws:layers=blocks"] - means["none"], abs=1e-12)
        low, high = cell["gain_interval"]
        assert low <= cell["gain"] <= high
    assert len({c["gain"] for c in data["cells"] if "gain" in c}) > 1
    page = (finished / "matrix.md").read_text()
    assert page.count("| demo-acted") == 3 and "![" in page  # two methods and one gain
    for name in ("matrix.svg", "matrix-gain.svg"):
        assert "demo-natural" in (finished / name).read_text()


def test_the_interval_is_that_of_a_plain_bootstrap(finished: Path) -> None:
    """Speakers drawn one by one, each draw counted by scikit-learn's sample weights."""
    made = gather_matrix([finished])
    home, test = CORPORA
    pair = [next(r for r in made.runs if r.home == home and r.method == m) for m in made.methods]
    folds = [by_fold(run.place, test) for run in pair]
    speakers = sorted({r["speaker"] for rows in folds[0] for r in rows})
    assert len(speakers) == 6

    def difference(times: np.ndarray) -> float:
        often = dict(zip(speakers, times, strict=True))
        base, own = (
            np.mean([uar_of(of, sample_weight=[often[r["speaker"]] for r in of]) for of in rows])
            for rows in folds
        )
        return own - base

    rng = np.random.default_rng(1)
    drawn = rng.multinomial(6, [1 / 6] * 6, size=400)
    base, own = (mean_uar(run.folds, test, made.task.classes, speakers) for run in pair)
    ours = own(drawn) - base(drawn)
    some = [difference(times) for times in drawn[:20]]
    assert ours[:20] == pytest.approx(some, abs=1e-12)
    gain = made.gains[home, test, made.methods[1]]
    assert gain.value == pytest.approx(difference(np.ones(6)), abs=1e-12)
    assert gain.interval == pytest.approx(np.quantile(ours, [0.025, 0.975]), abs=0.02)


def test_a_fold_counts_by_how_many_of_its_speakers_were_drawn() -> None:
    """At home, where a speaker is tested in one fold: two folds of one and two speakers."""
    sample = Sample.of("aabbcc", "112222", [0] * 6, "abc")
    right = np.array([1, 1, 0, 1, 1, 1])  # speaker b's first class is missed

    def measure(rows: np.ndarray) -> Measure:
        truth = [int(row) % 2 for row in rows]
        said = [t if right[row] else 1 - t for row, t in zip(rows, truth, strict=True)]
        count = confusions(truth, said, 2)
        return lambda weights: uar(count(weights))

    times = np.array([[1, 1, 1], [3, 0, 0], [0, 3, 0], [1, 2, 0]])
    # By hand: fold means 1 and 3/4; 1 alone; 1/2 alone; weights 1 and 2/2 of 1 and 1/2.
    assert over_folds(sample, measure)(times) == pytest.approx([0.875, 1.0, 0.5, 0.75])


def test_what_is_finished_is_not_run_again_and_a_failure_ends_nothing(
    finished: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def must_not_train(*_: object, **__: object) -> None:
        raise AssertionError("a finished fold was trained again")

    before = (finished / "matrix.json").read_bytes(), (finished / "matrix.svg").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", must_not_train)
        patch.setattr(probing, "train_probes", must_not_train)
        assert matrix(small, finished) == 0
    after = (finished / "matrix.json").read_bytes(), (finished / "matrix.svg").read_bytes()
    assert after == before
    # Gathered from named runs, in any order, into another folder: the same numbers.
    places = [str(run_of(finished, home, m)) for home in CORPORA[::-1] for m in METHODS]
    assert door(["matrix", *places, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "matrix.json").read_bytes() == before[0]

    carry_on: Callable[..., Any] = runs.run

    def broken(recipe: Any, *rest: Any) -> Any:
        if recipe.method == "none" and "home=demo-natural" in recipe.protocol:
            raise UserError("the disk is full")
        return carry_on(recipe, *rest)

    monkeypatch.setattr(runs, "run", broken)
    capsys.readouterr()
    assert matrix(small, finished) == 1
    said = capsys.readouterr().err
    assert "failed: none on demo-natural" in said and said.count("failed:") == 1


def test_runs_that_do_not_belong_together(
    finished: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door(["matrix", "--corpus", "demo-acted", "--data", str(small)]) == 2
    assert "needs two corpora at least" in capsys.readouterr().err
    assert door(["matrix", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no finished run that was tested on corpora other" in capsys.readouterr().err
    one = run_of(finished, CORPORA[0], "none")
    shutil.copytree(one, tmp_path / "copy")
    assert door(["matrix", str(one), str(tmp_path / "copy"), "--out", str(tmp_path)]) == 2
    assert "are both none on demo-acted; name the runs that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("none", ["none"]),
        ("none,partial:2,lora", ["none", "partial:2", "lora"]),
        ("lora:r=4,targets=q+v,none", ["lora:r=4,targets=q+v", "none"]),
        ("lora:r=4, alpha=8+ba , full", ["lora:r=4,alpha=8+ba", "full"]),
    ],
)
def test_commas_stand_between_methods_and_within_them(text: str, methods: list[str]) -> None:
    assert split_methods(text) == methods


def test_an_evaluation_gives_what_the_protocol_away_gave(
    finished: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same training without the other corpus in the plan, then asked about it."""
    out = tmp_path / "runs"
    home = ["run", "--corpus", "demo-acted", "--data", str(small), *KEYS]
    assert door([*home, "-p", "ws:layers=blocks", "--out", str(out), "-n", "home"]) == 0
    asked = ["evaluate", str(out / "home"), "--corpus", "demo-natural", "--data"]
    table = tmp_path / "zero.csv"
    capsys.readouterr()
    assert door([*asked, str(small), "--output", str(table)]) == 0
    shown = capsys.readouterr().out
    rows = {(r["id"], r["fold"]): r for r in predictions(table)}
    run = run_of(finished, "demo-acted", "ws:layers=blocks")
    recorded = [r for r in predictions(run / "predictions.csv") if r["test"] == "demo-natural"]
    assert len(rows) == len(recorded) == 3 * 48
    for row in recorded:
        own = rows[row["id"], row["fold"]]
        assert (own["truth"], own["speaker"]) == (row["truth"], row["speaker"])
        for name in (n for n in row if n.startswith("score_")):
            assert float(own[name]) == pytest.approx(float(row[name]), abs=1e-5)
    summary = read(run / "result.json")["summary"]["demo-natural"]["uar"]
    assert f"{100 * summary['mean']:.2f} ± {100 * summary['std']:.2f}" in shown

    # The same recordings under another corpus' name, and speakers it was trained on.
    heard = ["-m", "evaluate", "--run", str(out / "home"), "--corpus", "demo-domains"]
    assert call(*heard, "--data", small) == 2
    assert "32 recordings were trained on or chosen by (demo-domains/acted" in (
        capsys.readouterr().err
    )
    assert call(*heard, "--data", small, "--leaks", "--fold", "1") == 0
    assert "32 recordings were trained on" in capsys.readouterr().out
    two = "demo-acted+demo-domains"
    places = [f"--data={name}={small}" for name in two.split("+")]
    assert door(["run", "--corpus", two, *places, "--protocol", "away", *KEYS]) == 2
    assert "the same audio is in test and in train" in capsys.readouterr().err
