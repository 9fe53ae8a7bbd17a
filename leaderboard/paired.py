"""How sure a difference of two methods is: a paired bootstrap over a test corpus' speakers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap

from emopeft.downstream.records.checks import FoldResult

DRAWS = 9999
SHARE = 0.95
ELEMENTS = 1 << 24  # of the largest array, which bounds how many draws are computed at once


def uar_interval(
    one: Sequence[FoldResult],
    other: Sequence[FoldResult],
    test: str,
    classes: Sequence[str],
) -> tuple[float, float] | None:
    """The 95 % percentile interval of the mean UAR over folds of ``one`` minus that of ``other``.

    Speakers are drawn with replacement, the same for both (Bisani & Ney 2004, ICASSP). A fold
    counts by how many of its test speakers were drawn, of those that it has; so the speakers as
    they are give the mean over folds. Seeds of a fold are averaged.

    Args:
        one, other: finished folds of one plan.

    Returns:
        low and high; None with an unknown speaker, or fewer than two speakers.
    """
    rows = [r for fold in (*one, *other) for r in fold.tests if r.test == test]
    speakers = sorted({row.speaker for row in rows})
    if len(speakers) < 2 or "" in speakers:
        return None
    counts = [_counts(folds, test, classes, speakers) for folds in (one, other)]

    def difference(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        times = (np.atleast_2d(drawn)[..., None] == np.arange(len(speakers))).sum(-2)
        values = mean_uar(counts[0], times) - mean_uar(counts[1], times)
        return values if drawn.ndim > 1 else values[0]

    largest = max(len(speakers) ** 2, counts[0][0].size * len(counts[0]) // len(speakers))
    interval = bootstrap(
        (np.arange(len(speakers)),), difference, vectorized=True, axis=-1, n_resamples=DRAWS,
        batch=max(1, ELEMENTS // largest), confidence_level=SHARE, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def _counts(
    folds: Sequence[FoldResult], test: str, classes: Sequence[str], speakers: Sequence[str]
) -> list[np.ndarray]:
    """Per fold the confusions (seeds, speakers, classes of the truth, classes predicted)."""
    place = {name: i for i, name in enumerate(classes)}
    number = {name: i for i, name in enumerate(speakers)}
    by_fold: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        table = np.zeros((len(speakers), len(classes), len(classes)))
        for row in fold.tests:
            if row.test == test:
                truth, said = place[row.values["truth"]], place[row.values["prediction"]]
                table[number[row.speaker], truth, said] += 1
        by_fold.setdefault(fold.facts.fold, []).append(table)
    return [np.stack(tables) for _, tables in sorted(by_fold.items())]


def mean_uar(counts: Sequence[np.ndarray], times: np.ndarray) -> np.ndarray:
    """The mean UAR over folds (draws,) where each speaker counts so many times.

    Args:
        counts: per fold (seeds, speakers, classes, classes). times: (draws, speakers).
    """
    total = np.zeros(len(times))
    weights = np.zeros(len(times))
    for tables in counts:
        own = tables[0].any((-1, -2))  # who is tested in this fold
        weight = times[:, own].sum(-1) / own.sum()
        confusion = np.einsum("bs,rsij->brij", times[:, own], tables[:, own])
        of_class = confusion.sum(-1)
        present = of_class > 0
        right = np.diagonal(confusion, axis1=-2, axis2=-1)
        recall = np.where(present, right / np.where(present, of_class, 1), 0.0)
        uar = (recall.sum(-1) / np.maximum(present.sum(-1), 1)).mean(-1)
        total += weight * uar
        weights += weight
    return total / weights
