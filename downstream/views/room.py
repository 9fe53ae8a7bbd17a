"""Reverberation: a room's impulse response, synthesised or recorded."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.signal import fftconvolve

from emopeft.downstream.corpora.audio import SAMPLE_RATE, decode
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

DECAY = 3 * np.log(10)  # of the amplitude, in the time in which the power falls by 60 dB


@register
@dataclasses.dataclass(frozen=True)
class Reverb(Transform):
    """The clip in a room, as loud as before and as long: what sounds on behind it is cut.

    Without a folder the response is the direct sound and, behind it, noise that decays by 60 dB in
    ``rt60`` seconds (Polack 1988, doctoral thesis, Université du Maine), together ``drr`` dB less
    powerful than the direct sound.
    """

    name = "reverb"
    main = "rt60"
    summary = "a room: synthetic reverberation, or impulse responses of a folder"

    rt60: Between = option("0.6", "seconds in which the power falls by 60 dB", 0.05, 10)
    drr: Between = option("0", "dB, direct sound against reverberation", -30, 60)
    folder: str = choice("", "impulse responses to take in its place, at any depth")

    def outside(self) -> str:
        return digest_of(self.folder) if self.folder else ""

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        if self.folder:
            files = files_in(self.folder)
            response = decode(files[int(rng.integers(len(files)))], minimum=0.0).astype(np.float64)
            response = response[int(np.argmax(np.abs(response))) :]  # from the direct sound on
        else:
            response = impulse_response(self.rt60.value, self.drr.value, rng)
        heard = fftconvolve(wav.astype(np.float64), response)[: len(wav)]
        before, after = (np.sqrt(np.mean(np.square(x, dtype=np.float64))) for x in (wav, heard))
        return (heard * (before / after if after > 0 else 1.0)).astype(np.float32)


def impulse_response(rt60: float, drr: float, rng: np.random.Generator) -> np.ndarray:
    """Direct sound 1 and a decaying tail (samples,), see `Reverb`."""
    time = np.arange(1, round(rt60 * SAMPLE_RATE) + 1) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * np.exp(-DECAY * time / rt60)
    tail *= np.sqrt(10.0 ** (-drr / 10) / np.sum(tail**2))
    return np.concatenate([[1.0], tail])
