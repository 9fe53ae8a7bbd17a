"""The list of upstreams: names as in s3prl and SUPERB, and sizes as the architectures have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from emopeft.errors import UserError
from emopeft.upstream.catalogue import UPSTREAMS, find, load
from emopeft.upstream.hub import FAMILIES

LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
LAYER: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
XLARGE = LAYER | {
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "intermediate_size": 5120,
}
DISTIL = {"num_hidden_layers": 2, "feat_proj_layer_norm": False}
XLS_R_2B = XLARGE | {"hidden_size": 1920, "intermediate_size": 7680}


def whisper(width: int, blocks: int, heads: int, mels: int = 80) -> dict[str, Any]:
    return {
        "d_model": width,
        "encoder_layers": blocks,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "num_mel_bins": mels,
    }


# The published architectures, as the papers and the hub's configurations give them.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert_base": ("HubertConfig", {}),
    "hubert_large_ll60k": ("HubertConfig", LARGE | LAYER),
    "hubert_xlarge": ("HubertConfig", XLARGE),
    "distilhubert": ("HubertConfig", DISTIL),
    "mhubert_147": ("HubertConfig", {}),
    "wav2vec2_base_960": ("Wav2Vec2Config", {}),
    "wav2vec2_large_960": ("Wav2Vec2Config", LARGE),
    "wav2vec2_large_ll60k": ("Wav2Vec2Config", LARGE | LAYER),
    "wav2vec2_robust": ("Wav2Vec2Config", LARGE | LAYER),
    "xlsr_53": ("Wav2Vec2Config", LARGE | LAYER),
    "xls_r_300m": ("Wav2Vec2Config", LARGE | LAYER),
    "xls_r_1b": ("Wav2Vec2Config", XLARGE),
    "xls_r_2b": ("Wav2Vec2Config", XLS_R_2B),
    "wavlm_base": ("WavLMConfig", {}),
    "wavlm_base_plus": ("WavLMConfig", {}),
    "wavlm_large": ("WavLMConfig", LARGE | LAYER | {"conv_bias": False}),
    "unispeech_sat_base": ("UniSpeechSatConfig", {}),
    "unispeech_sat_base_plus": ("UniSpeechSatConfig", {}),
    "unispeech_sat_large": ("UniSpeechSatConfig", LARGE | LAYER),
    "data2vec_base_960": ("Data2VecAudioConfig", {}),
    "data2vec_large_ll60k": ("Data2VecAudioConfig", LARGE),
    "whisper_tiny": ("WhisperConfig", whisper(384, 4, 6)),
    "whisper_tiny.en": ("WhisperConfig", whisper(384, 4, 6)),
    "whisper_base": ("WhisperConfig", whisper(512, 6, 8)),
    "whisper_base.en": ("WhisperConfig", whisper(512, 6, 8)),
    "whisper_small": ("WhisperConfig", whisper(768, 12, 12)),
    "whisper_small.en": ("WhisperConfig", whisper(768, 12, 12)),
    "whisper_medium": ("WhisperConfig", whisper(1024, 24, 16)),
    "whisper_medium.en": ("WhisperConfig", whisper(1024, 24, 16)),
    "whisper_large": ("WhisperConfig", whisper(1280, 32, 20)),
    "whisper_large_v2": ("WhisperConfig", whisper(1280, 32, 20)),
    "whisper_large_v3": ("WhisperConfig", whisper(1280, 32, 20, mels=128)),
    "whisper_large_v3_turbo": ("WhisperConfig", whisper(1280, 32, 20, mels=128)),
    "moonshine_tiny": ("MoonshineConfig", {}),
    "moonshine_base": (
        "MoonshineConfig",
        {"hidden_size": 416, "intermediate_size": 1664, "encoder_num_hidden_layers": 8},
    ),
}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_size_in_the_list_is_the_architectures(name: str) -> None:
    kind, values = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**values)
    with torch.device("meta"):
        model = FAMILIES[find(name).family].model_class()(config)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert find(name).family == config.model_type
    assert find(name).parameters == pytest.approx(millions, abs=0.0501)


def test_every_encoder_has_a_size_and_a_licence() -> None:
    for _, entry in UPSTREAMS.items():
        assert entry.parameters is not None, entry.name
        assert entry.licence != "unknown", entry.name
        if entry.hub_id:
            assert entry.name in ARCHITECTURES


@pytest.mark.parametrize(
    ("alias", "hub_id"),
    [
        ("hubert", "facebook/hubert-base-ls960"),
        ("wav2vec2", "facebook/wav2vec2-base"),
        ("wavlm", "microsoft/wavlm-base"),
        ("data2vec", "facebook/data2vec-audio-base"),
        ("unispeech_sat", "microsoft/unispeech-sat-base"),
        ("whisper_large_v3", "openai/whisper-large-v3"),
        ("whisper_tiny.en", "openai/whisper-tiny.en"),
    ],
)
def test_names_lead_to_the_right_repository(alias: str, hub_id: str) -> None:
    assert find(alias).hub_id == hub_id


def test_wrong_names_answer_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean.*hubert_base"):
        find("hubert_bas")
    with pytest.raises(UserError, match="known prefixes are hf:, s3prl:"):
        find("nix:hubert")
    with pytest.raises(UserError, match="hf:ORG/NAME"):
        find("hf:hubert")
    with pytest.raises(UserError, match="unknown option of upstream.*'windows'.*window"):
        load("whisper_base", windows="30s")
