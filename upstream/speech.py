"""HuBERT, wav2vec 2.0, UniSpeech-SAT, data2vec-audio and their kin: a CNN, then a transformer.

The waveform is normalised to zero mean and unit variance where ``preprocessor_config.json`` says
``do_normalize``; where that file is missing, when the CNN has layer norms (large models were
pretrained so; with a group norm after the first convolution, offset and scale cancel anyway).

The state after the final norm is the last one in "stable" (large) models (trap 12). A wav2vec 2.0
checkpoint's optional downsampling adapter behind the encoder is not part of it and not run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.upstream.catalogue import Entry, register
from emopeft.upstream.hub import FAMILIES, Family, load_transformers
from emopeft.upstream.states import by_length, pad
from emopeft.upstream.transformers_base import (
    TransformersUpstream,
    conv_frames,
    conv_reach,
    numbers,
)

# What decides the states beside the weights: goes into cache keys and identities.
DECISIVE = (
    "model_type num_attention_heads hidden_act layer_norm_eps conv_kernel conv_stride conv_dim "
    "feat_extract_activation num_buckets max_bucket_distance num_conv_pos_embedding_groups"
)
NORM_SETTINGS = " do_stable_layer_norm feat_extract_norm"


class SpeechUpstream(TransformersUpstream):
    """HuBERT and all that transformers builds like it.

    Args:
        model: a ``HubertModel``, ``Wav2Vec2Model`` or ``UniSpeechSatModel``.
        preprocessor: the content of preprocessor_config.json, if there is one.
    """

    attention = "attention"
    feed_forward = "feed_forward"
    norms = ("layer_norm", "final_layer_norm")
    norm_settings = True  # whether do_stable_layer_norm and feat_extract_norm are obeyed

    def __init__(self, model: nn.Module, preprocessor: dict[str, Any] | None = None):
        super().__init__(model)
        config = self.model.config
        self.width = config.hidden_size
        self.num_blocks = config.num_hidden_layers
        self.kernels, self.strides = list(config.conv_kernel), list(config.conv_stride)
        self.stride = math.prod(self.strides)
        self.min_samples = conv_reach(self.kernels, self.strides)
        self.stable = self.norm_settings and config.do_stable_layer_norm
        # A group norm runs over the whole clip (trap 6), layer norms over the channels of a frame.
        self.layer_normed = not self.norm_settings or config.feat_extract_norm == "layer"
        # One convolution that sees zeros beyond the clip; of several, only the first would.
        self.one_position = self.norm_settings and not getattr(config, "conv_pos_batch_norm", False)
        do_normalize = (preprocessor or {}).get("do_normalize")
        self.normalize = self.layer_normed if do_normalize is None else bool(do_normalize)
        decisive = DECISIVE + (NORM_SETTINGS if self.norm_settings else "")
        self.options = numbers(config, decisive) | {"normalize": self.normalize}
        self.roles = {
            "q": "attention.q_proj",
            "k": "attention.k_proj",
            "v": "attention.v_proj",
            "o": "attention.out_proj",
            "fc1": "feed_forward.intermediate_dense",
            "fc2": "feed_forward.output_dense",
        }
        # Else it makes its input require a gradient in train mode, frozen or not (trap 4).
        self.model.feature_extractor._requires_grad = False

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.encoder.layers

    def parts(self) -> dict[str, list[nn.Module]]:
        encoder = self.model.encoder
        embed = [self.model.feature_projection, encoder.pos_conv_embed]
        norm = [encoder.layer_norm]
        return {
            "extract": [self.model.feature_extractor],
            "embed": embed if self.stable else embed + norm,
            "finish": norm if self.stable else [],
        }

    def frames_of(self, samples: int) -> int:
        return conv_frames(samples, self.kernels, self.strides)

    def extract(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        wavs = [x.to(self.device, torch.float32) for x in wavs]
        # Unpadded convolutions: a frame knows nothing of what follows it. What a method hooked in
        # may.
        if self.layer_normed and not len(self.inside_front) and self.as_one_batch(wavs):
            batch = pad([self._normalised(x[None])[0] for x in wavs])
            frames = self.model.feature_extractor(batch.frames).transpose(1, 2)
            return [x[: self.frames_of(len(w))] for x, w in zip(frames, wavs, strict=True)]
        return by_length(self._extract, wavs)

    def _extract(self, wavs: Tensor) -> Tensor:
        return self.model.feature_extractor(self._normalised(wavs)).transpose(1, 2)

    def _normalised(self, wavs: Tensor) -> Tensor:
        if not self.normalize:
            return wavs
        mean = wavs.mean(1, keepdim=True)
        return (wavs - mean) / (wavs.var(1, keepdim=True, unbiased=False) + 1e-7).sqrt()

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        if self.one_position and self.as_one_batch(features):
            batch = pad(features)
            frames = self._embed(batch.frames, batch.mask()[..., None])
            return [x[: len(f)] for x, f in zip(frames, features, strict=True)]
        return by_length(self._embed, features)

    def _embed(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        encoder = self.model.encoder
        frames = self.model.feature_projection(features)
        if isinstance(frames, tuple):  # all but HuBERT return the unprojected features too
            frames = frames[0]
        if mask is not None:  # as the convolution itself sees the end of a clip
            frames = frames.masked_fill(~mask, 0.0)
        frames = frames + encoder.pos_conv_embed(frames)
        if not self.stable:
            frames = encoder.layer_norm(frames)
        return encoder.dropout(frames)

    def run_block(self, i: int, frames: Tensor, lengths: Tensor) -> Tensor:
        mask = self.attention_mask(lengths, frames.shape[1])
        return self.blocks[i](frames, attention_mask=mask)

    def finish(self, frames: Tensor) -> Tensor:
        return self.model.encoder.layer_norm(frames) if self.stable else frames


class Data2VecUpstream(SpeechUpstream):
    """data2vec-audio, whose model in transformers reads neither setting of the norms.

    Its CNN has layer norms and its blocks norms behind them, whatever config.json says.
    """

    norm_settings = False


FAMILIES["hubert"] = Family("hubert:HubertModel", SpeechUpstream)
FAMILIES["wav2vec2"] = Family("wav2vec2:Wav2Vec2Model", SpeechUpstream)
FAMILIES["unispeech-sat"] = Family("unispeech_sat:UniSpeechSatModel", SpeechUpstream)
FAMILIES["data2vec-audio"] = Family("data2vec:Data2VecAudioModel", Data2VecUpstream)

APACHE = "Apache-2.0"
# The model cards of Microsoft's encoders refer to the licence of the UniSpeech repository.
UNISPEECH = "CC-BY-SA-3.0 (UniSpeech repository)"

# name, family, hub id, licence, million parameters, aliases
_ROWS: list[tuple[str, str, str, str, float, tuple[str, ...]]] = [
    ("hubert_base", "hubert", "facebook/hubert-base-ls960", APACHE, 94.4, ("hubert",)),
    ("hubert_large_ll60k", "hubert", "facebook/hubert-large-ll60k", APACHE, 315.4, ()),
    ("hubert_xlarge", "hubert", "facebook/hubert-xlarge-ll60k", APACHE, 962.5, ()),
    ("distilhubert", "hubert", "ntu-spml/distilhubert", APACHE, 23.5, ()),
    ("mhubert_147", "hubert", "utter-project/mHuBERT-147", "CC-BY-NC-SA-4.0", 94.4, ("mhubert",)),
    (
        "wav2vec2_base_960",
        "wav2vec2",
        "facebook/wav2vec2-base",
        APACHE,
        94.4,
        ("wav2vec2", "wav2vec2_base"),
    ),
    ("wav2vec2_large_960", "wav2vec2", "facebook/wav2vec2-large", APACHE, 315.4, ()),
    ("wav2vec2_large_ll60k", "wav2vec2", "facebook/wav2vec2-large-lv60", APACHE, 315.4, ()),
    ("wav2vec2_robust", "wav2vec2", "facebook/wav2vec2-large-robust", APACHE, 315.4, ()),
    ("xlsr_53", "wav2vec2", "facebook/wav2vec2-large-xlsr-53", APACHE, 315.4, ()),
    ("xls_r_300m", "wav2vec2", "facebook/wav2vec2-xls-r-300m", APACHE, 315.4, ()),
    ("xls_r_1b", "wav2vec2", "facebook/wav2vec2-xls-r-1b", APACHE, 962.5, ()),
    ("xls_r_2b", "wav2vec2", "facebook/wav2vec2-xls-r-2b", APACHE, 2159.3, ()),
    (
        "unispeech_sat_base",
        "unispeech-sat",
        "microsoft/unispeech-sat-base",
        UNISPEECH,
        94.4,
        ("unispeech_sat",),
    ),
    (
        "unispeech_sat_base_plus",
        "unispeech-sat",
        "microsoft/unispeech-sat-base-plus",
        UNISPEECH,
        94.4,
        (),
    ),
    ("unispeech_sat_large", "unispeech-sat", "microsoft/unispeech-sat-large", UNISPEECH, 315.4, ()),
    (
        "data2vec_base_960",
        "data2vec-audio",
        "facebook/data2vec-audio-base",
        APACHE,
        93.2,
        ("data2vec", "data2vec_base"),
    ),
    (
        "data2vec_large_ll60k",
        "data2vec-audio",
        "facebook/data2vec-audio-large",
        APACHE,
        313.3,
        ("data2vec_large",),
    ),
]

for _name, _family, _hub_id, _licence, _millions, _aliases in _ROWS:
    register(
        Entry(
            name=_name,
            family=_family,
            load=load_transformers,
            hub_id=_hub_id,
            licence=_licence,
            parameters=_millions,
            aliases=_aliases,
        )
    )
