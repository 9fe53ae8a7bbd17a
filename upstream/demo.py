"""`demo`: a small HuBERT with fixed random weights, made on the spot. For the demo and tests only.

Two blocks of width 64 with 4 heads behind HuBERT's seven-layer CNN with 32 channels: one frame per
320 samples, as the real one. `demo_base` has twelve narrow blocks, as many as base models, so that
whatever a method says of blocks holds for it. The weights come from a generator of their own: the
same everywhere, and the global random state is left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from emopeft.errors import UserError
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import Entry, register
from emopeft.upstream.speech import SpeechUpstream

NOTE = "random weights, for the demo and tests only"
SEED = 20240607
SIZES: dict[str, dict[str, Any]] = {
    "demo": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 256, "num_conv_pos_embedding_groups": 4, "conv_dim": (32,) * 7},
    "demo_base": {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 2,
                  "intermediate_size": 64, "num_conv_pos_embedding_groups": 2,
                  "conv_dim": (16,) * 7},
}  # fmt: skip
GAIN = 1.6  # keeps the signal alive through seven GELU layers, as He's gain does for ReLU


def fill(module: nn.Module, seed: int) -> None:
    """Fill all parameters from ``seed``: matrices N(0, 1/fan-in), norms near 1, biases near 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("original0"):  # the lengths of a weight-normed convolution's kernels
            value = 1.0 + 0.1 * noise
        elif parameter.ndim > 1:
            value = noise / (parameter[0].numel() ** 0.5)
        else:
            value = 0.1 * noise + (1.0 if name.endswith("norm.weight") else 0.0)
        with torch.no_grad():
            parameter.copy_(value)


def _load(entry: Entry, path: Path | None, revision: str | None, **options: Any) -> Upstream:
    if path is not None or revision is not None:
        raise UserError(
            f"{entry.name} makes its own weights: leave out --upstream-path and the revision"
        )
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(num_conv_pos_embeddings=32, **SIZES[entry.name])
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        model = HubertModel(config)
    fill(model, SEED)
    with torch.no_grad():
        layers: Any = model.feature_extractor.conv_layers
        for layer in layers:
            layer.conv.weight.mul_(GAIN)
    upstream = SpeechUpstream(model, {"do_normalize": True})
    upstream.loader = "emopeft"
    upstream.source = "made on the spot"
    upstream.licence = entry.licence
    upstream.note = NOTE
    return upstream.seal()


for _name, _millions in (("demo", 0.2), ("demo_base", 0.2)):
    register(
        Entry(
            name=_name,
            family="hubert",
            load=_load,
            licence="Apache-2.0",
            parameters=_millions,
            note=NOTE,
        )
    )
