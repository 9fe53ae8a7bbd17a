"""Hidden states and their lengths, which always travel together, and batches of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


@dataclasses.dataclass
class States:
    """Frames (batch, time, width), padded at the end, and how many are valid (batch,)."""

    frames: Tensor
    lengths: Tensor

    def mask(self) -> Tensor:
        """Valid frames as booleans (batch, time)."""
        return mask_of(self.lengths, self.frames.shape[1])


@dataclasses.dataclass
class HiddenStates:
    """Some consecutive hidden states, each (batch, time, width), and the valid frames (batch,)."""

    layers: list[Tensor]
    lengths: Tensor

    def means(self) -> Tensor:
        """Time means over the valid frames: (batch, states, width), in float32."""
        mask = mask_of(self.lengths, self.layers[0].shape[1]).unsqueeze(-1)
        count = self.lengths.to(torch.float32).view(-1, 1)
        return torch.stack(
            [(x.float() * mask).sum(1) / count.to(x.device) for x in self.layers], dim=1
        )


def mask_of(lengths: Tensor, frames: int) -> Tensor:
    """Booleans (batch, frames), true where a frame is valid."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def no_lengths(device: torch.device) -> Tensor:
    """The lengths of a batch of which no states were computed: (0,)."""
    return torch.zeros(0, dtype=torch.long, device=device)


def pad(items: Sequence[Tensor]) -> States:
    """Stack (time, width) tensors of different lengths into one padded batch."""
    lengths = torch.tensor([len(x) for x in items], device=items[0].device)
    return States(nn.utils.rnn.pad_sequence(list(items), batch_first=True), lengths)


def by_length(function: Callable[[Tensor], Tensor], items: Sequence[Tensor]) -> list[Tensor]:
    """Apply a batched function to items of different lengths, never padding: one call per length.

    A front end with normalisation over time gives other values on padded input (trap 6).
    """
    if len(items) == 1:  # its length is not looked at: it may be any, in a graph
        return list(function(torch.stack(list(items))))
    groups: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(len(item), []).append(index)
    results: list[Tensor] = [torch.empty(0)] * len(items)
    for indices in groups.values():
        batch = function(torch.stack([items[i] for i in indices]))
        for i, result in zip(indices, batch, strict=True):
            results[i] = result
    return results
