"""How sure a number is: a bootstrap over speakers, of whatever can be measured with weights.

Clips of one speaker are alike, so speakers are drawn, not clips (Bisani & Ney 2004, ICASSP). What
is compared is measured on the same draws. Imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import bootstrap

DRAWS = 9999
SHARE = 0.95
ELEMENTS = 1 << 24  # of the largest array, which bounds how many draws are computed at once

# How often each speaker was drawn, (draws, speakers), to a value of each draw, (draws,).
Statistic = Callable[[np.ndarray], np.ndarray]
# How often each row counts, (draws, rows), to a value of each draw, (draws,).
Measure = Callable[[np.ndarray], np.ndarray]
Interval = tuple[float, float]


def speaker_interval(
    statistic: Statistic, speakers: int, size: int, groups: Sequence[Sequence[int]] = ()
) -> Interval | None:
    """The 95 % percentile interval of a statistic, speakers drawn with replacement.

    The same draws each time, of as many speakers in as many groups.

    Args:
        size: numbers that the statistic holds at once for one draw, about.
        groups: places of speakers who are drawn among themselves, so that none of these groups is
            ever empty; each speaker in one of them. None given: all are one group.

    Returns:
        low and high; None where a group, or all, has fewer than two speakers.
    """
    found = speaker_intervals(lambda times: statistic(times)[None], speakers, size, groups)
    return None if found is None else found[0]


def speaker_intervals(
    statistics: Callable[[np.ndarray], np.ndarray],
    speakers: int,
    size: int,
    groups: Sequence[Sequence[int]] = (),
) -> list[Interval] | None:
    """`speaker_interval` of many values at once, on the same draws.

    Args:
        statistics: how often each speaker was drawn, (draws, speakers), to the values of each
            draw, (values, draws). A value that is NaN in a draw has NaN for an interval.
    """
    parts = [np.asarray(group) for group in groups] or [np.arange(speakers)]
    if min(map(len, parts)) < 2:
        return None

    def values(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        both = np.concatenate([np.atleast_2d(part) for part in drawn], -1)
        places = both + speakers * np.arange(len(both))[:, None]
        times = np.bincount(places.ravel(), minlength=len(both) * speakers)
        found = statistics(times.reshape(-1, speakers))
        return found if drawn[0].ndim > 1 else found[:, 0]

    found = bootstrap(
        parts, values, vectorized=True, axis=-1, n_resamples=DRAWS,
        batch=max(1, ELEMENTS // max(speakers, size)), confidence_level=SHARE,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return list(zip(found.low.tolist(), found.high.tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class Sample:
    """Rows of predictions: whose each is, and where it was tested, (rows,) each.

    Attributes:
        speakers: places in a list of speakers that all that is compared shares.
        folds, seeds: of the run.
    """

    speakers: np.ndarray
    folds: np.ndarray
    seeds: np.ndarray

    @classmethod
    def of(
        cls,
        speakers: Sequence[str],
        folds: Sequence[str],
        seeds: Sequence[int],
        names: Sequence[str],
    ) -> Sample:
        """Of rows, the speakers as places in ``names``."""
        place = {name: i for i, name in enumerate(names)}
        who = np.array([place[name] for name in speakers], dtype=np.intp)
        return cls(who, np.array(list(folds), dtype=object), np.array(seeds, dtype=np.intp))

    def of_seed(self, seed: int) -> np.ndarray:
        """Which rows are of a seed, (rows,)."""
        return self.seeds == seed


def over_folds(sample: Sample, measure: Callable[[np.ndarray], Measure]) -> Statistic:
    """The mean over folds, where a fold counts by how many of its speakers were drawn, of those
    that it has: so the speakers as they are give the plain mean. Seeds of a fold are averaged.

    Args:
        measure: makes of some rows (their places) what is measured of them.
    """
    cells: dict[str, list[tuple[np.ndarray, Measure]]] = {}
    for fold in sorted(set(sample.folds)):
        in_fold = sample.folds == fold
        for seed in sorted(set(sample.seeds[in_fold].tolist())):
            rows = np.flatnonzero(in_fold & sample.of_seed(seed))
            cells.setdefault(fold, []).append((rows, measure(rows)))

    def statistic(times: np.ndarray) -> np.ndarray:
        total, weights = np.zeros(len(times)), np.zeros(len(times))
        for of_seeds in cells.values():
            own = np.unique(sample.speakers[of_seeds[0][0]])
            weight = times[:, own].sum(-1) / len(own)
            values = np.mean([of(times[:, sample.speakers[r]]) for r, of in of_seeds], 0)
            total += np.where(weight > 0, weight * values, 0.0)
            weights += weight
        with np.errstate(invalid="ignore"):
            return total / weights

    return statistic


def pooled(sample: Sample, measure: Callable[[np.ndarray], Measure]) -> Statistic:
    """On the rows of all folds at once, the mean over seeds; arguments as `over_folds`."""
    seeds = [np.flatnonzero(sample.of_seed(seed)) for seed in sorted(set(sample.seeds.tolist()))]
    parts = [(rows, measure(rows)) for rows in seeds]

    def statistic(times: np.ndarray) -> np.ndarray:
        return np.mean([of(times[:, sample.speakers[rows]]) for rows, of in parts], 0)

    return statistic
