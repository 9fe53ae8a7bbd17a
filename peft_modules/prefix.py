"""Prefix tuning: learned keys and values in front of every block's own.

    attention(Q, [P_K; K], [P_V; V]),   P_K, P_V in R^(n x D) per block

The prefix is put in after the projections (and after rotary positions, which it does not have);
where a block has a position bias, the prefix has none. P_K ~ N(0, 1/D), P_V ~ N(0, 0.02^2) at init,
so not the identity. 2 n D parameters per block. Li & Liang 2021, without their reparameterisation.

In transformers' families the attention function is replaced by one that looks for a prefix and
then calls SDPA; our WavLM attention looks for it itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emopeft.errors import UserError
from emopeft.peft_modules import placing
from emopeft.peft_modules.base import Method, option, register
from emopeft.upstream.base import Upstream

FUNCTION = "emopeft_prefix"


class Prefix(nn.Module):
    """Keys and values (n, heads * head width) of one block."""

    def __init__(self, count: int, width: int):
        super().__init__()
        self.keys = nn.Parameter(torch.randn(count, width) / width**0.5)
        self.values = nn.Parameter(torch.randn(count, width) * 0.02)

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, heads, time, head width) to (batch, heads, n + time, head width), both."""
        return self._join(self.keys, key), self._join(self.values, value)

    def _join(self, prefix: Tensor, sequence: Tensor) -> Tensor:
        batch, heads, _, width = sequence.shape
        parts = prefix.view(len(prefix), heads, -1).transpose(0, 1).to(sequence.dtype)
        parts = F.pad(parts, (0, width - parts.shape[-1]))  # some attentions pad the heads' width
        return torch.cat([parts.expand(batch, -1, -1, -1), sequence], dim=2)


def attention_with_prefix(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **arguments: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' SDPA attention, with the module's prefix where it has one."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    prefix = module.__dict__.get("prefix")
    if prefix is not None:
        key, value = prefix.extend(key, value)
        if attention_mask is not None:
            attention_mask = F.pad(attention_mask, (len(prefix.keys), 0), value=True)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)


@register
@dataclasses.dataclass(frozen=True)
class PrefixTuning(Method):
    name = "prefix"
    summary = "learned keys and values in every block's attention"
    reference = "Li & Liang 2021"
    order = 35
    positional = "n"
    identity = False
    needs_steps = True

    n: int = option(10, "keys and values per block")
    blocks: str = option("all", "which blocks: all, last:N, or numbers and ranges such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        if self.n < 1:
            raise UserError(f"prefix:n={self.n} must be at least 1")
        model: Any = getattr(upstream, "model", None)
        if model is None or upstream.attention is None or "k" not in upstream.roles:
            raise UserError(
                f"prefix needs an attention that takes keys and values from outside, which "
                f"{upstream.name} does not have; take prompt instead"
            )
        _use_function(model)
        prefixes = []
        for i in placing.chosen_blocks(self.blocks, upstream.num_blocks):
            linear: Any = upstream.role(i, "k")
            width = getattr(linear, "base_layer", linear).weight.shape[0]
            prefixes.append(Prefix(self.n, width))
            placing.inside_block(upstream, i, prefixes[-1])
            attention = upstream.blocks[i].get_submodule(upstream.attention)
            # Not as a submodule: it would change the names of the model's parameters.
            attention.__dict__["prefix"] = prefixes[-1]
        return [p for prefix in prefixes for p in prefix.parameters()]

    def remove(self, upstream: Upstream) -> None:
        for block in upstream.blocks:
            block.get_submodule(upstream.attention or "").__dict__.pop("prefix", None)
        config: Any = upstream.model.config  # type: ignore[union-attr]
        config._attn_implementation = config.__dict__.pop("_attention_without_prefix", None)


def _use_function(model: Any) -> None:
    """Have the model's attentions call the function above (WavLM's looks for a prefix itself)."""
    from transformers import AttentionInterface

    AttentionInterface.register(FUNCTION, attention_with_prefix)
    if model.config._attn_implementation != FUNCTION:
        model.config.__dict__["_attention_without_prefix"] = model.config._attn_implementation
        model.config._attn_implementation = FUNCTION
