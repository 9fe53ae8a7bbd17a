"""Full fine-tuning. The CNN front end stays frozen, as usual, unless freed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from emopeft.errors import UserError
from emopeft.peft_modules.base import FINETUNE, Method, option, register
from emopeft.peft_modules.liveness import dead_tensors
from emopeft.upstream.base import Upstream


@register
@dataclasses.dataclass(frozen=True)
class FullFineTuning(Method):
    name = "full"
    summary = "all blocks, projection and norms train; the CNN front end is frozen"
    reference = "common practice; wav2vec 2.0's fine-tuning freezes the CNN"
    kind = FINETUNE
    order = 10
    adds = False
    needs_blocks = False
    positional = "cnn"

    cnn: bool = option(False, "train the convolutional front end too")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        parts = upstream.parts()
        if upstream.has_blocks:
            modules = [*parts["embed"], *upstream.blocks, *parts["finish"]]
            if self.cnn:
                modules += parts["extract"]
            parameters = _unique(modules)
        else:
            # Run as a whole: which parameters its forward pass uses is found by trying.
            everything = dict(upstream.named_parameters())
            for parameter in everything.values():
                parameter.requires_grad_(True)
            dead = set(dead_tensors(upstream))
            upstream.requires_grad_(False)
            parameters = [p for n, p in everything.items() if n not in dead]
        if not parameters:
            raise UserError(f"{upstream.name} has no weights to fine-tune; use -p none")
        return parameters


def _unique(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return list({id(p): p for m in modules for p in m.parameters()}.values())
