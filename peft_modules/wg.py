"""Weight gate at a block's output, after a bottleneck adapter that sits there.

    h_l <- h_l * sigmoid(g_l),   g_l in R^D, 1 at init: all is scaled by 0.731, not the identity

D parameters per block, 9,216 on a base model. Lashkarashvili et al. 2024.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from emopeft.peft_modules import placing
from emopeft.peft_modules.base import Method, option, register
from emopeft.upstream.base import Upstream


class Gate(nn.Module):
    """x * sigmoid(g), one g per channel, on the last dimension."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return x * torch.sigmoid(self.weight)


@register
@dataclasses.dataclass(frozen=True)
class WeightGate(Method):
    name = "wg"
    summary = "a sigmoid gate per channel at the blocks' outputs"
    reference = "Lashkarashvili et al. 2024"
    order = 70
    presets = {"lashkarashvili2024": {}}
    identity = False

    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        gates = []
        for i in placing.chosen_blocks(self.blocks, upstream.num_blocks):
            gates.append(Gate(upstream.width))
            placing.after_block(upstream, i, gates[-1])
        return [gate.weight for gate in gates]

    def doubled(self) -> WeightGate:
        """Itself: what is added is g, the argument of the sigmoid."""
        return self
