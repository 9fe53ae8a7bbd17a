"""Each class against the rest: EER, precision and F1; top-2 accuracy; confusions in shares of the
truth. Many weightings of the rows at once, as in ``weighted.py``; imports no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.measures.resampling import Measure
from emopeft.downstream.measures.weighted import accuracy, recalls

TOP = 2
# What records do not have, and reports compute from predictions.
DETAILS = (
    Metric("eer", "EER %", better="lower"),
    Metric("micro_f1", "micro F1 %"),
    Metric("macro_f1", "macro F1 %"),
    Metric("weighted_f1", "weighted F1 %"),
    Metric("top2", "top-2 %"),
)


def equal_error_rates(truth: ArrayLike, scores: np.ndarray) -> Measure:
    """Weights (draws, rows) to the EER of each class against the rest, (draws, classes).

    The clips of a class are to be accepted, all others rejected, by the class' score alone. Each
    score that occurs is a threshold, and clips that share one are accepted together, so that ties
    have no order. Between two thresholds both error rates change on a straight line (the
    trapezoids of an area under the ROC), and EER is where they are equal: one value, exact, where
    audmetric 1.4 gives the middle of the interval that it lies in (Maio et al. 2002). NaN of a
    class that no row, or each row, is of.

    Args:
        truth: class indices (rows,). scores: higher is more like the class (rows, classes).
    """
    of = np.asarray(truth)[:, None] == np.arange(scores.shape[1])
    curves = [_Curve(scores[:, c], of[:, c]) for c in range(scores.shape[1])]
    return lambda weights: np.stack([curve.equal_error(weights) for curve in curves], -1)


class _Curve:
    """The scores of a class (rows,), which rows are of it, and both from the highest down."""

    def __init__(self, scores: np.ndarray, own: np.ndarray):
        values, group = np.unique(-scores, return_inverse=True)
        self._order = np.argsort(group, kind="stable")
        self._starts = np.searchsorted(group[self._order], np.arange(len(values)))
        self._own = own[self._order].astype(np.float64)

    def equal_error(self, weights: np.ndarray) -> np.ndarray:
        """The EER of each draw (draws,)."""
        ordered = np.asarray(weights, np.float64)[:, self._order]
        missed, false = (
            _shares(np.add.reduceat(ordered * which, self._starts, axis=1))
            for which in (self._own, 1 - self._own)
        )
        apart = false - (1 - missed)  # from -1 to 1; rises wherever a row is accepted
        after = np.argmax(apart >= 0, -1)[:, None]
        high, low = np.take_along_axis(apart, after, 1), np.take_along_axis(apart, after - 1, 1)
        ends = [np.take_along_axis(false, at, 1) for at in (after - 1, after)]
        rate = ends[0] + (ends[1] - ends[0]) * -low / (high - low)
        return rate[:, 0]


def _shares(counts: np.ndarray) -> np.ndarray:
    """Counts (draws, groups) to the share of all that the first k groups hold (draws, groups + 1),
    NaN of none at all."""
    until = np.cumsum(counts, -1)
    total = until[:, -1:]
    with np.errstate(invalid="ignore"):
        shares = until / np.where(total > 0, total, np.nan)
    return np.concatenate([np.where(total > 0, 0.0, np.nan), shares], -1)


def top_right(truth: ArrayLike, scores: np.ndarray, top: int = TOP) -> np.ndarray:
    """Of each row, whether its class is among the ``top`` highest scores (rows,), 0 to 1.

    Of classes that share a score every order is as likely: with a scores above the truth's and t
    equal to it (its own, too) the row counts by min(1, max(0, (top - a) / t)).
    """
    own = np.take_along_axis(scores, np.asarray(truth)[:, None], 1)
    above, equal = (scores > own).sum(-1), (scores == own).sum(-1)
    return np.clip((top - above) / equal, 0, 1)


def precisions(confusion: np.ndarray) -> np.ndarray:
    """Precision per class (draws, classes), NaN of a class that is never predicted."""
    return recalls(np.swapaxes(confusion, -1, -2))


def f_scores(confusion: np.ndarray) -> np.ndarray:
    """F1 per class (draws, classes): 2 hits / (rows of it + predictions of it); NaN of a class that
    no row is of."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    of, said = confusion.sum(-1), confusion.sum(-2)
    return 2 * hits / np.where(of > 0, of + said, np.nan)


def macro(values: np.ndarray) -> np.ndarray:
    """The mean over classes (draws,) of those that have a value; NaN of none."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(-1) / known.sum(-1)


def f_means(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """F1 over classes, (draws,) each: micro (all hits over all rows, which with one class said of
    each row is the accuracy), macro (over the classes that the truth holds, as in records), and
    weighted (by the rows of each)."""
    scores, of = f_scores(confusion), confusion.sum(-1)
    with np.errstate(invalid="ignore"):
        weighted = np.where(of > 0, scores * of, 0.0).sum(-1) / of.sum(-1)
    return {"micro_f1": accuracy(confusion), "macro_f1": macro(scores), "weighted_f1": weighted}


def shares_of_truth(confusion: np.ndarray) -> np.ndarray:
    """A confusion (classes, classes) with each row divided by its sum; NaN of an absent class."""
    rows = confusion.sum(-1, keepdims=True)
    return confusion / np.where(rows > 0, rows, np.nan)
