"""`emopeft classes` on runs made by hand, against scikit-learn."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, roc_curve

from emopeft.commands import door
from emopeft.downstream.records.record import write_record
from emopeft.downstream.reports.confusion import Classes, class_by_class, confusion_sections
from emopeft.downstream.reports.sections import terminal
from tests.calls import predictions
from tests.records.cases import CLASSES, FOLDS, make_fold, make_rows, plan_rows
from tests.reports.class_cases import scored_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scored_run(tmp_path_factory.mktemp("classes") / "r", seeds=(0, 1))


@pytest.fixture(scope="module")
def found(run: Path) -> Classes:
    return class_by_class(run)


def rate(own: np.ndarray, scores: np.ndarray) -> float:
    """EER on scikit-learn's ROC, looked for along its lines."""
    false, hits, _ = roc_curve(own, scores, drop_intermediate=False)
    along = np.linspace(0, len(false) - 1, 400_001)
    false, hits = (np.interp(along, np.arange(len(of)), of) for of in (false, hits))
    return float(false[np.argmin(np.abs(false - (1 - hits)))])


def test_all_numbers_are_scikit_learns(run: Path, found: Classes) -> None:
    seeds = [[r for r in predictions(run / "predictions.csv") if r["seed"] == s] for s in "01"]
    wanted: dict[str, list[np.ndarray]] = {"recall": [], "precision": [], "F1": [], "EER": []}
    for rows in seeds:
        truth, said = ([r[name] for r in rows] for name in ("truth", "prediction"))
        p, r, f, _ = precision_recall_fscore_support(truth, said, labels=CLASSES)
        scores = {c: np.array([float(row[f"score_{c}"]) for row in rows]) for c in CLASSES}
        rates = [rate(np.array(truth) == c, scores[c]) for c in CLASSES]
        for name, values in (("recall", r), ("precision", p), ("F1", f), ("EER", rates)):
            wanted[name].append(np.array(values))
    for name, of in wanted.items():
        ours = [number.value for number in found.per_class[name]]
        assert ours == pytest.approx(np.mean(of, 0).tolist(), abs=2e-5), name
        for number in found.per_class[name]:
            assert number.interval and number.interval[0] <= number.value <= number.interval[1]
    assert found.means["eer"].value == pytest.approx(np.mean(wanted["EER"]), abs=2e-5)
    for name in ("micro", "macro", "weighted"):
        of = [f1_score([r["truth"] for r in rows], [r["prediction"] for r in rows], average=name)
              for rows in seeds]  # fmt: skip
        assert found.means[f"{name}_f1"].value == pytest.approx(np.mean(of))
    both = [r for rows in seeds for r in rows]
    theirs = confusion_matrix([r["truth"] for r in both], [r["prediction"] for r in both],
                              labels=CLASSES)  # fmt: skip
    assert found.confusion.tolist() == theirs.tolist()
    assert found.clips == theirs.sum(1).tolist()


def test_over_folds_a_folds_seeds_are_averaged_first(run: Path, found: Classes) -> None:
    by_fold: dict[str, list[float]] = {}
    for fold in FOLDS:
        for seed in (0, 1):
            rows = predictions(run / f"fold{fold}_seed{seed}" / "predictions.csv")
            first_two = [
                row["truth"] in sorted(CLASSES, key=lambda c: -float(row[f"score_{c}"]))[:2]
                for row in rows
            ]
            by_fold.setdefault(fold, []).append(float(np.mean(first_two)))
    means = [np.mean(of) for of in by_fold.values()]
    top = found.over_folds["top2"]
    assert top["mean"] == pytest.approx(np.mean(means)) and top["n"] == 3
    assert top["std"] == pytest.approx(np.std(means, ddof=1))


def test_an_absent_class_has_no_numbers_and_no_row(tmp_path: Path) -> None:
    rows = {}
    for fold in FOLDS:
        of = [row for row in make_rows(fold, right=5) if row.values["truth"] != "sad"]
        rows[fold] = [dataclasses.replace(row, speaker=f"toy/s{fold}") for row in of]
    planned = {fold: plan_rows(fold, tests={"test": of}) for fold, of in rows.items()}
    for fold, of in rows.items():
        make_fold(tmp_path / "r", fold, rows=of, planned=planned)
    write_record(tmp_path / "r")
    found = class_by_class(tmp_path / "r")
    sad = CLASSES.index("sad")
    assert all(np.isnan(found.per_class[name][sad].value) for name in ("recall", "F1", "EER"))
    assert found.means["eer"].value == pytest.approx(
        np.mean([number.value for i, number in enumerate(found.per_class["EER"]) if i != sad])
    )
    text = terminal(confusion_sections(found)).splitlines()
    one, other = (line.split() for line in text if line.startswith("sad "))
    assert one[:4] == ["sad", "0", "–", "0.00"] and one[-2:] == other[-2:] == ["–", "–"]
    assert other == ["sad", *"––––"]
    page = confusion_sections(found)[-1].parts[-1]
    page.draw(tmp_path / "c.svg")  # type: ignore[union-attr]
    assert (tmp_path / "c.svg").read_text().count("–") == 4


def test_the_command(
    run: Path, found: Classes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door.main(["classes", str(run), "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Most often taken: " in shown and "clips, all seeds" in shown
    assert {path.name for path in tmp_path.iterdir()} == {
        "classes.md", "classes-confusion.svg", "classes.csv", "classes-over.csv",
        "classes-confusion.csv",
    }  # fmt: skip
    with (tmp_path / "classes.csv").open(newline="") as file:
        rows = {(r["class"], r["measure"]): r for r in csv.DictReader(file)}
    one, number = rows["happy", "EER"], found.per_class["EER"][CLASSES.index("happy")]
    assert float(one["value"]) == number.value and float(one["high"]) == number.interval[1]  # type: ignore[index]
    with (tmp_path / "classes-confusion.csv").open(newline="") as file:
        counts = [row[1:] for row in csv.reader(file)][1:]
    assert [[int(c) for c in row] for row in counts] == found.confusion.tolist()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["RUN", "--test", "dev"], "unknown test of toy-3fold-4class 'dev': "),
        (["RUN", "RUN"], "unrecognized arguments"),
        (["RUN/fold1_seed0"], "result.json"),
        (["setup.cfg"], "setup.cfg"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], answer: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = door.main(["classes", *(word.replace("RUN", str(run)) for word in words)])
    except SystemExit as stop:
        status = int(str(stop.code))
    error = capsys.readouterr().err
    assert status == 2 and answer in error and error.count("\n") == 1, error
