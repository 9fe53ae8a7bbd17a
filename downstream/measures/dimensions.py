"""How well a rating is predicted: CCC, its parts, Pearson, RMSE, MAE. Imports no torch.

Lin's concordance correlation coefficient (Lin 1989, Biometrics 45) of predictions x and ratings y,
with the variances and the covariance of the population (divided by n),

    CCC = 2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2) = r C,
    C = 2 / (v + 1 / v + u^2),  v = sd(x) / sd(y),  u = (mean(x) - mean(y)) / sqrt(sd(x) sd(y))

falls apart into Pearson's r, the scale v (1: as spread out as the ratings; near 0: "predicts the
mean") and the bias, given here in standard deviations of the ratings: (mean(x) - mean(y)) / sd(y).

What has no value is NaN, never 0 or left out:

======================== ===========================================================================
no or one rated          CCC, r, scale, bias NaN; of one, RMSE and MAE are its error
constant predictions     CCC 0 (by the formula), r NaN, scale 0
constant ratings         CCC 0 where predictions vary or differ, r, scale and bias NaN
both constant and equal  CCC NaN (0/0)
======================== ===========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from emopeft.downstream.measures.columns import NONE

PARTS = ("ccc", "pearson", "rmse", "mae", "scale", "bias")


def dimension_metrics(truth: Sequence[float], prediction: Sequence[float]) -> dict[str, float]:
    """`PARTS` of one rating, each by its name, and ``rated``, how many utterances count.

    Args:
        truth: ratings, NaN where an utterance has none: it does not count. prediction: all finite.

    Raises:
        ValueError: unequal lengths, or no utterance at all.
    """
    if not len(truth) or len(truth) != len(prediction):
        raise ValueError(f"{len(truth)} truths and {len(prediction)} predictions: no metric")
    y, x = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    rated = ~np.isnan(y)
    y, x = y[rated], x[rated]
    measures: dict[str, float] = dict.fromkeys(PARTS, math.nan)
    measures["rated"] = len(y)
    if not len(y):
        return measures
    measures["rmse"] = float(np.sqrt(np.mean((x - y) ** 2)))
    measures["mae"] = float(np.mean(np.abs(x - y)))
    if len(y) < 2:
        return measures
    a, b, shift = x - x.mean(), y - y.mean(), float(x.mean() - y.mean())
    # Of equal numbers the mean may differ in its last bit, and so would the variance from 0.
    var_x = 0.0 if np.ptp(x) == 0 else float(np.mean(a * a))
    var_y = 0.0 if np.ptp(y) == 0 else float(np.mean(b * b))
    both = var_x > 0 and var_y > 0
    covariance = float(np.mean(a * b)) if both else 0.0
    spread = var_x + var_y + shift * shift
    if spread > 0 and (var_x > 0 or var_y > 0 or x[0] != y[0]):
        measures["ccc"] = 2 * covariance / spread
    if both:
        measures["pearson"] = covariance / math.sqrt(var_x) / math.sqrt(var_y)
    if var_y > 0:
        measures["scale"] = math.sqrt(var_x / var_y)
        measures["bias"] = shift / math.sqrt(var_y)
    return measures


def mean_of(values: Iterable[float | None]) -> str:
    """The mean as tables show it; a dash where a value is none."""
    numbers = list(values)
    known = [x for x in numbers if x is not None and not math.isnan(x)]
    return f"{math.fsum(known) / len(known):.2f}" if known and len(known) == len(numbers) else NONE
