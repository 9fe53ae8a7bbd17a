"""Masks: a stretch of time is silent, or a band of frequencies is not heard."""

from __future__ import annotations

import dataclasses

import numpy as np

from emopeft.downstream.corpora.audio import SAMPLE_RATE
from emopeft.downstream.views.base import Between, Clip, Samples, option, register
from emopeft.downstream.views.library import Library

LOWEST, HIGHEST = 100.0, 7000.0  # Hz, between which a masked band lies


@register
@dataclasses.dataclass(frozen=True)
class TimeMask(Library):
    """A stretch of silence (SpecAugment's time mask, Park et al. 2019, on the waveform)."""

    name = "timemask"
    summary = "a stretch of the clip is silent"

    share: Between = option("0..0.2", "of the clip", 0, 0.9)

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        length = round(self.share.value * len(wav))
        start = int(rng.integers(len(wav) - length + 1))
        return self.run(self.made("TimeMask"), wav, t=length, t0=start)


@register
@dataclasses.dataclass(frozen=True)
class FrequencyMask(Library):
    """A band that is filtered out, its centre drawn evenly in mel (SpecAugment's frequency mask,
    Park et al. 2019, on the waveform)."""

    name = "freqmask"
    summary = "a band of frequencies is filtered out"

    width: Between = option("0.2..0.6", "of the band, in parts of its centre", 0.05, 1.5)

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        # Its upper edge has to stay below half the sample rate.
        most = min(HIGHEST, 0.99 * SAMPLE_RATE / 2 / (1 + self.width.value / 2))
        centre = _hertz(float(rng.uniform(_mel(LOWEST), _mel(most))))
        made = self.made("BandStopFilter", zero_phase=True, min_rolloff=24, max_rolloff=24)
        return self.run(
            made, wav, center_freq=centre, bandwidth=self.width.value * centre, rolloff=24
        )


def _mel(hertz: float) -> float:
    return 2595 * float(np.log10(1 + hertz / 700))


def _hertz(mel: float) -> float:
    return 700 * float(10 ** (mel / 2595) - 1)
