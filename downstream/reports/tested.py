"""The table of an evaluation in conditions, as it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from emopeft.downstream.records.checks import FoldResult, by_test
from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.records.together import summarise
from emopeft.downstream.reports.numbers import statistic
from emopeft.downstream.views.base import CLEAN
from emopeft.text import plain
from emopeft.units import duration

if TYPE_CHECKING:
    from emopeft.downstream.runs.conditions import Tested


def tested_table(found: Sequence[Tested], notes: Sequence[str]) -> str:
    """Each condition's mean over the folds that were tested, beside the clean tests' own.

    Args:
        found: of `runs.conditions.test_conditions`, one at least. notes: what was left out.
    """
    task = found[0].fold.task
    tests = found[0].fold.facts.plan.tests
    lines = []
    for test in tests:
        rows = []
        columns: list[tuple[str, list[tuple[FoldResult, Sequence[Prediction]]]]] = [
            (CLEAN, [(one.fold, one.fold.tests) for one in found])
        ]
        columns += [
            (plain(first.facts.view), [(one.fold, one.conditions[i].rows) for one in found])
            for i, first in enumerate(found[0].conditions)
        ]
        for name, of in columns:
            means = summary_of(of, test)
            rows.append([name, *(statistic(metric, means[metric.name]) for metric in task.shown)])
        headers = ["condition", *(metric.title for metric in task.shown)]
        models = f"{len(found)} checkpoint{'s' if len(found) > 1 else ''}"
        lines.append(f"test {plain(test)}, {models}, mean ± standard deviation over folds")
        lines.append(tabulate(rows, headers, tablefmt="simple", disable_numparse=True))
    computed = sum(one.computed for one in found)
    asked = sum(len(one.conditions) for one in found)
    seconds = sum(one.seconds for one in found)
    each = f", {duration(seconds / computed)} each" if computed else ""
    lines.append(
        f"{computed} of {asked} tests were not there yet and were computed in "
        f"{duration(seconds)}{each}; predictions: conditions.csv in each fold's folder"
    )
    return "\n".join([*lines, *(plain(note, 500) for note in notes)])


def summary_of(
    folds: Sequence[tuple[FoldResult, Sequence[Prediction]]], test: str
) -> Mapping[str, Any]:
    """Each metric's mean over folds of a test, as records have it, of these rows."""
    entries = [
        {
            "fold": fold.facts.fold,
            "seed": fold.facts.seed,
            "metrics": {test: fold.task.measure(table_of(by_test(rows)[test], fold.task))},
        }
        for fold, rows in folds
    ]
    return summarise(entries, folds[0][0].task, [test])[test]
