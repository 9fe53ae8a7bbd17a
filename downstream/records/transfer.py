"""Gain and forgetting: what a transfer's second stage does to both domains.

    gain        how much better the target's test is after the target's stage than between the two
    forgetting  how much worse the source's test is

Both in the metric's own units, positive for better and for worse whatever its direction; null where
nothing was measured between the stages, and 0 where the source's stage is the end. Imports no
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emopeft.downstream.data.transfer import BEFORE, BETWEEN, SOURCE, TARGET
from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.records.together import summarise
from emopeft.downstream.tasks.base import Task

AFTER = "after"
GAIN, FORGETTING = "gain", "forgetting"
Tests = Mapping[str, Mapping[str, Any]]  # test to measures


def moments_of(entry: Mapping[str, Any]) -> dict[str, Tests]:
    """Per moment at which it is known, per test, the measures of a finished fold.

    Args:
        entry: facts of a fold, or its entry in a record. Where the source's stage was the last, its
            end is both between and after.
    """
    moments = dict(entry["transfer"]["moments"])
    if entry["transfer"]["strategy"] == SOURCE:
        moments[BETWEEN] = entry["metrics"]
    order = (BEFORE, BETWEEN)
    return {name: moments[name] for name in order if name in moments} | {AFTER: entry["metrics"]}


def differences_of(entry: Mapping[str, Any], task: Task) -> dict[str, dict[str, float | None]]:
    """Gain and forgetting of a fold, per metric."""
    moments = moments_of(entry)
    found: dict[str, dict[str, float | None]] = {}
    for name, test in ((GAIN, TARGET), (FORGETTING, SOURCE)):
        found[name] = {}
        for metric in task.metrics:
            between, after = (moments.get(m, {}).get(test, {}) for m in (BETWEEN, AFTER))
            better = difference(metric, after.get(metric.name), between.get(metric.name))
            found[name][metric.name] = -better if better and name == FORGETTING else better
    return found


def difference(metric: Metric, one: float | None, other: float | None) -> float | None:
    """By how much ``one`` is better than ``other``; None where either is none."""
    if one is None or other is None or math.isnan(one) or math.isnan(other):
        return None
    return one - other if metric.better == "higher" else other - one


def transfer_summary(entries: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """Mean and deviation over folds of both tests at each moment, and of gain and forgetting.

    Args:
        entries: of all folds of a record; failed ones are left out.
    """
    finished = [entry for entry in entries if entry["status"] == "finished"]
    per_fold = [moments_of(entry) for entry in finished]

    def over_folds(tests: Sequence[Tests], names: Sequence[str]) -> dict[str, Any]:
        folds = [
            {"fold": entry["fold"], "seed": entry["seed"], "metrics": of}
            for entry, of in zip(finished, tests, strict=True)
        ]
        return summarise(folds, task, names)

    known = list(per_fold[0]) if per_fold else []
    moments = {
        moment: over_folds([of[moment] for of in per_fold], (TARGET, SOURCE)) for moment in known
    }
    both = (GAIN, FORGETTING)
    differences = over_folds([differences_of(entry, task) for entry in finished], both)
    if BETWEEN not in known:
        differences = {}
    return {"moments": moments, **{name: differences.get(name, {}) for name in both}}
