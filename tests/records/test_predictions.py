"""predictions.csv: every digit survives, spreadsheets compute nothing, damage is named."""

import csv
import math
import os
import random

import pytest

from emopeft.downstream.measures.columns import Column, Metric
from emopeft.downstream.records.predictions import (
    COLUMNS,
    Prediction,
    predictions_text,
    read_predictions,
    table_of,
)
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from tests.records.cases import CLASSES, make_rows

TASK = EmotionTask(CLASSES)


class Rating(Task):
    """A rating that may be missing."""

    name = "rating-of-a-test"
    columns = (Column("truth", "truth", low=1, high=7, missing=True), Column("guess", "prediction"))  # type: ignore[assignment]
    metrics = (Metric("error", "error", better="lower", percent=False),)  # type: ignore[assignment]


def test_scores_survive_to_the_last_digit(tmp_path):
    dice = random.Random(1)
    logits = [[dice.gauss(0, 3) for _ in CLASSES] for _ in range(200)]
    logits[0] = [1.0, 1.0 + 1e-15, 0.0, 0.0]  # nearly a tie
    rows = []
    for number, values in enumerate(logits):
        total = sum(map(math.exp, values))
        scores = {f"score_{n}": math.exp(v) / total for n, v in zip(CLASSES, values, strict=True)}
        guess = max(scores, key=scores.__getitem__).removeprefix("score_")
        cells = {"truth": CLASSES[0], "prediction": guess, **scores}
        rows.append(Prediction(f"toy/u{number}", "1", 0, "test", 's, "x"', {}, cells))
    path = tmp_path / "predictions.csv"
    path.write_text(predictions_text(rows, TASK))
    assert read_predictions(path, TASK) == rows


def test_any_task(tmp_path):
    rows = [
        Prediction("toy/a", "1", 0, "test", "", {}, {"truth": 3.3, "guess": 1e-300}),
        Prediction("toy/b", "1", 0, "far", "toy/s", {"age": "41"}, {"truth": 1.0, "guess": -2.0}),
    ]
    missing = Prediction("toy/c", "1", 0, "far", "toy/s", {}, {"truth": math.nan, "guess": 0.0})
    path = tmp_path / "predictions.csv"
    path.write_text(predictions_text([*rows, missing], Rating()))
    *first, last = read_predictions(path, Rating())
    assert first == rows
    assert math.isnan(last.values["truth"])
    assert table_of(rows, Rating()) == {"truth": [3.3, 1.0], "guess": [1e-300, -2.0]}
    header = path.read_text().splitlines()[0]
    assert header == "id,fold,seed,test,speaker,age,truth,guess"


FORMULAS = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "'=x", "'", "plain"]


def test_a_spreadsheet_computes_nothing(tmp_path):
    """REVIEW D7: a text that begins like a formula is written with a ' and read without."""
    classes = tuple(FORMULAS)
    task = EmotionTask(classes)
    rows = []
    for number, text in enumerate(FORMULAS):
        scores = {f"score_{c}": float(c == text) for c in classes}
        values = {"truth": text, "prediction": text, **scores}
        traits = {"=sex": text} if number else {}
        rows.append(Prediction(f"{text}/{number}", text, 0, "test", text, traits, values))
    path = tmp_path / "predictions.csv"
    path.write_text(predictions_text(rows, task))
    with path.open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert read_predictions(path, task) == rows


@pytest.mark.parametrize("evil", ["\x1b[31m", "\x00", "\x7f", "\t", "\x85"])
def test_control_characters_go_no_further(tmp_path, evil):
    """REVIEW D7: ESC and its like in a cell are refused, and not repeated to the terminal."""
    rows = make_rows("1")
    path = tmp_path / "predictions.csv"
    path.write_text(predictions_text(rows, TASK).replace("toy/sf1", f"toy/{evil}sf1"))
    with pytest.raises(UserError, match="control character|line contains NUL") as caught:
        read_predictions(path, TASK)
    assert evil not in str(caught.value)


CSV_DAMAGE = {
    "empty": (lambda lines: [], "line 1: the header"),
    "only the first columns": (lambda lines: [",".join(COLUMNS)], "line 1: the header"),
    "other class": (lambda lines: [lines[0].replace("sad", "mad"), *lines[1:]], "line 1"),
    "swapped": (
        lambda lines: [lines[0].replace("id,fold", "fold,id"), *lines[1:]],
        "line 1: the header must be id,fold,seed",
    ),
    "column twice": (lambda lines: [lines[0].replace("sex", "truth")], "line 1: the header"),
    "short row": (lambda lines: [*lines[:3], lines[3][:20], *lines[4:]], "line 4"),
    "blank row": (lambda lines: [*lines[:3], "", *lines[3:]], "line 4: 0 cells"),
    "no id": (lambda lines: [*lines[:2], lines[2].replace("toy/f1_u1", ""), *lines[3:]], "line 3"),
    "seed": (lambda lines: [*lines[:2], lines[2].replace(",1,0,", ",1,x,")], "line 3: the seed"),
    "truth": (lambda lines: [lines[0], lines[1].replace(",neutral", ",calm", 1)], "the truth"),
    "guess": (
        lambda lines: [lines[0], lines[1].replace("neutral,neutral", "neutral,calm")],
        "line 2: the prediction 'calm'",
    ),
    "guess against scores": (
        lambda lines: [lines[0], lines[1].replace("neutral,neutral", "neutral,sad")],
        "line 2: the prediction 'sad' is not the class of the highest score",
    ),
    "NaN": (lambda lines: [lines[0], lines[1].replace("0.6", "nan")], "line 2: the score_neutral"),
    "inf": (lambda lines: [lines[0], lines[1].replace("0.6", "1e999")], "line 2: the score_"),
    "text": (lambda lines: [lines[0], lines[1].replace("0.6", "much")], "line 2: the score_"),
    "sum": (lambda lines: [lines[0], lines[1].replace("0.6", "0.7")], "line 2: the scores add"),
    "quote": (lambda lines: [*lines[:-1], '"' + lines[-1]], "line 9"),
    "giant": (lambda lines: [*lines[:-1], "x" * 200_000], "line 9: field larger"),
    "long": (lambda lines: [lines[0], lines[1].replace("toy/sf1", "x" * 3000)], "line 2: a text"),
}


@pytest.mark.parametrize("case", CSV_DAMAGE)
def test_damage_is_refused_by_line(tmp_path, case):
    change, words = CSV_DAMAGE[case]
    lines = change(predictions_text(make_rows("1"), TASK).splitlines())
    path = tmp_path / "predictions.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(UserError, match=words) as caught:
        read_predictions(path, TASK)
    assert "predictions.csv" in str(caught.value)


def test_what_is_no_text_file(tmp_path):
    """REVIEW D1: pipes and devices are refused, not waited for."""
    path = tmp_path / "predictions.csv"
    with pytest.raises(UserError, match="does not exist"):
        read_predictions(path, TASK)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_predictions(path, TASK)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a pipe"):
        read_predictions(path, TASK)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is a device"):
        read_predictions(path, TASK)
