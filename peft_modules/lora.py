"""LoRA through peft, on linear layers chosen by role, or on the head's classifier.

    W' = W + (alpha / r) B A,   B = 0 at init   (Hu et al. 2021)

The default is Lashkarashvili et al. 2024: r = 8, alpha = 1, no dropout, on q, k, v and o of every
block: 589,824 parameters on a base model (768 x 12).

``targets=classifier`` is LoRA on the head alone: the classifier's weight stays as it was drawn, or
as the probe has it that the head starts from, and only its low-rank update trains, beside the rest
of the head. With ``targets=classifier-only`` the rest of the head stays as it was drawn, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.errors import UserError, unknown
from emopeft.peft_modules.base import Method, option, register
from emopeft.peft_modules.injection import inject, inject_head, injected
from emopeft.peft_modules.placing import ROLES
from emopeft.peft_modules.tensors import untrained
from emopeft.upstream.base import Upstream

CLASSIFIER, ALONE = "classifier", "classifier-only"
IN_HEAD = (CLASSIFIER, ALONE)


@register
@dataclasses.dataclass(frozen=True)
class Lora(Method):
    name = "lora"
    summary = "low-rank update of linear layers (q k v o by default)"
    reference = "Hu et al. 2021; defaults of Lashkarashvili et al. 2024"
    order = 20
    presets = {
        "lashkarashvili2024": {},
        "peft-ser": {"r": 16, "targets": ("fc1", "fc2")},
        "sampath2025": {"r": 16},
    }

    r: int = option(8, "rank")
    alpha: float = option(1.0, "the update is scaled by alpha / r")
    dropout: float = option(0.0, "dropout on the input of A")
    targets: tuple[str, ...] = option(
        ("q", "k", "v", "o"),
        "roles: any of q k v o fc1 fc2, and the head's classifier (classifier-only: and nothing "
        "else of the head)",
    )
    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    @property
    def needs_blocks(self) -> bool:  # type: ignore[override]
        return any(t not in IN_HEAD for t in self.targets)

    def __post_init__(self) -> None:
        if self.r < 1:
            raise UserError(f"lora:r={self.r} must be at least 1")
        if not math.isfinite(self.alpha):
            raise UserError(f"lora:alpha={self.alpha} must be a finite number")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora:dropout={self.dropout} must be in [0, 1)")
        for target in self.targets:
            if target not in (*ROLES, *IN_HEAD):
                raise unknown("target of lora", target, (*ROLES, *IN_HEAD))

    def arguments(self) -> dict[str, object]:
        """Of peft's LoraConfig, which declares alpha an int and takes any number."""
        return {"r": self.r, "lora_alpha": self.alpha, "lora_dropout": self.dropout}

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        roles = tuple(t for t in self.targets if t not in IN_HEAD)
        if not roles:
            return []
        return inject(upstream, self.name, "LORA", self.arguments(), roles, self.blocks)

    def patch_head(self, head: nn.Module) -> Iterable[nn.Parameter]:
        if not any(t in IN_HEAD for t in self.targets):
            return []
        trained = inject_head(head, self.name, "LORA", self.arguments())
        if ALONE in self.targets:
            head.requires_grad_(False)  # `patch_head` switches on what is returned
        return trained

    def doubled(self) -> Lora:
        return dataclasses.replace(self, r=2 * self.r, alpha=2 * self.alpha)

    def added(self, name: str, start: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """[B_1 B_2] [A_1; A_2] = B_1 A_1 + B_2 A_2: exact, with the ranks side by side."""
        if "lora_A" in name:
            return torch.cat([first, second], 0)
        return torch.cat([untrained(name, start, first), second], 1)

    def resolved(self, upstream: nn.Module) -> dict[str, Any] | None:
        injection = injected(upstream).get(self.name)
        return None if injection is None else injection.resolved

    def remove(self, upstream: Upstream) -> None:
        if self.name in injected(upstream):
            injected(upstream).pop(self.name).unload()

    def merge(self, upstream: Upstream) -> None:
        if self.name in injected(upstream):
            injected(upstream).pop(self.name).merge(self.name)
