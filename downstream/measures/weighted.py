"""Measures of rows that count more or less often, many weightings at once: what is resampled.

With all weights 1 each is the metric of its name in ``classes.py`` and ``dimensions.py``. Imports
no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from emopeft.downstream.measures.resampling import Measure


def confusions(truth: ArrayLike, prediction: ArrayLike, classes: int) -> Measure:
    """Weights (draws, rows) to confusions (draws, classes of the truth, classes predicted)."""
    cell = np.asarray(truth) * classes + np.asarray(prediction)
    places = np.zeros((len(cell), classes * classes))
    places[np.arange(len(cell)), cell] = 1.0
    return lambda weights: (weights @ places).reshape(-1, classes, classes)


def recalls(confusion: np.ndarray) -> np.ndarray:
    """Recall per class (draws, classes), NaN of a class that no row of weight is of."""
    of_class = confusion.sum(-1)
    with np.errstate(invalid="ignore"):
        return np.diagonal(confusion, axis1=-2, axis2=-1) / np.where(of_class > 0, of_class, np.nan)


def uar(confusion: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that the truth holds (draws,); NaN of no row."""
    recall = recalls(confusion)
    present = ~np.isnan(recall)
    with np.errstate(invalid="ignore"):
        return np.where(present, recall, 0.0).sum(-1) / present.sum(-1)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Correct / all (draws,); NaN of no row."""
    with np.errstate(invalid="ignore"):
        return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-1, -2))


def ccc(truth: Sequence[float], prediction: Sequence[float]) -> Measure:
    """Weights (draws, rows) to Lin's CCC (draws,), see ``dimensions.py``; rows that are not rated
    (NaN) do not count, and one value throughout gives NaN."""
    sums = moments(truth, prediction)
    return lambda weights: concordance(weights @ sums)


def moments(truth: Sequence[float], prediction: Sequence[float]) -> np.ndarray:
    """What `concordance` is a function of when it is added up, (rows, 5): 1, x, y, xx + yy, xy of
    each row, 0 of one that is not rated."""
    y, x = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    rated = ~np.isnan(y)
    shift = y[rated].mean() if rated.any() else 0.0  # of both: changes nothing, and keeps digits
    y, x = y - shift, x - shift
    columns = np.stack([np.ones_like(x), x, y, x * x + y * y, x * y], -1)
    return np.where(rated[:, None], columns, 0.0)


def concordance(sums: np.ndarray) -> np.ndarray:
    """Lin's CCC (...) of sums (..., 5) of `moments`, all of one call."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[..., 1:] / sums[..., :1]
        x, y, squares, products = np.moveaxis(means, -1, 0)
        return 2 * (products - x * y) / (squares - x * x - y * y + (x - y) ** 2)
