"""The frozen probe: nothing of the upstream trains (SUPERB)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from emopeft.peft_modules.base import FROZEN, Method, register
from emopeft.upstream.base import Upstream


@register
@dataclasses.dataclass(frozen=True)
class NoAdaptation(Method):
    name = "none"
    summary = "frozen upstream; only the head and its weighted sum train"
    reference = "Yang et al. 2021, SUPERB"
    kind = FROZEN
    needs_blocks = False

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        return []

    def merge(self, upstream: Upstream) -> None:
        """Nothing in the upstream changes."""
