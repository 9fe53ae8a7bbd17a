"""The time means of some utterances, gathered from those of all."""

from __future__ import annotations

import torch
from torch import Tensor


def gather(
    means: Tensor, indices: Tensor, buffer: Tensor, standard: tuple[Tensor, Tensor] | None
) -> Tensor:
    """The means of some utterances, contiguous, standardised where there is something to do it by.

    Args:
        means: (utterances, states, width).
        indices: (...,), on its device.
        buffer: is filled, where it has the shape of what is returned: (..., states, width).
        standard: mean and scale, as (states, width) or, of ..., with more axes.
    """
    shape = (*indices.shape, *means.shape[1:])
    if buffer.shape != shape:
        buffer = torch.empty(shape, device=means.device)
    flat = buffer.view(-1, *means.shape[1:])
    torch.index_select(means, 0, indices.reshape(-1), out=flat)
    if standard is not None:
        buffer.sub_(standard[0]).div_(standard[1])
    return buffer
