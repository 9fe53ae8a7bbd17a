"""Weighted sum of the hidden states.

    h = sum over l = 0..L of softmax(w)_l h_l,   w equal at init
    (Yang et al. 2021; Lashkarashvili et al. 2024)

The sum lives in the head's featurizer (downstream/heads/base.py), where it is the default. Named
as a method it is always on, also where the recipe's head takes the last state, and its L+1 weights
count as the method's. ``layers=blocks`` leaves out the input of the first block (PEFT-SER).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from emopeft.errors import unknown
from emopeft.peft_modules.base import FROZEN, Method, option, register
from emopeft.upstream.base import Upstream

LAYERS = {"all": "weighted_sum", "blocks": "blocks"}  # as the head calls them


@register
@dataclasses.dataclass(frozen=True)
class WeightedSum(Method):
    name = "ws"
    summary = "softmax-weighted sum over the L+1 hidden states"
    reference = "Yang et al. 2021; Lashkarashvili et al. 2024"
    kind = FROZEN
    order = 65  # only for the spelling of sums: lora+ba+ws+wg
    positional = "layers"
    presets = {"lashkarashvili2024": {}, "peft-ser": {"layers": "blocks"}}
    needs_blocks = False

    layers: str = option("all", "all (L+1 states) or blocks (their L outputs)")

    def __post_init__(self) -> None:
        if self.layers not in LAYERS:
            raise unknown("value of ws:layers", self.layers, LAYERS)

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        return []

    def merge(self, upstream: Upstream) -> None:
        """Nothing in the upstream changes; the weights stand with the head."""
