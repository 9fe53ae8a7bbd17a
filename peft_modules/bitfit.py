"""BitFit: the biases of the blocks train (Ben Zaken et al. 2022).

The bias of the attention keys stays frozen: softmax does not change when the same number is added
to all scores of a query, so its gradient is zero in every implementation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from emopeft.errors import UserError
from emopeft.peft_modules.base import Method, option, register
from emopeft.peft_modules.liveness import is_key_bias
from emopeft.peft_modules.placing import chosen_blocks
from emopeft.upstream.base import Upstream


@register
@dataclasses.dataclass(frozen=True)
class BitFit(Method):
    name = "bitfit"
    summary = "the blocks' biases train (but not the keys', which do nothing)"
    reference = "Ben Zaken et al. 2022"
    order = 10
    adds = False

    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        biases = [
            parameter
            for i in chosen_blocks(self.blocks, upstream.num_blocks)
            for name, parameter in upstream.blocks[i].named_parameters()
            if name.endswith("bias") and not is_key_bias(upstream, "." + name)
        ]
        if not biases:
            raise UserError(f"{upstream.name} has no biases in its blocks; choose another method")
        return biases
