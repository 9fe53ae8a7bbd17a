"""WavLM, with an attention that calls its projections.

transformers 5.23's `WavLMAttention` hands ``q_proj.weight`` and the others to
``F.multi_head_attention_forward`` and never calls the projections: LoRA on them changes nothing,
silently (trap 1; upstream fix: transformers PR 48773). Ours computes the same (Chen et al. 2022,
section III-B: gated relative position bias) with the four projections called and SDPA in between.

The position bias comes from block 0's embedding alone, so it can be had wherever a run starts.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import Entry, register
from emopeft.upstream.hub import FAMILIES, Family, load_transformers
from emopeft.upstream.speech import UNISPEECH, SpeechUpstream


@functools.cache
def attention_class() -> type[nn.Module]:
    """`WavLMAttention` with calls to its projections; made late: transformers imports slowly."""
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    class CallingWavLMAttention(WavLMAttention):
        """Same parameters under the same names, same values, live projections."""

        def forward(  # type: ignore[override]
            self,
            hidden_states: Tensor,
            attention_mask: Tensor | None = None,
            position_bias: Tensor | None = None,
            index: int = 0,
            **kwargs: Any,
        ) -> tuple[Tensor, None, Tensor]:
            """Attend.

            Args:
                hidden_states: (batch, time, width).
                attention_mask: true where valid, (batch, time) or (batch, 1, 1, time).
                position_bias: ungated (heads, time, time); computed in block 0 when None.
                index: the block, unused as in transformers.

            Returns:
                The output (batch, time, width), no attention weights, the ungated bias.
            """
            batch, time, width = hidden_states.shape
            if position_bias is None:
                position_bias = self.compute_bias(time, time)
            heads = hidden_states.view(batch, time, self.num_heads, self.head_dim).transpose(1, 2)
            # The gate of a frame and head, from eight numbers: two groups of four, summed.
            gates = self.gru_rel_pos_linear(heads).view(batch, self.num_heads, time, 2, 4).sum(-1)
            a, b = torch.sigmoid(gates).chunk(2, dim=-1)
            bias = (a * (b * self.gru_rel_pos_const - 1.0) + 2.0) * position_bias
            query, key, value = (
                projection(hidden_states)
                .view(batch, time, self.num_heads, self.head_dim)
                .transpose(1, 2)
                for projection in (self.q_proj, self.k_proj, self.v_proj)
            )
            bias = bias.to(query.dtype)  # autocast gives the query another type than the bias
            if attention_mask is not None:
                valid = attention_mask.view(batch, 1, 1, time).to(torch.bool)
                bias = bias.masked_fill(~valid, float("-inf"))
            prefix = self.__dict__.get("prefix")  # of peft_modules/prefix.py
            if prefix is not None:
                key, value = prefix.extend(key, value)
                bias = F.pad(bias, (key.shape[2] - time, 0))
            output = F.scaled_dot_product_attention(
                query, key, value, bias, dropout_p=self.dropout if self.training else 0.0
            )
            output = output.transpose(1, 2).reshape(batch, time, width)
            return self.out_proj(output), None, position_bias

    return CallingWavLMAttention


class WavLMUpstream(SpeechUpstream):
    """WavLM base, base+ and large; see `SpeechUpstream`."""

    def __init__(self, model: nn.Module, preprocessor: dict[str, Any] | None = None):
        super().__init__(model, preprocessor)
        self._bias: tuple[tuple[Any, ...], Tensor] | None = None
        self._own_attention = True
        for block in self.blocks:
            block.attention.__class__ = attention_class()

    def run_block(self, i: int, frames: Tensor, lengths: Tensor) -> Tensor:
        batch, time, _ = frames.shape
        mask = self.attention_mask(lengths, time)
        bias = self.position_bias(time)
        if not self._own_attention:
            mask = None if mask is None else mask[:, 0, 0]
            bias = bias.repeat(batch, 1, 1)
        return self.blocks[i](frames, attention_mask=mask, position_bias=bias)[0]

    def position_bias(self, time: int) -> Tensor:
        """Block 0's bias before the gates, (heads, time, time); kept while it is frozen."""
        attention: Any = self.blocks[0].attention
        weight = attention.rel_attn_embed.weight
        if weight.requires_grad or self.traced:
            return attention.compute_bias(time, time)
        inference = torch.is_inference_mode_enabled()
        key = (time, weight.data_ptr(), weight._version, weight.device, weight.dtype, inference)
        if self._bias is None or self._bias[0] != key:
            self._bias = (key, attention.compute_bias(time, time))
        return self._bias[1]


def use_transformers_attention(upstream: Upstream) -> None:
    """Put transformers' own attention back, to show that LoRA on it is dead (for tests)."""
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    assert isinstance(upstream, WavLMUpstream)
    upstream._own_attention = False
    for block in upstream.blocks:
        block.attention.__class__ = WavLMAttention


FAMILIES["wavlm"] = Family("wavlm:WavLMModel", WavLMUpstream, attention="eager")

for _name, _hub_id, _millions, _aliases in (
    ("wavlm_base", "microsoft/wavlm-base", 94.4, ("wavlm",)),
    ("wavlm_base_plus", "microsoft/wavlm-base-plus", 94.4, ()),
    ("wavlm_large", "microsoft/wavlm-large", 315.5, ()),
):
    register(
        Entry(
            name=_name,
            family="wavlm",
            load=load_transformers,
            hub_id=_hub_id,
            licence=UNISPEECH,
            parameters=_millions,
            aliases=_aliases,
        )
    )
