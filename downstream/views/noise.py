"""Noise at a signal-to-noise ratio: white, pink or brown, recordings of a folder, or voices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.views.base import (
    Between,
    Clip,
    Samples,
    Transform,
    choice,
    option,
    register,
)
from emopeft.downstream.views.folders import digest_of, files_in
from emopeft.errors import UserError

SNR = (-30.0, 60.0)  # dB
EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power falls as 1 / f^exponent


@register
@dataclasses.dataclass(frozen=True)
class Noise(Transform):
    """Noise over the whole clip; the ratio is that of mean powers, of the clip and of the noise."""

    name = "noise"
    main = "snr"
    summary = "white, pink or brown noise, or recordings of a folder, at a signal-to-noise ratio"

    snr: Between = option("10", "dB", *SNR)
    kind: str = choice("white", "of the noise", tuple(EXPONENTS))
    folder: str = choice("", "recordings to take in its place, at any depth")

    def outside(self) -> str:
        return digest_of(self.folder) if self.folder else ""

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        if self.folder:
            files = files_in(self.folder)
            noise = looped(decode(files[int(rng.integers(len(files)))]), len(wav), rng)
        else:
            noise = coloured(len(wav), EXPONENTS[self.kind], rng)
        return at_snr(wav, noise, self.snr.value)


@register
@dataclasses.dataclass(frozen=True)
class Babble(Transform):
    """Several other speakers at once, each as loud as the others, together at a ratio."""

    name = "babble"
    main = "snr"
    summary = "voices of other speakers (of the training part) at a signal-to-noise ratio"
    crowded = True

    snr: Between = option("10", "dB", *SNR)
    voices: Between = option("5", "how many at once", 1, 100)

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        voices = list(self._voices(wav, rng, clip))
        return at_snr(wav, np.sum(voices, 0), self.snr.value)

    def _voices(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Iterator[Samples]:
        """Clips of other speakers, each of mean power 1 over the length of the clip."""
        others = [v for v in (clip.crowd.voices if clip.crowd else ()) if v.speaker != clip.speaker]
        if not others:
            raise UserError(
                "babble is made of other speakers' clips, and there are none here; take noise, or "
                "noise:folder=DIR"
            )
        for number in rng.integers(len(others), size=round(self.voices.value)):
            voice = looped(decode(others[int(number)].path), len(wav), rng)
            power = float(np.mean(np.square(voice, dtype=np.float64)))
            if power > 0:
                yield voice / np.sqrt(power)


def at_snr(wav: Samples, noise: np.ndarray, snr: float) -> Samples:
    """A waveform with noise of the same length, so loud that the ratio of their mean powers is
    ``snr`` dB. Silence stays silence, and noise that is silent adds nothing."""
    signal = float(np.mean(np.square(wav, dtype=np.float64)))
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    if not signal or not power:
        return wav.copy()
    factor = np.sqrt(signal / power) * 10.0 ** (-snr / 20)
    return (wav + noise * factor).astype(np.float32)


def coloured(samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (samples,) whose power falls as 1 / f^exponent."""
    white = rng.standard_normal(samples)
    if not exponent or samples < 2:
        return white
    spectrum = np.fft.rfft(white)
    frequency = np.fft.rfftfreq(samples)
    frequency[0] = frequency[1]
    return np.fft.irfft(spectrum * frequency ** (-exponent / 2), samples)


def looped(wav: Samples, samples: int, rng: np.random.Generator) -> Samples:
    """So many samples of a waveform that is repeated, from a place that is drawn."""
    start = int(rng.integers(len(wav)))
    repeated = np.resize(np.roll(wav, -start), samples)
    return repeated
