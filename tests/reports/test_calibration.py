"""`emopeft calibration` on runs made by hand: numbers against other libraries, and what it says."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from emopeft.commands import door
from emopeft.downstream.records.record import write_record
from emopeft.downstream.reports.calibration import calibration_sections
from emopeft.downstream.reports.calibration_numbers import Calibration, calibrated
from emopeft.downstream.reports.sections import terminal
from tests.calls import predictions
from tests.records.cases import CLASSES, FOLDS, make_fold, make_record, make_rows, plan_rows, tamper
from tests.records.cases_v1 import make_record_v1
from tests.reports.class_cases import scored_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe, a method that is surer than it should be, on two seeds each, and one of one seed."""
    root = tmp_path_factory.mktemp("calibration")
    scored_run(root / "probe", 1.0, 1, seeds=(0, 1), method="none", name="probe")
    scored_run(root / "lora", 4.0, 2, seeds=(0, 1))
    return root


@pytest.fixture(scope="module")
def found(runs: Path) -> Calibration:
    return calibrated([runs / "probe", runs / "lora"])


def scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truths of a file."""
    rows = predictions(path)
    table = np.array([[float(row[f"score_{c}"]) for c in CLASSES] for row in rows])
    return table, np.array([CLASSES.index(row["truth"]) for row in rows])


def best(path: Path) -> float:
    """The temperature of a dev.csv, by a search over log T."""
    table, truth = scores(path)

    def loss(log_t: float) -> float:
        return float(log_loss(truth, softmax(np.log(table) / np.exp(log_t), -1), labels=range(4)))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


def test_temperatures_and_losses_are_those_of_other_libraries(
    runs: Path, found: Calibration
) -> None:
    for run, name in zip(found.runs, ("probe", "lora"), strict=True):
        before, after = [], []
        for fold in run.folds:
            place = runs / name / f"fold{fold.fold}_seed{fold.seed}"
            assert fold.temperature.value == pytest.approx(best(place / "dev.csv"), rel=1e-4)
            assert (fold.clips, fold.speakers, fold.heard) == (8, 1, 0)
            table, truth = scores(place / "predictions.csv")
            scaled = softmax(np.log(table) / fold.temperature.value, -1)
            losses = [log_loss(truth, of, labels=range(4)) for of in (table, scaled)]
            assert fold.test == pytest.approx(tuple(losses))
            before.append((truth, table))
            after.append((truth, scaled))
        for state, parts in (("before", before), ("after", after)):
            seeds = [parts[:3], parts[3:]]
            truths = [np.concatenate([t for t, _ in of]) for of in seeds]
            tables = [np.concatenate([s for _, s in of]) for of in seeds]
            pairs = list(zip(truths, tables, strict=True))
            wanted = {
                "nll": [log_loss(t, s, labels=range(4)) for t, s in pairs],
                "brier": [brier_score_loss(t, s, labels=range(4), scale_by_half=False)
                          for t, s in pairs],
                "accuracy": [np.mean(s.argmax(-1) == t) for t, s in pairs],
                "confidence": [s.max(-1).mean() for _, s in pairs],
            }  # fmt: skip
            for measure, values in wanted.items():
                number = run.numbers[state, measure]
                assert number.value == pytest.approx(np.mean(values)), (state, measure)
                assert number.interval and number.interval[0] <= number.value <= number.interval[1]


def test_differences_are_paired_and_only_to_the_probe(runs: Path, found: Calibration) -> None:
    probe, lora = found.runs
    assert probe.gains is None and lora.gains is not None
    for key, gain in lora.gains.items():
        assert gain.value == pytest.approx(lora.numbers[key].value - probe.numbers[key].value)
    assert lora.gains["before", "nll"].interval[0] > 0  # type: ignore[index]
    text = terminal(calibration_sections(found))
    assert (
        "lora against none, by intervals that leave 0 out: before the temperature worse in" in text
    )
    alone = terminal(calibration_sections(calibrated([runs / "lora"])))
    assert "name both (a run of -p none" in alone and "less the probe's" not in alone
    # The same on the plain draws of speakers, one by one.
    rng = np.random.default_rng(4)
    rows = {name: predictions(runs / name / "predictions.csv")
            for name in ("probe", "lora")}  # fmt: skip
    losses: dict[str, dict[str, list[float]]] = {}
    for name, of in rows.items():
        losses[name] = {}
        for row in of:
            loss = -np.log(float(row[f"score_{row['truth']}"]))
            losses[name].setdefault(row["speaker"], []).append(loss)
    names = sorted(losses["probe"])
    drawn = []
    for _ in range(4000):
        who = rng.choice(names, len(names))
        means = [np.mean(np.concatenate([losses[run][w] for w in who])) for run in rows]
        drawn.append(means[1] - means[0])
    assert lora.gains["before", "nll"].interval == pytest.approx(
        tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.06
    )


def test_dev_that_tells_no_temperature_and_few_speakers(tmp_path: Path) -> None:
    made = scored_run(tmp_path / "sure", dev_right=True)
    found = calibrated([made], bins=4)
    [run] = found.runs
    assert {fold.temperature.value for fold in run.folds} == {1.0}
    assert run.numbers["after", "ece"] == run.numbers["before", "ece"]
    text = terminal(calibration_sections(found))
    assert text.count("all right: not fitted") == 3 and "With 8 clips of dev" in text
    assert "4 bins of equal mass" in text


def test_one_speaker_or_unknown_ones_give_no_interval(tmp_path: Path) -> None:
    make_record(tmp_path / "one", (5,), folds=("1",))
    found = calibrated([tmp_path / "one"])
    assert all(number.interval is None for number in found.runs[0].numbers.values())
    assert found.runs[0].numbers["before", "accuracy"].value == 5 / 8
    text = terminal(calibration_sections(found))
    assert "There is one speaker, so that there are no intervals." in text
    assert "8 clips of 1 speaker in a fold" in text
    rows = {f: [dataclasses.replace(r, speaker="") for r in make_rows(f, right=5)] for f in FOLDS}
    planned = {f: plan_rows(f, tests={"test": of}) for f, of in rows.items()}
    for fold, of in rows.items():
        make_fold(tmp_path / "u", fold, rows=of, planned=planned, plan={"unknown_speakers": True})
    write_record(tmp_path / "u")
    found = calibrated([tmp_path / "u"])
    assert all(number.interval is None for number in found.runs[0].numbers.values())
    assert "Some speakers are not known" in terminal(calibration_sections(found))


def test_scores_of_zero_are_said_and_cost_no_infinity(tmp_path: Path) -> None:
    made = scored_run(tmp_path / "hard", 900.0)
    [run] = (found := calibrated([made])).runs
    rows = predictions(made / "predictions.csv")
    count = sum(float(row[f"score_{row['truth']}"]) == 0 for row in rows)
    assert run.lost == count > 0 and np.isfinite(run.numbers["before", "nll"].value)
    text = terminal(calibration_sections(found))
    assert f"lora: {count} test clip" in text and "-744.4" in text


def test_dev_on_voices_that_were_trained_on_is_said(tmp_path: Path) -> None:
    """Dev's one speaker trains, too, as the protocol's name allows."""
    import tests.reports.class_cases as cases

    plain = cases.plan_rows

    def shared(*args: Any, **keys: Any) -> Any:
        rows = plain(*args, **keys)
        dev = next(row.speaker for row in rows if row.part == "dev")
        return [r._replace(speaker=dev) if r.part == "train" else r for r in rows]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "plan_rows", shared)
        made = scored_run(
            tmp_path / "r", plan={"protocol": "toy-3fold-random-dev", "overlap": ["dev"]}
        )
    text = terminal(calibration_sections(calibrated([made])))
    assert "Dev shares up to 1 speaker of a fold with train" in text
    assert "No speaker of dev is trained on" not in text


# ---- the command --------------------------------------------------------------------------------


def test_the_command_writes_page_pictures_and_numbers(
    runs: Path, found: Calibration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibration", str(runs / "probe"), str(runs / "lora"), "--out", str(tmp_path)]
    assert door.main(words) == 0
    shown = capsys.readouterr().out
    assert "Temperatures that dev chose" in shown and "ECE %" in shown
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {"calibration-reliability.svg", "calibration-coverage.svg"}
    tables = {"calibration.csv", "calibration-folds.csv", "calibration-bins.csv"}
    assert names == {"calibration.md"} | pictures | tables
    page = (tmp_path / "calibration.md").read_text()
    assert all(f"]({name})" in page for name in pictures)
    with (tmp_path / "calibration.csv").open(newline="") as file:
        rows = {(r["run"], r["temperature"], r["measure"], r["less"]): r
                for r in csv.DictReader(file)}  # fmt: skip
    one = rows["lora", "after", "ece", ""]
    number = found.runs[1].numbers["after", "ece"]
    assert float(one["value"]) == number.value and float(one["low"]) == number.interval[0]  # type: ignore[index]
    assert (
        rows["lora", "after", "ece", "none"]["low"] and rows["lora", "after", "ece_by_chance", ""]
    )
    with (tmp_path / "calibration-folds.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    with (tmp_path / "calibration-bins.csv").open(newline="") as file:
        bins = list(csv.DictReader(file))
    assert sum(int(r["rows"]) for r in bins if r["temperature"] == "after") == 240


WRONG = [
    (["probe", "nowhere"], "nowhere"),
    (["probe", "probe"], "a run is named twice"),
    (["probe", "other"], "is of another plan than"),
    (["old"], "is a record of schema 1, without dev: run it again"),
    (["bad"], "is not what its folds give"),
    (["probe", "--test", "tset"], "unknown test of toy-3fold-4class 'tset': did you mean test"),
    (["probe", "--bins", "0"], "must be a number from 1 to 1000"),
    (["probe", "--bins", "many"], "must be a number from 1 to 1000"),
    ([], "the following arguments are required: RUN"),
]


@pytest.fixture(scope="module")
def wrong(runs: Path) -> Path:
    make_record(runs / "other")
    make_record_v1(runs / "old")
    scored_run(runs / "bad")
    tamper(runs / "bad", lambda data: data["pooled"]["test"].update(uar=0.9))
    return runs


@pytest.mark.parametrize(("words", "answer"), WRONG)
def test_mistakes_are_one_sentence(
    words: list[str], answer: str, wrong: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(wrong / w) if (wrong / w).exists() or w == "nowhere" else w for w in words]
    try:
        status = door.main(["calibration", *argv])
    except SystemExit as stop:
        status = int(str(stop.code))
    error = capsys.readouterr().err
    assert status == 2 and answer in error and error.count("\n") == 1, error


def test_a_run_that_lacks_folds_is_said_and_not_compared(runs: Path, tmp_path: Path) -> None:
    made = scored_run(tmp_path / "part", 2.0, folds=("1", "2"))
    found = calibrated([runs / "probe", made])
    assert found.runs[1].gains is None
    text = terminal(calibration_sections(found))
    assert "lora is not finished: 1 fold missing." in text
    assert "lora and none have not the same folds: no difference." in text
