"""What the tests of all folds give when they are taken together: pooled, and speaker by speaker.

A mean over folds weighs every fold alike and, for CCC or F1, is another number than that of all
utterances at once; papers report either. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.tasks.base import Task


def pooled(folds: Sequence[FoldResult], task: Task, test: str) -> dict[str, float]:
    """Each metric on the utterances of all folds at once; the mean over seeds."""
    return _over_seeds(_rows(folds, test), task, [metric.name for metric in task.metrics])


def by_speaker(
    folds: Sequence[FoldResult], task: Task, test: str
) -> dict[str, dict[str, float | int]]:
    """Of each known speaker, sorted: ``utterances`` tested (of one seed), and the main metric as
    ``value``, the mean over seeds; NaN where it has none."""
    rows: dict[str, list[Prediction]] = {}
    for row in _rows(folds, test):
        if row.speaker:
            rows.setdefault(row.speaker, []).append(row)
    return {
        speaker: {
            "utterances": len({row.id for row in own}),
            "value": _over_seeds(own, task, [task.main])[task.main],
        }
        for speaker, own in sorted(rows.items())
    }


def _rows(folds: Sequence[FoldResult], test: str) -> Iterable[Prediction]:
    return (row for fold in folds if fold.finished for row in fold.tests if row.test == test)


def _over_seeds(rows: Iterable[Prediction], task: Task, names: list[str]) -> dict[str, float]:
    by_seed: dict[int, list[Prediction]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row)
    measures = [task.measure(table_of(of, task)) for _, of in sorted(by_seed.items())]
    return {name: math.fsum(m[name] for m in measures) / len(measures) for name in names}
