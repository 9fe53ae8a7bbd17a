"""Partial fine-tuning: the last N blocks train (Sampath et al. 2025 recommend three)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from emopeft.errors import UserError
from emopeft.peft_modules.base import FINETUNE, Method, option, register
from emopeft.upstream.base import Upstream


@register
@dataclasses.dataclass(frozen=True)
class PartialFineTuning(Method):
    name = "partial"
    summary = "the last N blocks train, all below is frozen"
    reference = "Sampath et al. 2025"
    kind = FINETUNE
    order = 10
    adds = False
    positional = "n"
    presets = {"sampath2025": {"n": 3}}

    n: int = option(3, "how many blocks train, counted from the end")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        if not 1 <= self.n <= upstream.num_blocks:
            raise UserError(
                f"partial:{self.n} is not possible on {upstream.name}, which has "
                f"{upstream.num_blocks} blocks"
            )
        last = upstream.blocks[upstream.num_blocks - self.n :]
        return [p for block in last for p in block.parameters()]
