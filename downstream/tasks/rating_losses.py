"""Losses of ratings: CCC, RMSE, MSE and MAE of a whole batch, ratings that are missing left out.

All take outputs and ratings of one scale (..., batch, dimensions), NaN where there is no rating,
and the utterances' weights (..., batch), which add up to 1, and give a number per dimension:
(..., dimensions). CCC and RMSE are of the batch: the weights of the rated ones are made to add up
to 1. MSE and MAE are sums over utterances, so that a batch may be split: an utterance without a
rating counts as if its error were 0. A dimension that nobody in the batch is rated on adds 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ccc(outputs: Tensor, ratings: Tensor, weights: Tensor) -> Tensor:
    """1 - CCC (Lin 1989), with the biased variances of the 2024 Odyssey challenge's baseline.

    Where CCC is 0/0 (outputs and ratings constant and equal, or a single rating that is met), it
    counts as 0 and has no gradient.
    """
    rated, share, y = _rated(ratings, weights)
    mean_x, mean_y = (share * outputs).sum(-2), (share * y).sum(-2)
    a, b = outputs - mean_x.unsqueeze(-2), y - mean_y.unsqueeze(-2)
    spread = (share * a * a).sum(-2) + (share * b * b).sum(-2) + (mean_x - mean_y) ** 2
    there = spread > 0
    covariance = (share * a * b).sum(-2)
    value = torch.where(there, 2 * covariance / torch.where(there, spread, 1.0), 0.0)
    return torch.where(rated, 1 - value, 0.0)


def rmse(outputs: Tensor, ratings: Tensor, weights: Tensor) -> Tensor:
    """Root of the mean squared error; its gradient at 0 is 0 (Lashkarashvili et al. 2024)."""
    _, share, y = _rated(ratings, weights)
    square = (share * (outputs - y) ** 2).sum(-2)
    there = square > 0
    return torch.where(there, torch.where(there, square, 1.0).sqrt(), 0.0)


def mse(outputs: Tensor, ratings: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error."""
    return (weights.unsqueeze(-1) * _error(outputs, ratings) ** 2).sum(-2)


def mae(outputs: Tensor, ratings: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute error."""
    return (weights.unsqueeze(-1) * _error(outputs, ratings).abs()).sum(-2)


LOSSES: dict[str, Loss] = {"ccc": ccc, "rmse": rmse, "mse": mse, "mae": mae}
ADDITIVE = ("mse", "mae")


def _rated(ratings: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether a dimension is rated, each rating's share in it, and the ratings with 0 for NaN."""
    known = ~ratings.isnan()
    share = weights.unsqueeze(-1) * known
    total = share.sum(-2, keepdim=True)
    rated = total > 0
    return rated.squeeze(-2), share / torch.where(rated, total, 1.0), torch.nan_to_num(ratings)


def _error(outputs: Tensor, ratings: Tensor) -> Tensor:
    known = ~ratings.isnan()
    return torch.where(known, outputs - torch.nan_to_num(ratings), 0.0)
