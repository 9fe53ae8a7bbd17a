"""Whisper's log-mel spectrogram and windows, against transformers' feature extractor."""

from __future__ import annotations

import logging

import pytest
import torch
import transformers

from emopeft.upstream.whisper import WhisperUpstream
from tests.tiny import plain, tiny


def whisper(**options: str) -> WhisperUpstream:
    upstream = tiny("whisper", **options)
    assert isinstance(upstream, WhisperUpstream)
    return upstream


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("samples", [201, 480, 16000, 12345])
def test_log_mel_of_the_clip_alone(samples: int) -> None:
    extractor = transformers.WhisperFeatureExtractor()
    theirs = extractor(
        noise(samples).numpy(), sampling_rate=16000, padding="longest", return_tensors="pt"
    ).input_features
    ours = whisper().log_mel(noise(samples)[None])
    assert ours.shape == theirs.shape == (1, 80, samples // 160)
    assert float((ours - theirs).abs().max()) <= 1e-6


def test_each_clip_has_its_own_maximum() -> None:
    upstream = whisper()
    loud, quiet = noise(8000), 1e-3 * noise(8000)
    together = upstream.log_mel(torch.stack([loud, quiet]))
    assert torch.allclose(together[1], upstream.log_mel(quiet[None])[0], atol=1e-6)
    assert float(together[1].max()) < float(together[0].max())


def test_log_mel_is_the_same_under_autocast() -> None:
    upstream = whisper()
    with torch.autocast("cpu", torch.bfloat16):
        rough = upstream.log_mel(noise(8000)[None])
    assert torch.equal(rough, upstream.log_mel(noise(8000)[None]))


def test_the_30_s_window_counts_all_frames() -> None:
    upstream = whisper(window="30s")
    states = upstream([noise(16000), noise(4000)])
    assert states.lengths.tolist() == [1500, 1500]
    assert upstream.frames_of(16000) == 1500
    assert upstream.options["window"] == "30s" != whisper().options["window"]


@pytest.mark.parametrize("window", ["clip", "30s"])
def test_longer_clips_are_cut_and_said_once(window: str, caplog: pytest.LogCaptureFixture) -> None:
    upstream = whisper(window=window)
    long = noise(31 * 16000)
    with caplog.at_level(logging.WARNING, logger="emopeft.upstream.whisper"):
        states = upstream([long])
        upstream([long])
    assert states.lengths.tolist() == [1500] == [upstream.frames_of(len(long))]
    assert len(caplog.records) == 1 and "30 s" in caplog.text
    assert torch.equal(states.layers[-1], upstream([long[: 30 * 16000]]).layers[-1])


def test_work_is_in_proportion_to_the_clip() -> None:
    seen: list[int] = []
    upstream = whisper()
    upstream.model.conv1.register_forward_hook(lambda m, x, y: seen.append(x[0].shape[-1]))
    upstream([noise(48000)])
    assert seen == [300]  # 3 s: not transformers' 3000 frames


def test_positions_stay_fixed() -> None:
    upstream = whisper()
    assert upstream.parts()["embed"] == []
    positions = upstream.model.embed_positions.weight
    one, two = upstream.embed([torch.zeros(5, 32), torch.zeros(9, 32)])
    assert torch.equal(one, positions[:5]) and torch.equal(two, positions[:9])


def test_bands_follow_the_configuration() -> None:
    model = plain("whisper")
    model.config.num_mel_bins = 128
    model.conv1 = torch.nn.Conv1d(128, 32, 3, padding=1)
    upstream = WhisperUpstream(model)
    theirs = transformers.WhisperFeatureExtractor(feature_size=128)(
        noise(8000).numpy(), sampling_rate=16000, padding="longest", return_tensors="pt"
    ).input_features
    assert float((upstream.log_mel(noise(8000)[None]) - theirs).abs().max()) <= 1e-6
