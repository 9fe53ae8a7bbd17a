"""The finer measures of classes, computed from predictions: records do not have them.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from emopeft.downstream.measures.detection import (
    DETAILS,
    equal_error_rates,
    f_means,
    macro,
    top_right,
)
from emopeft.downstream.measures.weighted import confusions
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.scores import Scores, scores_of, tested
from emopeft.downstream.records.together import mean_of_folds
from emopeft.downstream.tasks.base import Task


def details(scores: Scores) -> dict[str, float]:
    """`DETAILS` of some rows together; NaN of no row whose class is known."""
    known = scores.of(scores.certain)
    if not len(known.truth):
        return {metric.name: math.nan for metric in DETAILS}
    once = np.ones((1, len(known.truth)))
    found = f_means(confusions(known.truth, known.said, len(known.classes))(once))
    found["eer"] = macro(equal_error_rates(known.truth, known.scores)(once))
    found["top2"] = top_right(known.truth, known.scores).mean(keepdims=True)
    return {metric.name: float(found[metric.name][0]) for metric in DETAILS}


def details_over_folds(
    folds: Sequence[FoldResult], task: Task, test: str
) -> dict[str, dict[str, Any]]:
    """Of each of `DETAILS` its mean and deviation over finished folds, as a record's summary has
    it; empty where no fold holds the test.

    Args:
        test: its name, or "dev".

    Raises:
        UserError: the task has no classes with scores.
    """
    entries = [
        {"fold": fold.facts.fold, "seed": fold.facts.seed,
         "metrics": {test: details(scores_of(rows, task))}}
        for fold in folds if fold.finished
        for rows in [tested(fold, test)] if rows
    ]  # fmt: skip
    if not entries:
        return {}
    return {metric.name: mean_of_folds(entries, test, metric.name) for metric in DETAILS}
