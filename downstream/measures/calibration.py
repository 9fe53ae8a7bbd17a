"""How far probabilities say how often they are right: ECE, Brier score, NLL, a temperature, and
what is right of those that are surest. Imports no torch.

Clips of one confidence are one group wherever clips are ordered, so that no number depends on the
order of rows. Weights are how often each row counts, whole numbers (``resampling.py``).
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_softmax, xlogy

LEAST = math.log(5e-324)  # of the smallest float64 above 0: what stands for log 0, -744.44
COLDEST, HOTTEST = 0.01, 100.0  # temperatures that are looked at
BINS = 15
SIMULATED = 1000


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """The logarithms of scores (rows, classes), each row made to add up to 1.

    A softmax writes 0 for what no float64 can hold. Its logarithm is then taken as that of the
    smallest number that one can, so that a loss of such a row is finite, and rather too small.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(scores / scores.sum(-1, keepdims=True))
    return np.maximum(logs, LEAST)


def lost(scores: np.ndarray, targets: np.ndarray) -> int:
    """How many rows have a score of exactly 0 for a class that they are of."""
    return int(((scores == 0) & (targets > 0)).any(-1).sum())


def tempered(logs: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """log softmax(log p / T) (rows, classes): Guo et al. 2017 (arXiv 1706.04599), since the outputs
    of a network and the logarithms of their softmax differ by a constant per row.

    Args:
        temperature: of all rows, or of each (rows, 1); 1 leaves every digit as it is.
    """
    return np.where(np.equal(temperature, 1), logs, log_softmax(logs / temperature, axis=-1))


def log_losses(logs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-sum_c y_c log p_c of each row, in nats (rows,): NLL is their mean.

    Args:
        logs: log p (rows, classes). targets: distributions y, of a known class 0 and 1.
    """
    return -(targets * logs).sum(-1)


def brier_scores(logs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """sum_c (p_c - y_c)^2 of each row (rows,), from 0 to 2: Brier's score (1950, Monthly
    Weather Review 78(1)) is their mean. Arguments as `log_losses`."""
    return ((np.exp(logs) - targets) ** 2).sum(-1)


def entropies(targets: np.ndarray) -> np.ndarray:
    """-sum_c y_c log y_c of each row (rows,): below it no log loss comes; 0 of a known class."""
    return -xlogy(targets, targets).sum(-1)


# ---- temperature ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Temperature:
    """``value`` divides the logarithms; ``note``: why it is not simply the best one, or ""."""

    value: float
    note: str = ""


def fit_temperature(logs: np.ndarray, targets: np.ndarray) -> Temperature:
    """The T with the least NLL of softmax(log p / T) (Guo et al. 2017, section 4.2).

    NLL is convex in 1/T, so its slope has one root, which is bracketed. Where every row gives its
    own class the highest score, NLL falls for ever as T goes to 0; where all scores of each row are
    equal, T changes nothing: both leave T = 1, with a note. A best T beyond 0.01 or 100 is that
    bound, with a note.

    Args:
        logs: log p (rows, classes). targets: as `log_losses`.

    Raises:
        ValueError: no row.
    """
    if not len(logs):
        raise ValueError("no row to fit a temperature on")
    below = logs - logs.max(-1, keepdims=True)
    own = (targets * below).sum(-1)
    if not below.any():
        return Temperature(1.0, "scores do not tell classes apart: not fitted")
    if not own.any():
        return Temperature(1.0, "all right: not fitted")

    def slope(inverse: float) -> float:  # of the mean loss, by 1/T
        p = np.exp(log_softmax(inverse * below, axis=-1))
        return float(((p * below).sum(-1) - own).mean())

    if slope(1 / HOTTEST) >= 0:
        return Temperature(HOTTEST, "at the upper bound: no better than equal scores")
    if slope(1 / COLDEST) <= 0:
        return Temperature(COLDEST, "at the lower bound")
    return Temperature(1 / float(brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-12)))


# ---- what depends on the order of confidences -------------------------------------------------


class Ranked:
    """Rows in groups of equal confidence, from the least to the most.

    Args:
        confidence: of what is said (rows,). right: whether it is true (rows,).

    Attributes:
        values: the confidence of each group (groups,).
    """

    def __init__(self, confidence: ArrayLike, right: ArrayLike):
        self.values, group = np.unique(np.asarray(confidence, np.float64), return_inverse=True)
        self._order = np.argsort(group, kind="stable")
        self._starts = np.searchsorted(group[self._order], np.arange(len(self.values)))
        self._right = np.asarray(right, np.float64)[self._order]

    def counts(self, weights: np.ndarray, columns: np.ndarray | None = None) -> Counts:
        """The groups with each row counted so often.

        Args:
            weights: whole numbers (draws, columns). columns: which of them is that of each row
                (rows,); None: each row has its own.
        """
        order = self._order if columns is None else columns[self._order]
        rows = np.take(np.asarray(weights, np.float64), order, axis=1)
        right = rows * self._right
        if len(self.values) < len(order):
            rows, right = (np.add.reduceat(of, self._starts, axis=1) for of in (rows, right))
        return Counts(self.values, rows, right)

    def once(self) -> Counts:
        """The groups with each row counted once: of one draw."""
        return self.counts(np.ones((1, len(self._order))))


class Counts:
    """How many rows each group of equal confidence has, and how many of these are right.

    Args:
        values: confidences, rising (groups,). rows, right: whole numbers (draws, groups).
    """

    def __init__(self, values: np.ndarray, rows: np.ndarray, right: np.ndarray):
        self.values, self.rows, self.right = values, rows, right
        self.rows_until, self.right_until = np.cumsum(rows, -1), np.cumsum(right, -1)
        self.all = self.rows_until[:, -1]

    def accuracy(self) -> np.ndarray:
        """The share that is right (draws,); NaN without a row, as all that follow."""
        with np.errstate(invalid="ignore"):
            return self.right_until[:, -1] / self.all

    def confidence(self) -> np.ndarray:
        """The mean confidence (draws,)."""
        with np.errstate(invalid="ignore"):
            return self.rows @ self.values / self.all

    def edges(self, bins: int) -> np.ndarray:
        """The group that each bin begins with, and the end (draws, bins + 1); each bin has as many
        rows as can be.

        A group is never split: it lies where its middle row does, in bin
        floor(bins * (rows before it + half its own) / rows).
        """
        twice = 2 * self.rows_until - self.rows  # twice the place of its middle: a whole number
        inner = np.ceil(2 * self.all[:, None] * np.arange(1, bins) / bins)
        ends = np.broadcast_to([[0, self.rows.shape[1]]], (len(self.rows), 2))
        return np.concatenate([ends[:, :1], _found(twice, inner), ends[:, 1:]], -1)

    def calibration_error(self, bins: int = BINS) -> np.ndarray:
        """ECE with bins of equal mass (draws,): sum over bins of rows/all |right - confidence|.

        Bins of equal mass: Nguyen & O'Connor 2015 (arXiv 1508.05154), Nixon et al. 2019 (arXiv
        1904.01685); the sum of distances: Guo et al. 2017.
        """
        gaps = np.cumsum(self.right - self.rows * self.values, -1)
        ends = _until(gaps, self.edges(bins))
        with np.errstate(invalid="ignore"):
            return np.abs(np.diff(ends, axis=-1)).sum(-1) / self.all

    def right_of_surest(self, share: float) -> np.ndarray:
        """The share that is right of the surest ``share`` of the rows (draws,); of a group that is
        only partly among them its own share."""
        left_out = (1 - share) * self.all
        group = np.minimum(_found(self.rows_until, left_out[:, None]), self.rows.shape[1] - 1)
        before, wrong_side = _until(self.rows_until, group), _until(self.right_until, group)
        own, hits = (np.take_along_axis(of, group, 1) for of in (self.rows, self.right))
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.where(own > 0, (left_out[:, None] - before) / own, 0.0)
            kept = self.right_until[:, -1:] - wrong_side - part * hits
            return kept[:, 0] / (share * self.all)

    def risk_coverage_area(self) -> np.ndarray:
        """AURC (draws,): the mean over k of the share wrong among the k surest rows.

        Geifman, Uziel & El-Yaniv 2019 (arXiv 1805.08206). A wrong row at place i is among the k
        surest for each k from i on, so it adds the sum of 1/k over k = i ... all. Within a group
        every place is as likely, and the mean over them counts.
        """
        some = np.flatnonzero((self.rows > self.right).any(0))  # nothing else adds to it
        rows = self.rows[:, some]
        surer = (self.all[:, None] - self.rows_until[:, some]).astype(np.intp)
        harmonic = np.cumsum(np.concatenate([[0.0], 1 / np.arange(1, self.all.max() + 1)]))
        sums = np.cumsum(np.concatenate([[0.0], harmonic]))  # of the first ones of these
        places = sums[surer + rows.astype(np.intp)] - sums[surer]
        last = harmonic[self.all.astype(np.intp)]
        with np.errstate(invalid="ignore", divide="ignore"):
            adds = last[:, None] - np.where(rows > 0, places / rows, 0.0)
            return ((rows - self.right[:, some]) * adds).sum(-1) / self.all


def _found(rising: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The first place of each row (draws, groups), rising, that reaches what is wanted of it
    (draws, some): (draws, some), ``groups`` where none does."""
    apart = np.arange(len(rising))[:, None] * (max(rising.max(), wanted.max(initial=0)) + 1)
    places = np.searchsorted((rising + apart).ravel(), (wanted + apart).ravel())
    return places.reshape(wanted.shape) - np.arange(len(rising))[:, None] * rising.shape[1]


def _until(sums: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Running sums (draws, groups) of all before each place (draws, some)."""
    return np.where(places > 0, np.take_along_axis(sums, np.maximum(places - 1, 0), 1), 0.0)


def calibrated_error(confidence: ArrayLike, bins: int = BINS) -> float:
    """The mean ECE of as many rows with these confidences that are right exactly so often, drawn
    1000 times: what is left of it when nothing is wrong (Bröcker & Smith 2007)."""
    one = Ranked(confidence, np.zeros_like(confidence, np.float64)).once()
    rng, chances = np.random.default_rng(0), np.clip(one.values, 0, 1)
    right = rng.binomial(one.rows.astype(int), chances, (SIMULATED, len(chances)))
    many = Counts(one.values, np.broadcast_to(one.rows, right.shape), right)
    return float(many.calibration_error(bins).mean())


@dataclasses.dataclass(frozen=True)
class Bin:
    """Rows of one bin: how many, their mean confidence, and the share that is right."""

    rows: int
    confidence: float
    right: float


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """The bins of ECE that hold a row, from the least confidence to the most."""
    one = Ranked(confidence, right).once()
    found = []
    for first, end in itertools.pairwise(one.edges(bins)[0]):
        rows = one.rows[0, first:end]
        if rows.size:
            sure, hits = rows @ one.values[first:end], one.right[0, first:end].sum()
            found.append(Bin(int(rows.sum()), float(sure / rows.sum()), float(hits / rows.sum())))
    return found
