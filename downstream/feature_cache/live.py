"""The frozen part computed anew for every batch, padded and masked, nothing kept on disk."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.excerpts import Excerpt
from emopeft.downstream.feature_cache.frozen import empty_states, per_utterance
from emopeft.numerics import Numerics
from emopeft.upstream.base import SAMPLE_RATE, Upstream

HELD_SAMPLES = SAMPLE_RATE * 3600 * 4  # waveforms kept in memory


@dataclasses.dataclass
class Live:
    """Makes batches from the audio itself.

    Attributes:
        numerics: how the frozen part is computed, whatever the training around it does.
    """

    upstream: Upstream
    start: int
    pooled: bool
    numerics: Numerics = dataclasses.field(default_factory=Numerics)
    decoded: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    samples: int = 0

    def wav(self, excerpt: Excerpt) -> Tensor:
        """A waveform (samples,) on the CPU, decoded once as long as memory allows."""
        if excerpt.name in self.decoded:
            return self.decoded[excerpt.name]
        wav = excerpt.read()
        if excerpt.kept and self.samples + len(wav) <= HELD_SAMPLES:
            self.decoded[excerpt.name] = wav.clone() if excerpt.span else wav
            self.samples += len(wav)
        return wav

    def inputs(self, waveforms: Batch) -> Batch:
        """What a model takes, of a batch of waveforms, on their device."""
        wavs, targets, owners = waveforms.start_inputs, waveforms.targets, waveforms.owners
        device = wavs[0].device
        with self.numerics.freezing(device):
            start_inputs, below = self.upstream.prefix(self.start, wavs)
        if not below.layers:
            states = empty_states(self.upstream, self.pooled, len(wavs), device)
            return Batch(states, start_inputs, targets, owners)
        return Batch(
            below.means() if self.pooled else per_utterance(below, False),
            start_inputs, targets, owners,
        )  # fmt: skip
