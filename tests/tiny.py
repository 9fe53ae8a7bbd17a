"""Small models of every family, with fixed random weights in which every parameter matters.

Real CNN geometry (400 samples, 320 apart), few channels: `TINY[name]()` gives a sealed Upstream,
`plain(name)` the transformers model with the same weights, as the reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers

from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import UPSTREAMS
from emopeft.upstream.demo import fill
from emopeft.upstream.hub import FAMILIES

list(UPSTREAMS)  # imports the families, which fill FAMILIES

SPEECH: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    # 16 channels a group: with 8, torch 2.13's bf16 convolution on CPU returns wrong values.
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 7,
}
LARGE: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
WAVLM: dict[str, Any] = {"num_buckets": 32, "max_bucket_distance": 80}
DATA2VEC: dict[str, Any] = {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 3}
WHISPER: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 80,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
MOONSHINE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "encoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 4,
    "encoder_num_key_value_heads": 4,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_num_key_value_heads": 4,
    "vocab_size": 64,
}

# name -> (configuration class, its values)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert_base_like": ("HubertConfig", SPEECH),
    "hubert_large_like": ("HubertConfig", SPEECH | LARGE),
    "mhubert_like": ("HubertConfig", SPEECH | {"conv_pos_batch_norm": True}),
    "distilhubert_like": (
        "HubertConfig",
        SPEECH | {"num_hidden_layers": 2, "feat_proj_layer_norm": False},
    ),
    "wav2vec2": ("Wav2Vec2Config", SPEECH),
    "wav2vec2_large_like": ("Wav2Vec2Config", SPEECH | LARGE),
    "wavlm": ("WavLMConfig", SPEECH | WAVLM),
    "wavlm_large_like": ("WavLMConfig", SPEECH | WAVLM | LARGE | {"conv_bias": False}),
    "unispeech_sat": ("UniSpeechSatConfig", SPEECH),
    "data2vec": ("Data2VecAudioConfig", SPEECH | DATA2VEC),
    "whisper": ("WhisperConfig", WHISPER),
    "moonshine": ("MoonshineConfig", MOONSHINE),
}


def plain(name: str) -> Any:
    """The transformers model of this name, in eval mode, always with the same weights."""
    kind, values = CONFIGS[name]
    config = getattr(transformers, kind)(**values)
    family = FAMILIES[config.model_type]
    config._attn_implementation = family.attention
    with torch.random.fork_rng(devices=[]):
        model = family.model_class()(config)
    fill(model, seed=sum(name.encode()))
    return model.eval()


def tiny(name: str, **options: Any) -> Upstream:
    """The Upstream of this name, sealed."""
    model = plain(name)
    upstream = FAMILIES[model.config.model_type].wrap(model, {}, **options)
    upstream.name = name
    upstream.source = "tests/tiny.py"
    return upstream.seal()


TINY: dict[str, Callable[[], Upstream]] = {name: functools.partial(tiny, name) for name in CONFIGS}
