"""The frozen part computed anew for every batch, padded and masked, nothing kept on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.feature_cache.batch import Batch
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
    paths: list[Path]
    numerics: Numerics = dataclasses.field(default_factory=Numerics)
    decoded: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    samples: int = 0

    def wav(self, i: int) -> Tensor:
        """A waveform (samples,) on the CPU, decoded once as long as memory allows."""
        if i in self.decoded:
            return self.decoded[i]
        wav = torch.from_numpy(decode(self.paths[i], SAMPLE_RATE))
        if self.samples + len(wav) <= HELD_SAMPLES:
            self.decoded[i] = wav
            self.samples += len(wav)
        return wav

    def waveforms(self, indices: Sequence[int], targets: Tensor) -> Batch:
        """The waveforms of some utterances, as what `inputs` makes a batch of."""
        return Batch([], [self.wav(i) for i in indices], targets)

    def inputs(self, waveforms: Batch) -> Batch:
        """What a model takes, on the device of the waveforms."""
        wavs, targets = waveforms.start_inputs, waveforms.targets
        device = wavs[0].device
        with self.numerics.freezing(device):
            start_inputs, below = self.upstream.prefix(self.start, wavs)
        if not below.layers:
            states = empty_states(self.upstream, self.pooled, len(wavs), device)
            return Batch(states, start_inputs, targets)
        return Batch(
            below.means() if self.pooled else per_utterance(below, False), start_inputs, targets
        )

    def batch(self, indices: Sequence[int], targets: Tensor, device: torch.device | str) -> Batch:
        """The inputs of some utterances on a device."""
        return self.inputs(self.waveforms(indices, targets).to(torch.device(device)))
