"""What the tests of all folds give together: their mean, pooled, and speaker by speaker.

A mean over folds weighs every fold alike and, for CCC or F1, is another number than that of all
utterances at once; papers report either. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emopeft.downstream.measures.classes import mean_std
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


def summarise(
    folds: Sequence[Mapping[str, Any]], task: Task, tests: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean and standard deviation of each metric over folds, per test; empty without a fold.

    Args:
        folds: with "fold", "seed" and "metrics" (per test), null or NaN where a metric is none.

    Returns:
        per test and metric ``{"mean", "std", "n", "seed_std"}``. The seeds of one fold are
        averaged first; std is the sample one over those fold means, None for a single fold; n is
        the number of folds. Where every one of several seeds has the same folds, ``seed_std`` is
        the sample standard deviation of the per-seed means, else None.
    """
    if not folds:
        return {}
    names = [metric.name for metric in task.metrics]
    return {test: {name: mean_of_folds(folds, test, name) for name in names} for test in tests}


def mean_of_folds(folds: Sequence[Mapping[str, Any]], test: str, name: str) -> dict[str, Any]:
    """One metric of a test over folds, as `summarise` gives it; one fold at least."""
    by_fold: dict[str, list[float]] = {}
    by_seed: dict[int, dict[str, float]] = {}
    for entry in folds:
        value = entry["metrics"][test][name]
        value = math.nan if value is None else float(value)
        by_fold.setdefault(entry["fold"], []).append(value)
        by_seed.setdefault(entry["seed"], {})[entry["fold"]] = value
    statistic = mean_std([mean_std(values)["mean"] for values in by_fold.values()])
    statistic["seed_std"] = None
    if len(by_seed) > 1 and all(set(of) == set(by_fold) for of in by_seed.values()):
        means = [mean_std(list(of.values()))["mean"] for of in by_seed.values()]
        statistic["seed_std"] = mean_std(means)["std"]
    return statistic
