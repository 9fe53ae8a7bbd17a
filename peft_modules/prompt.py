"""Embedding prompts: learned vectors in front of every block's input, cut off after it.

    [P_l; h_l] -> block l -> drop the first n frames,   P_l in R^(n x D), N(0, 0.02^2) at init

The vectors are attended to as valid frames and take part in the block's position bias; lengths and
frames of the result are the input's. n = 5: 46,080 parameters on a base model. Feng & Narayanan
2023 (PEFT-SER), after Jia et al. 2022 (deep visual prompts). Not the identity at init.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules import placing
from emopeft.peft_modules.base import Method, option, register
from emopeft.upstream.base import Upstream


class Prompt(nn.Module):
    """(batch, time, width) to (batch, n + time, width)."""

    def __init__(self, count: int, width: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(count, width) * 0.02)

    def forward(self, frames: Tensor) -> Tensor:
        vectors = self.vectors.to(frames.dtype).expand(len(frames), -1, -1)
        return torch.cat([vectors, frames], dim=1)


@register
@dataclasses.dataclass(frozen=True)
class EmbeddingPrompt(Method):
    name = "prompt"
    summary = "learned vectors in front of every block's input"
    reference = "Feng & Narayanan 2023, PEFT-SER"
    order = 30
    positional = "n"
    presets = {"peft-ser": {"n": 5}}
    identity = False
    needs_steps = True

    n: int = option(5, "vectors per block (PEFT-SER: 1, 3, 5, 10)")
    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        if self.n < 1:
            raise UserError(f"prompt:n={self.n} must be at least 1")
        prompts = []
        for i in placing.chosen_blocks(self.blocks, upstream.num_blocks):
            prompts.append(Prompt(self.n, upstream.width))
            placing.before_block(upstream, i, prompts[-1])
        return [prompt.vectors for prompt in prompts]
