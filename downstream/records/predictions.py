"""predictions.csv: one row per test utterance, written exactly and read with suspicion.

Columns: ``id,fold,seed,speaker,truth,prediction,score_<class>...``; truth and prediction are
class names, scores are softmax probabilities in full precision, in the order of the protocol's
classes. Imports no torch.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from emopeft.errors import UserError

COLUMNS = ("id", "fold", "seed", "speaker", "truth", "prediction")
SUM_TOLERANCE = 1e-3  # how far the scores of an utterance may add up from 1
TIE_TOLERANCE = 1e-6  # how far the predicted class may lie below the highest score


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One test utterance. ``scores``: class name to softmax probability, in class order."""

    id: str
    fold: str
    seed: int
    speaker: str
    truth: str
    prediction: str
    scores: Mapping[str, float]


class _Damaged(ValueError):
    """Something wrong in a predictions.csv."""


def check_finite(rows: Sequence[Prediction]) -> None:
    """Raises UserError when a score is NaN or infinite, which means that training diverged."""
    for row in rows:
        if not all(math.isfinite(score) for score in row.scores.values()):
            raise UserError(
                f"the scores of utterance '{row.id}' (fold {row.fold}, seed {row.seed}) are not "
                "finite: training diverged; lower the learning rate"
            )


def write_predictions(path: Path, rows: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Write the file in place (the caller gives it its name by a rename).

    Raises:
        ValueError: a row whose scores are not of these classes, in this order.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*COLUMNS, *(f"score_{name}" for name in classes)])
        for row in rows:
            if list(row.scores) != list(classes):
                raise ValueError(f"the scores of '{row.id}' are not those of {list(classes)}")
            # repr of a float gives every digit, so the highest score stays the highest
            scores = [repr(float(score)) for score in row.scores.values()]
            out.writerow(
                [row.id, row.fold, row.seed, row.speaker, row.truth, row.prediction, *scores]
            )


def read_predictions(path: Path, classes: Sequence[str] | None = None) -> list[Prediction]:
    """Read predictions.csv as untrusted data.

    Args:
        classes: the protocol's classes, in order; None takes them from the header.

    Raises:
        UserError: naming the file and the line: missing, not UTF-8, a wrong header, a row of
            another length, an unknown class, a score outside 0 ... 1, scores that do not add up
            to 1, a prediction that is not the class of the highest score.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                return _rows(reader, classes)
            except (ValueError, csv.Error) as error:
                if isinstance(error, UnicodeDecodeError):
                    raise
                line = max(reader.line_num, 1)
                raise UserError(f"{path}, line {line}: {error}; restore it or run again") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; restore it or run again") from error


def _rows(reader: Iterator[list[str]], classes: Sequence[str] | None) -> list[Prediction]:
    """All rows below a good header; raises ValueError about the line last read."""
    header: list[str] = next(reader, [])
    found = header[len(COLUMNS) :]
    names = [name.removeprefix("score_") for name in found] if classes is None else list(classes)
    expected = [*COLUMNS, *(f"score_{name}" for name in names)]
    if header != expected or not names or len(set(names)) != len(names):
        wanted = ",".join(expected if names else [*COLUMNS, "score_<class>..."])
        raise _Damaged(f"the header must be {wanted}")
    return [_row(cells, names) for cells in reader]


def _row(cells: list[str], classes: Sequence[str]) -> Prediction:
    """One line; raises ValueError."""
    if len(cells) != len(COLUMNS) + len(classes):
        raise _Damaged(f"{len(cells)} cells where {len(COLUMNS) + len(classes)} are expected")
    id_, fold, seed, speaker, truth, prediction = cells[: len(COLUMNS)]
    if not id_:
        raise _Damaged("there is no id")
    if not (seed.isdecimal() and seed.isascii() and len(seed) < 20):
        raise _Damaged(f"the seed {seed!r} is not a whole number")
    for column, name in (("truth", truth), ("prediction", prediction)):
        if name not in classes:
            raise _Damaged(f"the {column} {name!r} is not a class of the protocol")
    values = [float(cell) for cell in cells[len(COLUMNS) :]]
    if not all(0 <= value <= 1 for value in values):  # NaN fails, too
        raise _Damaged("a score lies outside 0 ... 1")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise _Damaged(f"the scores add up to {sum(values):.6g}, not 1")
    scores = dict(zip(classes, values, strict=True))
    if scores[prediction] < max(values) - TIE_TOLERANCE:
        raise _Damaged(f"the prediction {prediction!r} is not the class of the highest score")
    return Prediction(id_, fold, int(seed), speaker, truth, prediction, scores)
