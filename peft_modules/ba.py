"""Bottleneck adapter at a block's output, after its final layer norm where that comes last.

    h <- h + U ReLU(V h + b_V) + b_U,   U = 0 and b_U = 0 at init, so the identity

V is (bottleneck, D), U is (D, bottleneck): 2 x 64 D + 64 + D parameters per block, 1,189,632 on a
base model. Lashkarashvili et al. 2024, from Houlsby et al. 2019; the second adapter, on the
attention's output before the residual is added, is an option and not their default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules import placing
from emopeft.peft_modules.base import Method, option, register
from emopeft.peft_modules.tensors import untrained
from emopeft.upstream.base import Upstream


class Bottleneck(nn.Module):
    """x + U ReLU(V x + b_V) + b_U on the last dimension; the identity at init."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return x + self.up(self.down(x).relu())


@register
@dataclasses.dataclass(frozen=True)
class BottleneckAdapter(Method):
    name = "ba"
    summary = "bottleneck adapter at the blocks' outputs"
    reference = "Lashkarashvili et al. 2024, after Houlsby et al. 2019"
    order = 60
    presets = {"lashkarashvili2024": {}}

    bottleneck: int = option(64, "inner width")
    attention: bool = option(False, "a second adapter on the attention's output")
    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        if self.bottleneck < 1:
            raise UserError(f"ba:bottleneck={self.bottleneck} must be at least 1")
        added = []
        for i in placing.chosen_blocks(self.blocks, upstream.num_blocks):
            if self.attention:
                added.append(Bottleneck(upstream.width, self.bottleneck))
                placing.after_attention(upstream, i, added[-1])
            added.append(Bottleneck(upstream.width, self.bottleneck))
            placing.after_block(upstream, i, added[-1])
        return [p for module in added for p in module.parameters()]

    def doubled(self) -> BottleneckAdapter:
        return dataclasses.replace(self, bottleneck=2 * self.bottleneck)

    def added(self, name: str, start: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """[U_1 U_2] ReLU([V_1; V_2] h) = U_1 ReLU(V_1 h) + U_2 ReLU(V_2 h): exact, with the
        bottlenecks side by side."""
        if ".down." in name:
            return torch.cat([first, second], 0)
        first = untrained(name, start, first)
        return first + second if name.endswith("bias") else torch.cat([first, second], 1)
