"""How much utterances of unequal classes count: inverse frequency, and effective numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("balanced", "effective")


def class_balance(targets: Tensor, kind: str) -> Tensor:
    """Weights (utterances,) that make utterances of rare classes count more.

    With n_c utterances of class c among N in C classes, an utterance of class c gets

        balanced    N / (C n_c)                                   (inverse frequency)
        effective   k (1 - b) / (1 - b^n_c),  b = (N - 1) / N     (Cui et al. 2019, eq. 4)

    k such that the mean over the N utterances is 1, as it is of ``balanced`` where every class is
    there; b as in EMO-SUPERB. Of distributions over classes, n_c is the sum of the class' shares
    (at least 1), and an utterance gets its classes' weights in its shares.

    Args:
        targets: distributions over classes (utterances, classes); a row of NaN or of 0 has no
            label: it is not counted and weighs 1.
        kind: one of `KINDS`.
    """
    import torch

    learned = targets.double().nan_to_num()
    labelled = learned.sum(-1) > 0
    shares = learned[labelled]
    counts = shares.sum(0).clamp_min(1)
    total = len(shares)
    weights = torch.ones(len(targets), dtype=torch.float64, device=targets.device)
    if not total:
        return weights.to(targets.dtype)
    if kind == "balanced":
        weights[labelled] = shares @ (total / (targets.shape[1] * counts))
        return weights.to(targets.dtype)
    # 1 - b^n without loss of digits.
    power = counts * torch.log1p(-torch.tensor(1 / total, dtype=torch.float64))
    each = shares @ (-1 / torch.expm1(power))
    weights[labelled] = each / each.mean()
    return weights.to(targets.dtype)
