"""How good predictions are in each of several groups, how far the groups are apart, and whether
they are further apart than in another run; all with intervals over speakers. Imports no torch.

Rows of all folds and seeds are taken together. Confusions are added up, which makes a recall the
mean over seeds of that of the clips of all folds; a CCC is that of the clips of all folds, the mean
over seeds. Speakers are drawn within their group, so that no draw empties one, and what is compared
is measured on the same draws.

What cannot be negative (a gap, a parity) is larger in draws than it is: it has no interval of its
own. It is shown beside what it is where speakers are dealt to the groups at random (`by_chance`),
and a gap beside the difference of the two groups that make it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from emopeft.downstream.measures import fairness
from emopeft.downstream.measures.fairness import RATIOS
from emopeft.downstream.measures.resampling import Interval, speaker_intervals
from emopeft.downstream.measures.weighted import accuracy, recalls, uar

UAR, WA, RECALL, CCC = "uar", "accuracy", "recall", "ccc"
GAP, DIFFERENCE = "gap", "best minus worst"
SHUFFLES = 1999
ROUNDING = 1e-12  # values that differ by less are equal


class Quantity(NamedTuple):
    """What is measured: ``measure`` of a group (None: between groups), of a class or dimension."""

    measure: str
    group: int | None = None
    item: str = ""


class Number(NamedTuple):
    """A value with the interval that it may lie in; None where there is none."""

    value: float
    interval: Interval | None


class Chance(NamedTuple):
    """What a value is where speakers are dealt to groups at random: its mean, and how often it is
    as far from equal as the value that was measured (p of a permutation test)."""

    mean: float
    p: float


Values = dict[Quantity, np.ndarray]  # of each draw, (draws,)
Numbers = dict[Quantity, Number]


@dataclasses.dataclass(frozen=True)
class Tallies:
    """What all measures of a task's part are functions of, added up per speaker and group.

    Attributes:
        sums: (speakers, groups, ...). values: of sums over speakers, (draws, groups, ...).
        pairs: by measure the places of the best and the worst group.
    """

    sums: np.ndarray
    values: Callable[[np.ndarray], Values]
    pairs: Mapping[str, tuple[int, int]]

    def drawn(self, times: np.ndarray) -> Values:
        """The values of draws, by how often each speaker counts, (draws, speakers)."""
        flat = times @ self.sums.reshape(len(self.sums), -1)
        return self.values(flat.reshape(len(times), *self.sums.shape[1:]))


# ---- parts of tasks ---------------------------------------------------------------------------


def class_tallies(
    speakers: np.ndarray,
    groups: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: Sequence[str],
    shape: tuple[int, int],
) -> Tallies:
    """Of rows, each with the places of its speaker, group and classes.

    Args:
        shape: how many speakers and groups there are.
    """
    size = (*shape, len(classes), len(classes))
    cells = np.ravel_multi_index((speakers, groups, truth, prediction), size)
    counts = np.bincount(cells, minlength=math.prod(size)).reshape(size).astype(np.float64)
    held = counts.sum((0, -1)) > 0  # groups x classes
    common = held[held.any(-1)].all(0)

    def both(confusion: np.ndarray) -> dict[str, np.ndarray]:
        """Compared on the classes that all hold: else one is asked what another is not."""
        return {UAR: _mean(recalls(confusion)[..., common]), WA: accuracy(confusion)}

    pairs = {name: farthest(of[0]) for name, of in both(counts.sum(0)[None]).items()}

    def values(confusion: np.ndarray) -> Values:
        found: Values = {}
        recall = recalls(confusion)
        each = {UAR: uar(confusion), WA: accuracy(confusion)}
        for group in range(shape[1]):
            found |= {Quantity(name, group): of[:, group] for name, of in each.items()}
            for i, name in enumerate(classes):
                found[Quantity(RECALL, group, name)] = recall[:, group, i]
        for name, of in both(confusion).items():
            found |= between(name, of, pairs[name])
        for name, measure in fairness.OVERALL.items():
            found[Quantity(name)] = measure(confusion)
        for name, measure in fairness.PER_CLASS.items():
            of_classes = measure(confusion)
            found[Quantity(name)] = fairness.worst(name, of_classes)
            found |= {Quantity(name, None, c): of_classes[:, i] for i, c in enumerate(classes)}
        return found

    return Tallies(counts, values, pairs)


def lacking(tallies: Tallies) -> np.ndarray:
    """Which classes each group has no row of, (groups, classes), of `class_tallies`."""
    return tallies.sums.sum((0, -1)) == 0


def rating_tallies(
    speakers: np.ndarray,
    groups: np.ndarray,
    seeds: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    dimension: str,
    shape: tuple[int, int],
) -> Tallies:
    """Of rows with ratings; those that are not rated (NaN) do not count. Arguments as above;
    seeds: any numbers."""
    rated = ~np.isnan(truth)
    names, seed = np.unique(seeds[rated], return_inverse=True)
    y, x = truth[rated], prediction[rated]
    middle = y.mean() if len(y) else 0.0  # one shift for both changes nothing, and keeps digits
    y, x = y - middle, x - middle
    size = (*shape, len(names), 6)
    sums = np.zeros(size)
    parts = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
    np.add.at(sums, (speakers[rated], groups[rated], seed), parts)

    def cccs(sums: np.ndarray) -> np.ndarray:
        return ccc_of_sums(sums).mean(-1) if len(names) else np.full(sums.shape[:2], np.nan)

    pair = farthest(cccs(sums.sum(0)[None])[0])

    def values(sums: np.ndarray) -> Values:
        each = cccs(sums)
        found = {Quantity(CCC, g, dimension): each[:, g] for g in range(shape[1])}
        return found | between(CCC, each, pair, dimension)

    return Tallies(sums, values, {CCC: pair})


def ccc_of_sums(sums: np.ndarray) -> np.ndarray:
    """Lin's CCC (``dimensions.py``) of n, x, y, x², y² and xy added up, (..., 6) to (...)."""
    n = np.where(sums[..., 0] > 0, sums[..., 0], np.nan)
    mean_x, mean_y, xx, yy, xy = (sums[..., i] / n for i in range(1, 6))
    spread = xx - mean_x**2 + yy - mean_y**2 + (mean_x - mean_y) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * (xy - mean_x * mean_y) / spread


def farthest(values: np.ndarray) -> tuple[int, int]:
    """The places of the best and the worst of some groups (groups,), the first and the last of
    those alike; one place twice where no two have a value."""
    if np.isnan(values).all():
        return 0, 0
    return int(np.nanargmax(values)), len(values) - 1 - int(np.nanargmin(values[::-1]))


def between(name: str, values: np.ndarray, pair: tuple[int, int], item: str = "") -> Values:
    """How far groups (draws, groups) are apart: the best minus the worst of each draw, and the
    difference of two groups that were the best and the worst."""
    best, worst = pair
    apart = values[:, best] - values[:, worst] if best != worst else np.full(len(values), np.nan)
    return {
        Quantity(f"{name} {GAP}", None, item): fairness.gap(values[..., None])[..., 0],
        Quantity(f"{name} {DIFFERENCE}", None, item): apart,
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, of those that are not NaN; NaN of none."""
    known = ~np.isnan(values)
    many = known.sum(-1)
    return np.where(known, values, 0.0).sum(-1) / np.where(many > 0, many, np.nan)


# ---- numbers ----------------------------------------------------------------------------------


def strata(speakers: np.ndarray, groups: np.ndarray, count: int) -> list[list[int]]:
    """Speakers who are drawn among themselves: those with clips in the same groups. Where one
    would be drawn alone, all are drawn together.

    Args:
        speakers, groups: of rows; count: of speakers, each of whom has a row.
    """
    own: list[set[int]] = [set() for _ in range(count)]
    for speaker, group in set(zip(speakers.tolist(), groups.tolist(), strict=True)):
        own[speaker].add(group)
    kinds: dict[frozenset[int], list[int]] = {}
    for speaker, of in enumerate(own):
        kinds.setdefault(frozenset(of), []).append(speaker)
    parts = list(kinds.values())
    return parts if min(map(len, parts), default=0) > 1 else [list(range(count))]


def numbers(
    own: Sequence[Tallies], base: Sequence[Tallies] | None, parts: Sequence[Sequence[int]]
) -> tuple[Numbers, Numbers]:
    """All values of a run with their intervals, and how much larger they are than those of
    another run (nothing without one).

    Args:
        own, base: of each part of the task, of the same speakers and groups.
        parts: see `strata`.
    """
    speakers = len(own[0].sums)
    names: list[tuple[bool, Quantity]] = []

    def values(times: np.ndarray) -> np.ndarray:
        times = times.astype(np.float64)
        mine = _joined([of.drawn(times) for of in own])
        theirs = _joined([of.drawn(times) for of in base or ()])
        names[:] = [*((False, q) for q in mine), *((True, q) for q in mine if q in theirs)]
        more = [of - theirs[q] for q, of in mine.items() if q in theirs]
        return np.stack([*mine.values(), *more])

    size = 8 * sum(of.sums[0].size for of in (*own, *(base or ())))
    size = max(size, 4 * len(values(np.ones((1, speakers)))))
    intervals = speaker_intervals(values, speakers, size, parts)
    once = values(np.ones((1, speakers)))[:, 0].tolist()
    found: tuple[Numbers, Numbers] = ({}, {})
    for i, (more, quantity) in enumerate(names):
        interval = None if intervals is None else intervals[i]
        if interval is not None and any(map(math.isnan, interval)):
            interval = None
        found[more][quantity] = Number(once[i], interval)
    return found


def _joined(parts: Sequence[Mapping[Quantity, np.ndarray]]) -> Values:
    return {quantity: of for part in parts for quantity, of in part.items()}


def by_chance(tallies: Tallies, found: Numbers) -> dict[Quantity, Chance]:
    """Of what is measured between groups, what chance alone gives: each speaker with all clips in
    a group dealt at random, as many speakers in each as there are. Nothing where speakers have
    clips in several groups.

    Args:
        found: what was measured of these tallies.
    """
    speakers, groups = tallies.sums.shape[:2]
    inside = tallies.sums.reshape(speakers, groups, -1).any(-1)
    if (inside.sum(-1) > 1).any():
        return {}
    rng = np.random.default_rng(0)
    dealt = rng.permuted(np.tile(inside.argmax(-1), (SHUFFLES, 1)), axis=1)
    totals = tallies.sums.sum(1).reshape(speakers, -1)
    sums = np.stack([(dealt == group) @ totals for group in range(groups)], 1)
    values = tallies.values(sums.reshape(SHUFFLES, *tallies.sums.shape[1:]))
    chances = {}
    for quantity, number in found.items():
        if quantity.group is None and not quantity.measure.endswith(DIFFERENCE):
            known = values[quantity][~np.isnan(values[quantity])]
            far = known - number.value if quantity.measure in RATIOS else number.value - known
            if len(known) and not math.isnan(number.value):
                p = (1 + int((far <= ROUNDING).sum())) / (1 + len(known))
                chances[quantity] = Chance(float(known.mean()), p)
    return chances


def verdict(more: Number, ratio: bool = False) -> str:
    """What a change of a gap says; of a ratio, more is narrower."""
    if more.interval is None:
        return "cannot be told"
    low, high = (-x for x in more.interval[::-1]) if ratio else more.interval
    return "widens" if low > 0 else "narrows" if high < 0 else "cannot be told"
