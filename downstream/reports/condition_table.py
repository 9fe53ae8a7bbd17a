"""Every number of runs in conditions, as one table for other programs."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from emopeft.downstream.records.predictions import guarded
from emopeft.downstream.reports.condition_numbers import Number
from emopeft.downstream.reports.conditions import Conditions

NUMBERS = ("level", "drop", "gain", "more")
COLUMNS = (
    *("run", "encoder", "method", "compared_with", "test", "metric", "condition", "folds", "std"),
    *(name + end for name in NUMBERS for end in ("", "_low", "_high")),
)


def csv_text(found: Conditions) -> str:
    """A row for each run and condition; empty cells where there is no number, and nothing rounded.
    ``level`` is the mean over folds; the others are as `Cell` has them."""
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for place, (run, cells) in enumerate(zip(found.runs.runs, found.cells, strict=True)):
        base = found.runs.base.get(place)
        said = [
            run.name, run.data["upstream"]["name"], run.data["method"]["spec"],
            "" if base is None else found.runs.runs[base].name, found.runs.test, found.metric.name,
        ]  # fmt: skip
        for name, cell in cells.items():
            numbers = [_three(getattr(cell, number)) for number in NUMBERS]
            out.writerow(
                [*(guarded(str(x)) for x in (*said, name)), cell.summary["n"],
                 _written(cell.summary["std"]), *(x for three in numbers for x in three)]
            )  # fmt: skip
    return text.getvalue()


def _three(number: Number | None) -> list[str]:
    if number is None:
        return ["", "", ""]
    return [_written(x) for x in (number.value, *(number.interval or (None, None)))]


def _written(value: Any) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))
