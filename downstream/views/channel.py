"""What a channel does to a clip: its level, a telephone's band, a codec."""

from __future__ import annotations

import dataclasses
import io
from typing import Any, ClassVar

import numpy as np
import soundfile
import soxr
from scipy.signal import butter, sosfiltfilt

from emopeft.downstream.corpora.audio import SAMPLE_RATE
from emopeft.downstream.views.base import Between, Clip, Samples, Transform, option, register

NARROW = 8000  # Hz, sample rate of a telephone
ORDER = 8  # of the telephone's band-pass, forwards and backwards as one


@register
@dataclasses.dataclass(frozen=True)
class Gain(Transform):
    """Louder or softer."""

    name = "gain"
    summary = "another level"

    db: Between = option("-6..6", "dB", -60, 60)

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        return wav * np.float32(10.0 ** (self.db.value / 20))


@register
@dataclasses.dataclass(frozen=True)
class Telephone(Transform):
    """A narrow-band telephone: ``low`` to ``high`` Hz at 8 kHz (ITU-T G.712's band)."""

    name = "telephone"
    summary = "the band of a telephone, at 8 kHz"

    low: Between = option("300", "Hz", 20, 1500)
    high: Between = option("3400", "Hz", 1600, 3900)

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        band = butter(
            ORDER // 2, [self.low.value, self.high.value], "bandpass", fs=SAMPLE_RATE, output="sos"
        )
        # Both ways: no delay. What padding is for is longer than some clips are.
        passed = sosfiltfilt(band, wav.astype(np.float64), padlen=min(len(wav) - 1, 800))
        narrow = soxr.resample(passed, SAMPLE_RATE, NARROW, quality="HQ")
        return fitted(soxr.resample(narrow, NARROW, SAMPLE_RATE, quality="HQ"), len(wav))


class Codec(Transform):
    """Written by libsndfile in a lossy format, and read again; as long and as early as before."""

    container: ClassVar[str]
    coding: ClassVar[str]
    rates: ClassVar[tuple[float, float]]  # kbit/s at compression level 1 and 0
    extra: ClassVar[dict[str, str]] = {}
    delay: ClassVar[int] = 0  # samples, of an encoder that could not say how long it is

    kbps: Between

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        loudest = max(1.0, float(np.abs(wav).max(initial=0.0)))
        coded = self.coded(wav / loudest)
        decoded, rate = soundfile.read(io.BytesIO(coded), dtype="float32", always_2d=True)
        mono = decoded[:, 0]
        if rate != SAMPLE_RATE:
            mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
        if len(mono) > len(wav):
            mono = mono[self.delay :]
        return fitted(mono, len(wav)) * np.float32(loudest)

    def coded(self, wav: Samples) -> bytes:
        """The file that a waveform of at most full scale is written as."""
        least, most = self.rates
        level = 1 - (self.kbps.value - least) / (most - least)
        file = io.BytesIO()
        soundfile.write(
            file, wav, SAMPLE_RATE, format=self.container, subtype=self.coding,
            compression_level=min(max(level, 0.0), 0.999), **self.extra,
        )  # fmt: skip
        return file.getvalue()

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"library": {"libsndfile": soundfile.__libsndfile_version__}}


@register
@dataclasses.dataclass(frozen=True)
class Mp3(Codec):
    """MPEG-2 layer III at a constant bit rate, of those that there are the nearest."""

    name = "mp3"
    main = "kbps"
    summary = "an MP3 of so many kbit/s"
    container, coding, rates = "MP3", "MPEG_LAYER_III", (8.0, 160.0)
    extra = {"bitrate_mode": "CONSTANT"}
    # LAME's, where a file at a low rate has no room for the frame that would tell of it.
    delay = 1105

    kbps: Between = option("16", "kbit/s", 8, 160)


@register
@dataclasses.dataclass(frozen=True)
class Opus(Codec):
    """Opus (RFC 6716) at a nominal rate; silence takes less."""

    name = "opus"
    main = "kbps"
    summary = "Opus of so many kbit/s"
    container, coding, rates = "OGG", "OPUS", (6.0, 256.0)

    kbps: Between = option("16", "kbit/s", 6, 128)


def fitted(wav: np.ndarray, samples: int) -> Samples:
    """Cut or filled up with silence to so many samples."""
    return np.pad(wav[:samples], (0, max(0, samples - len(wav)))).astype(np.float32)
