"""PEFT-SER's adapter, on or beside the feed-forward part of every block.

    A(x) = s (W_2 dropout(ReLU(W_1 x + b_1)) + b_2),   W_2 = 0 and b_2 = 0 at init
    sequential:  FFN(x) -> FFN(x) + A(FFN(x))
    parallel:    FFN(x) -> FFN(x) + A(x)

Both before the residual is added. Width 128, s = 0.1, dropout 0.1: 2,370,048 parameters on a base
model. Feng & Narayanan 2023; theirs adds the residual twice and so is not the identity at init.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor, nn

from emopeft.errors import UserError, unknown
from emopeft.peft_modules import placing
from emopeft.peft_modules.base import Method, option, register
from emopeft.upstream.base import Upstream

MODES = ("sequential", "parallel")


class Branch(nn.Module):
    """A(x) above; zero at init."""

    def __init__(self, width: int, inner: int, scale: float, dropout: float):
        super().__init__()
        self.down = nn.Linear(width, inner)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(inner, width)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return self.up(self.dropout(self.down(x).relu())) * self.scale


class Sequential(Branch):
    """x + A(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@register
@dataclasses.dataclass(frozen=True)
class FeedForwardAdapter(Method):
    name = "adapter"
    summary = "adapter after or beside the blocks' feed-forward part"
    reference = "Feng & Narayanan 2023, PEFT-SER"
    order = 40
    presets = {"peft-ser": {}, "peft-ser-parallel": {"mode": "parallel"}}

    width: int = option(128, "inner width")
    mode: str = option("sequential", "sequential (after) or parallel (beside)")
    scale: float = option(0.1, "factor on the adapter's output")
    dropout: float = option(0.1, "between its two layers")
    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        if self.mode not in MODES:
            raise unknown("value of adapter:mode", self.mode, MODES)
        if self.width < 1 or not 0 <= self.dropout < 1 or self.scale == 0:
            raise UserError(
                f"adapter:width={self.width},dropout={self.dropout},scale={self.scale} must be a "
                "width of at least 1, a dropout in [0, 1) and a scale other than 0"
            )
        place, kind = {
            "sequential": (placing.after_feed_forward, Sequential),
            "parallel": (placing.beside_feed_forward, Branch),
        }[self.mode]
        added = []
        for i in placing.chosen_blocks(self.blocks, upstream.num_blocks):
            added.append(kind(upstream.width, self.width, self.scale, self.dropout))
            place(upstream, i, added[-1])
        return [p for module in added for p in module.parameters()]
