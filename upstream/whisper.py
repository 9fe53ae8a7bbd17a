"""Whisper encoders: work in proportion to the clip, padded frames masked.

transformers pads every clip to 30 s, ten times the work for 3 s, and masks nothing (trap 7). Here
the log-mel spectrogram is taken of the clip alone, the positions are sliced to it (as PEFT-SER
does), and padded frames are not attended to. ``window=30s`` gives transformers' padded window, all
of its 1500 frames counting as valid. Positions end at 30 s: of longer clips the first 30 s are
used, and the log says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emopeft.errors import UserError
from emopeft.upstream.base import SAMPLE_RATE
from emopeft.upstream.catalogue import Entry, register
from emopeft.upstream.hub import FAMILIES, Family, load_transformers
from emopeft.upstream.states import by_length, mask_of, pad
from emopeft.upstream.transformers_base import TransformersUpstream, numbers

logger = logging.getLogger(__name__)

FFT = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
WINDOWS = ("clip", "30s")


class WhisperUpstream(TransformersUpstream):
    """A Whisper encoder.

    ``extract`` is the log-mel spectrogram and the two convolutions, ``embed`` adds the positions,
    which are fixed sinusoids and never train.

    Args:
        model: a ``WhisperEncoder``.
        preprocessor: ignored; the number of mel bands is in the model's configuration.
        window: "clip" or "30s".
    """

    max_samples: int
    attention = "self_attn"
    norms = ("self_attn_layer_norm", "final_layer_norm")
    mel_filters: Tensor
    hann: Tensor

    def __init__(
        self,
        model: nn.Module,
        preprocessor: dict[str, Any] | None = None,
        window: str = "clip",
    ):
        from transformers.audio_utils import mel_filter_bank

        super().__init__(model)
        if window not in WINDOWS:
            raise UserError(f"window={window} must be one of {', '.join(WINDOWS)}")
        config = self.model.config
        self.width = config.d_model
        self.num_blocks = config.encoder_layers
        self.window = window
        self.stride = 2 * HOP
        self.min_samples = FFT // 2 + 1  # the spectrogram mirrors half a window at each end
        self.most_frames = config.max_source_positions
        self.max_samples = self.most_frames * self.stride
        self.options = numbers(
            config, "model_type encoder_attention_heads activation_function num_mel_bins"
        ) | {"window": window}
        self.roles = {
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.out_proj",
            "fc1": "fc1",
            "fc2": "fc2",
        }
        filters = mel_filter_bank(
            num_frequency_bins=1 + FFT // 2,
            num_mel_filters=config.num_mel_bins,
            min_frequency=0.0,
            max_frequency=8000.0,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer(
            "mel_filters", torch.from_numpy(filters).float().T.contiguous(), persistent=False
        )
        self.register_buffer("hann", torch.hann_window(FFT), persistent=False)
        self._warned = False

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.layers

    def parts(self) -> dict[str, list[nn.Module]]:
        return {
            "extract": [self.model.conv1, self.model.conv2],
            "embed": [],
            "finish": [self.model.layer_norm],
        }

    def frames_of(self, samples: int) -> int:
        if self.window == "30s":
            return self.most_frames
        return (min(samples, self.max_samples) // HOP + 1) // 2

    def log_mel(self, wavs: Tensor) -> Tensor:
        """Waveforms (batch, samples) to log-mel spectrograms (batch, bands, samples // 160).

        As `WhisperFeatureExtractor`: floor 8 (a factor 10^8) below each clip's maximum.
        """
        with torch.autocast(wavs.device.type, enabled=False):
            if self.traced:
                mel = F.conv1d(self._convolved_power(wavs), self.mel_filters[..., None])
            else:
                spectrum = torch.stft(wavs, FFT, HOP, window=self.hann, return_complex=True)
                mel = self.mel_filters @ (spectrum[..., :-1].abs() ** 2)
            log = mel.clamp(min=1e-10).log10()
            log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
            return (log + 4.0) / 4.0

    def _convolved_power(self, wavs: Tensor) -> Tensor:
        """The power spectrum (batch, bins, samples // 160) by a convolution with windowed waves.

        Graphs have it so: runtimes are slow at Fourier transforms of 400 points, and products with
        weights, which may be rounded to eight bits, are left to the encoder.
        """
        times = torch.arange(FFT, dtype=torch.float64)
        angles = 2 * torch.pi / FFT * torch.outer(torch.arange(1 + FFT // 2).double(), times)
        window = torch.hann_window(FFT, dtype=torch.float64)
        waves = torch.cat([angles.cos(), angles.sin()]) * window
        kernels = waves.to(wavs.device, torch.float32)[:, None]
        mirrored = F.pad(wavs[:, None], (FFT // 2, FFT // 2), mode="reflect")
        real, imaginary = F.conv1d(mirrored, kernels, stride=HOP)[..., :-1].chunk(2, dim=1)
        return real.square() + imaginary.square()

    def extract(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        cut = [x.to(self.device, torch.float32)[: self.max_samples] for x in wavs]
        if not (self._warned or self.traced) and any(len(x) > self.max_samples for x in wavs):
            self._warned = True
            logger.warning(
                "%s takes at most %.0f s: of longer clips only the first %.0f s are used",
                getattr(self, "name", "Whisper"),
                self.max_samples / SAMPLE_RATE,
                self.max_samples / SAMPLE_RATE,
            )
        if self.window == "30s":
            cut = [F.pad(x, (0, self.max_samples - x.shape[0])) for x in cut]
        if not len(self.inside_front) and self.as_one_batch(cut):
            return self._extract_padded(cut)
        return by_length(self._extract, cut)

    def _extract_padded(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """As `_extract`, of clips of different lengths at once: each sees its own end only."""
        log, frames = self.padded_log_mel(wavs)
        first = F.gelu(self.model.conv1(log))
        states = F.gelu(self.model.conv2(first.masked_fill(~frames[:, None], 0.0))).transpose(1, 2)
        return [x[: self.frames_of(len(w))] for x, w in zip(states, wavs, strict=True)]

    def padded_log_mel(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`log_mel` of clips of different lengths, (batch, bands, frames), zero beyond each.

        Returns:
            the spectrograms and which of their frames are the clips', (batch, frames).
        """
        with torch.autocast(wavs[0].device.type, enabled=False):
            # The spectrogram mirrors half a window at both ends: of each clip, not of the batch.
            ends = (FFT // 2, FFT // 2)
            mirrored = pad([F.pad(x[None], ends, mode="reflect")[0] for x in wavs]).frames
            spectrum = torch.stft(
                mirrored, FFT, HOP, window=self.hann, center=False, return_complex=True
            )
            mel = self.mel_filters @ (spectrum[..., :-1].abs() ** 2)
            counts = torch.tensor([len(x) // HOP for x in wavs], device=mel.device)
            valid = mask_of(counts, mel.shape[2])
            log = mel.clamp(min=1e-10).log10().masked_fill(~valid[:, None], float("-inf"))
            log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
            return ((log + 4.0) / 4.0).masked_fill(~valid[:, None], 0.0), valid

    def _extract(self, wavs: Tensor) -> Tensor:
        frames = F.gelu(self.model.conv1(self.log_mel(wavs)))
        return F.gelu(self.model.conv2(frames)).transpose(1, 2)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        positions = self.model.embed_positions.weight
        return [
            F.dropout(x + positions[: x.shape[0]], p=self.model.dropout, training=self.training)
            for x in features
        ]

    def run_block(self, i: int, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.blocks[i](frames, self.attention_mask(lengths, frames.shape[1]))

    def finish(self, frames: Tensor) -> Tensor:
        return self.model.layer_norm(frames)


# Checkpoints of the whole model carry the encoder under "model.encoder." or "encoder.".
FAMILIES["whisper"] = Family(
    "whisper.modeling_whisper:WhisperEncoder",
    WhisperUpstream,
    renamed=("model.encoder.", "encoder."),
)

# name after "whisper_", million parameters of the encoder, aliases
for _size, _millions, _aliases in (
    ("tiny", 8.2, ()),
    ("tiny.en", 8.2, ()),
    ("base", 20.6, ()),
    ("base.en", 20.6, ()),
    ("small", 88.2, ()),
    ("small.en", 88.2, ()),
    ("medium", 307.2, ()),
    ("medium.en", 307.2, ()),
    ("large", 636.8, ("whisper_large_v1",)),
    ("large_v2", 636.8, ()),
    ("large_v3", 637.0, ()),
    ("large_v3_turbo", 637.0, ("whisper_turbo",)),
):
    register(
        Entry(
            name=f"whisper_{_size}",
            family="whisper",
            load=load_transformers,
            hub_id=f"openai/whisper-{_size.replace('_', '-')}",
            licence="MIT",
            parameters=_millions,
            aliases=_aliases,
            options={"window": "clip: in proportion to the clip (default); 30s: padded to 30 s"},
        )
    )
