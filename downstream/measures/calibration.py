"""How far probabilities say how often they are right: ECE, Brier score, NLL, a temperature, and
what is right of those that are surest. Imports no torch.

Clips of one confidence are one group wherever clips are ordered, so that no number depends on the
order of rows. Weights are how often each row counts, whole numbers (``resampling.py``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
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


def tempered(logs: np.ndarray, temperature: float) -> np.ndarray:
    """log softmax(log p / T) (rows, classes): Guo et al. 2017 (arXiv 1706.04599), since the outputs
    of a network and the logarithms of their softmax differ by a constant per row."""
    return log_softmax(logs / temperature, axis=-1)


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

    Attributes:
        values: the confidence of each group (groups,).
    """

    def __init__(self, confidence: Sequence[float], right: Sequence[bool]):
        self.values, group = np.unique(np.asarray(confidence, np.float64), return_inverse=True)
        self._order = np.argsort(group, kind="stable")
        self._starts = np.searchsorted(group[self._order], np.arange(len(self.values)))
        self._right = np.asarray(right, np.float64)

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (draws, rows) to how many rows each group has and how many of these are right,
        (draws, groups) each."""
        ordered = np.asarray(weights, np.float64)[:, self._order]
        rows = np.add.reduceat(ordered, self._starts, axis=1)
        right = np.add.reduceat(ordered * self._right[self._order], self._starts, axis=1)
        return rows, right


def bins_of(rows: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each group of confidence (draws, groups), each bin of as many rows as can be.

    A group is never split: it lies where its middle row does, in bin
    floor(bins * (rows before it + half its own) / rows).
    """
    twice = 2 * np.cumsum(rows, -1) - rows  # twice the place of its middle, a whole number
    all_rows = np.maximum(rows.sum(-1, keepdims=True), 1)
    return np.minimum((bins * twice) // (2 * all_rows), bins - 1).astype(np.intp)


def calibration_error(
    rows: np.ndarray, right: np.ndarray, values: np.ndarray, bins: int = BINS
) -> np.ndarray:
    """ECE with bins of equal mass (draws,): sum over bins of rows/all |share right - confidence|.

    Bins of equal mass: Nguyen & O'Connor 2015 (arXiv 1508.05154), Nixon et al. 2019 (arXiv
    1904.01685); the sum of distances: Guo et al. 2017. NaN without a row.

    Args:
        rows, right: of each group of confidence (draws, groups), `Ranked.counts`.
        values: their confidences (groups,).
    """
    draws = len(rows)
    places = bins_of(rows, bins) + bins * np.arange(draws)[:, None]
    gaps = np.bincount(places.ravel(), (right - rows * values).ravel(), minlength=draws * bins)
    with np.errstate(invalid="ignore"):
        return np.abs(gaps.reshape(draws, bins)).sum(-1) / rows.sum(-1)


def calibrated_error(confidence: Sequence[float], bins: int = BINS) -> float:
    """The mean ECE of as many rows with these confidences that are right exactly so often, drawn
    1000 times: what is left of it when nothing is wrong (Bröcker & Smith 2007)."""
    ranked = Ranked(confidence, np.zeros(len(confidence)))
    rows, _ = ranked.counts(np.ones((1, len(confidence))))
    rng = np.random.default_rng(0)
    right = rng.binomial(rows.astype(int), np.clip(ranked.values, 0, 1), (SIMULATED, rows.shape[1]))
    same = np.broadcast_to(rows, right.shape)
    return float(calibration_error(same, right, ranked.values, bins).mean())


@dataclasses.dataclass(frozen=True)
class Bin:
    """Rows of one bin: how many, their mean confidence, and the share that is right."""

    rows: int
    confidence: float
    right: float


def reliability(confidence: Sequence[float], right: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """The bins of ECE that hold a row, from the least confidence to the most."""
    ranked = Ranked(confidence, right)
    rows, hits = ranked.counts(np.ones((1, len(confidence))))
    place = bins_of(rows, bins)[0]
    found = []
    for number in np.unique(place):
        own = place == number
        count = rows[0, own].sum()
        mean = (rows[0, own] * ranked.values[own]).sum() / count
        found.append(Bin(int(count), float(mean), float(hits[0, own].sum() / count)))
    return found


def right_of_surest(rows: np.ndarray, right: np.ndarray, share: float) -> np.ndarray:
    """The share that is right of the surest ``share`` of the rows (draws,); of a group that is only
    partly among them its own share. NaN without a row. Arguments as `calibration_error`."""
    rows, right = rows[:, ::-1], right[:, ::-1]
    wanted = share * rows.sum(-1, keepdims=True)
    before = np.cumsum(rows, -1) - rows
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.clip(wanted - before, 0, rows) / np.where(rows > 0, rows, np.nan)
        return np.nansum(part * right, -1) / wanted[:, 0]


def risk_coverage_area(rows: np.ndarray, right: np.ndarray) -> np.ndarray:
    """AURC (draws,): the mean over k of the share wrong among the k surest rows.

    Geifman, Uziel & El-Yaniv 2019 (arXiv 1805.08206). Within a group every order is as
    likely as any other, and the mean over them is given: the j-th row of a group of m with e errors
    adds (E + j e/m) / (N + j), with E errors in N rows before it. NaN without a row.

    Args:
        rows, right: of each group of confidence (draws, groups), whole numbers.
    """
    rows, right = rows[:, ::-1], right[:, ::-1]
    until = np.cumsum(rows, -1).astype(np.intp)
    before = until - rows.astype(np.intp)
    wrong = rows - right
    wrong_before = np.cumsum(wrong, -1) - wrong
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, until.max(initial=0) + 1))])
    rate = wrong / np.maximum(rows, 1)
    area = wrong + (wrong_before - rate * before) * (harmonic[until] - harmonic[before])
    with np.errstate(invalid="ignore"):
        return area.sum(-1) / until[:, -1]


def coverage_curve(
    confidence: Sequence[float], right: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and the share right of what is covered, at the end of each group, surest first."""
    ranked = Ranked(confidence, right)
    rows, hits = (of[0, ::-1] for of in ranked.counts(np.ones((1, len(confidence)))))
    covered = np.cumsum(rows)
    return covered / covered[-1], np.cumsum(hits) / covered
