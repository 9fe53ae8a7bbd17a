"""Layer-norm tuning: scale and offset of the blocks' layer norms train (Qi et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from emopeft.errors import UserError
from emopeft.peft_modules.base import Method, option, register
from emopeft.peft_modules.placing import chosen_blocks
from emopeft.upstream.base import Upstream


@register
@dataclasses.dataclass(frozen=True)
class LayerNormTuning(Method):
    name = "layernorm"
    summary = "scale and offset of the blocks' layer norms train"
    reference = "Qi et al. 2022"
    order = 10
    adds = False

    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        if not upstream.norms:
            raise UserError(f"{upstream.name} names no layer norms in its blocks")
        return [
            parameter
            for i in chosen_blocks(self.blocks, upstream.num_blocks)
            for path in upstream.norms
            for parameter in upstream.blocks[i].get_submodule(path).parameters()
        ]
