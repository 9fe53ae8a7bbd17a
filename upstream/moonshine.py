"""Moonshine encoders: raw waveform, three convolutions, blocks with rotary positions.

One frame is 384 samples (24 ms); the shortest clip is 895 samples (56 ms). The group norm after
the first convolution runs over the whole clip, so clips are never padded before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emopeft.errors import UserError
from emopeft.upstream.catalogue import Entry, register
from emopeft.upstream.hub import FAMILIES, Family, load_transformers
from emopeft.upstream.states import by_length
from emopeft.upstream.transformers_base import (
    TransformersUpstream,
    conv_frames,
    conv_reach,
    numbers,
)


class MoonshineUpstream(TransformersUpstream):
    """A Moonshine encoder; all of its front end is convolutions, ``embed`` adds nothing.

    Args:
        model: a ``MoonshineEncoder``.
        preprocessor: ignored; Moonshine takes the waveform as it is.
    """

    attention = "self_attn"
    feed_forward = "mlp"
    norms = ("input_layernorm", "post_attention_layernorm")

    def __init__(self, model: nn.Module, preprocessor: dict[str, Any] | None = None):
        super().__init__(model)
        config = self.model.config
        rope = (config.rope_parameters or {}).get("rope_type", "default")
        if rope != "default":  # others depend on what was computed before
            raise UserError(f"Moonshine with '{rope}' rotary positions is not supported")
        convolutions = (self.model.conv1, self.model.conv2, self.model.conv3)
        self.kernels = [c.kernel_size[0] for c in convolutions]
        self.strides = [c.stride[0] for c in convolutions]
        self.width = config.hidden_size
        self.num_blocks = config.encoder_num_hidden_layers
        self.stride = self.strides[0] * self.strides[1] * self.strides[2]
        self.min_samples = conv_reach(self.kernels, self.strides)
        self.options = numbers(
            config,
            "model_type encoder_num_attention_heads encoder_num_key_value_heads "
            "encoder_hidden_act rope_parameters",
        )
        self.roles = {
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.o_proj",
            "fc1": "mlp.fc1",
            "fc2": "mlp.fc2",
        }

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.layers

    def parts(self) -> dict[str, list[nn.Module]]:
        model = self.model
        return {
            "extract": [model.conv1, model.groupnorm, model.conv2, model.conv3],
            "embed": [],
            "finish": [model.layer_norm],
        }

    def frames_of(self, samples: int) -> int:
        return conv_frames(samples, self.kernels, self.strides)

    def extract(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        return by_length(self._extract, [x.to(self.device, torch.float32) for x in wavs])

    def _extract(self, wavs: Tensor) -> Tensor:
        model = self.model
        frames = model.groupnorm(torch.tanh(model.conv1(wavs[:, None])))
        frames = F.gelu(model.conv2(frames))
        return F.gelu(model.conv3(frames)).transpose(1, 2)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        return list(features)

    def run_block(self, i: int, frames: Tensor, lengths: Tensor) -> Tensor:
        positions = torch.arange(frames.shape[1], device=frames.device)[None]
        return self.blocks[i](
            frames,
            attention_mask=self.attention_mask(lengths, frames.shape[1]),
            position_ids=positions,
            position_embeddings=self.model.rotary_emb(frames, position_ids=positions),
        )

    def finish(self, frames: Tensor) -> Tensor:
        return self.model.layer_norm(frames)


FAMILIES["moonshine"] = Family(
    "moonshine.modeling_moonshine:MoonshineEncoder",
    MoonshineUpstream,
    renamed=("model.encoder.", "encoder."),
)

for _size, _millions in (("tiny", 7.7), ("base", 20.2)):
    register(
        Entry(
            name=f"moonshine_{_size}",
            family="moonshine",
            load=load_transformers,
            hub_id=f"UsefulSensors/moonshine-{_size}",
            licence="MIT",
            parameters=_millions,
        )
    )
