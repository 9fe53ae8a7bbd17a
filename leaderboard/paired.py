"""How sure a difference of two methods is: a paired bootstrap over a test corpus' speakers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emopeft.downstream.measures.resampling import (
    Interval,
    Measure,
    Sample,
    Statistic,
    over_folds,
    speaker_interval,
)
from emopeft.downstream.measures.weighted import confusions, uar
from emopeft.downstream.records.checks import FoldResult


def uar_interval(
    one: Sequence[FoldResult],
    other: Sequence[FoldResult],
    test: str,
    classes: Sequence[str],
) -> Interval | None:
    """The 95 % interval of the mean UAR over folds of ``one`` minus that of ``other``, see
    `speaker_interval` and `over_folds`; None with an unknown speaker, or fewer than two speakers.

    Args:
        one, other: finished folds of one plan.
    """
    rows = [r for fold in (*one, *other) for r in fold.tests if r.test == test]
    speakers = sorted({row.speaker for row in rows})
    if "" in speakers:
        return None
    ours, theirs = (mean_uar(folds, test, classes, speakers) for folds in (one, other))
    return speaker_interval(
        lambda times: ours(times) - theirs(times), len(speakers), len(rows) * len(classes)
    )


def mean_uar(
    folds: Sequence[FoldResult], test: str, classes: Sequence[str], speakers: Sequence[str]
) -> Statistic:
    """The mean UAR over folds of a test, by how often each of these speakers counts."""
    place = {name: i for i, name in enumerate(classes)}
    rows = [row for fold in folds for row in fold.tests if row.test == test]
    truth = [place[row.values["truth"]] for row in rows]
    said = [place[row.values["prediction"]] for row in rows]
    sample = Sample.of(
        [row.speaker for row in rows], [row.fold for row in rows], [row.seed for row in rows],
        speakers,
    )  # fmt: skip

    def measure(some: np.ndarray) -> Measure:
        count = confusions([truth[i] for i in some], [said[i] for i in some], len(classes))
        return lambda weights: uar(count(weights))

    return over_folds(sample, measure)
