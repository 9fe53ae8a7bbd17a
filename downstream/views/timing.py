"""Shorter, faster, higher: an excerpt of a clip, another speed, tempo or pitch."""

from __future__ import annotations

import dataclasses

import numpy as np
import soxr

from emopeft.downstream.corpora.audio import SAMPLE_RATE
from emopeft.downstream.views.base import (
    Between,
    Clip,
    Samples,
    Transform,
    choice,
    option,
    register,
)
from emopeft.downstream.views.channel import fitted
from emopeft.downstream.views.library import Library

SHORTEST = 0.1  # seconds


@register
@dataclasses.dataclass(frozen=True)
class Excerpt(Transform):
    """One stretch of a clip; a clip that is not longer stays whole."""

    name = "excerpt"
    main = "seconds"
    summary = "so many seconds of a clip"

    seconds: Between = option("2", "of it", SHORTEST, 600)
    at: str = choice("middle", "where it lies", ("start", "middle", "end", "random"))

    def length(self, samples: int) -> int:
        return min(samples, round(self.seconds.value * SAMPLE_RATE))

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        length = self.length(len(wav))
        rest = len(wav) - length
        drawn = int(rng.integers(rest + 1))
        start = {"start": 0, "middle": rest // 2, "end": rest, "random": drawn}[self.at]
        return wav[start : start + length]


@register
@dataclasses.dataclass(frozen=True)
class Speed(Transform):
    """Played faster or slower: pitch and tempo change together, as of a tape."""

    name = "speed"
    summary = "played at another speed, pitch and tempo alike"

    rate: Between = option("0.9..1.1", "above 1: faster", 0.5, 2)

    def length(self, samples: int) -> int:
        return max(1, round(samples / self.rate.value))

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        played = soxr.resample(wav, self.rate.value * SAMPLE_RATE, SAMPLE_RATE, quality="HQ")
        return fitted(played, self.length(len(wav)))


@register
@dataclasses.dataclass(frozen=True)
class Stretch(Library):
    """Faster or slower at the same pitch."""

    name = "stretch"
    summary = "another tempo at the same pitch"

    rate: Between = option("0.9..1.1", "above 1: faster", 0.5, 2)

    def length(self, samples: int) -> int:
        return max(1, round(samples / self.rate.value))

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        made = self.made("TimeStretch", leave_length_unchanged=False)
        return fitted(self.run(made, wav, rate=self.rate.value), self.length(len(wav)))


@register
@dataclasses.dataclass(frozen=True)
class Pitch(Library):
    """Higher or lower at the same tempo."""

    name = "pitch"
    summary = "another pitch at the same tempo"

    semitones: Between = option("-2..2", "above 0: higher", -12, 12)

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        made = self.made("PitchShift")
        return fitted(self.run(made, wav, num_semitones=self.semitones.value), len(wav))
