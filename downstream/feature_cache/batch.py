"""A batch: the inputs of some utterances and their targets, on one device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor


@dataclasses.dataclass
class Batch:
    """Inputs of some utterances.

    Attributes:
        states: what is already known of the states below ``start``: their time means
            (batch, states, width), or for a head that needs frames, per utterance
            (states, time, width). All L+1 states when everything is frozen.
        start_inputs: per utterance what `Upstream.forward_from` starts from (empty when all is
            frozen).
        targets: (batch, targets), see `downstream.tasks.base.Task.target`.
        owners: where utterances are taken in several stretches, whose outputs are averaged: of
            each input the place of its utterance in the batch (inputs,).
        waveforms: whether ``start_inputs`` are waveforms, of which the frozen part is still to be
            computed.
    """

    states: Tensor | list[Tensor]
    start_inputs: list[Tensor]
    targets: Tensor
    owners: Tensor | None = None
    waveforms: bool = False

    def tensors(self) -> list[Tensor]:
        """All of it."""
        states = [self.states] if isinstance(self.states, Tensor) else self.states
        owners = [] if self.owners is None else [self.owners]
        return [*states, *self.start_inputs, self.targets, *owners]

    def to(self, device: torch.device) -> Batch:
        """On a device. To a GPU the copies go through pinned memory and are not waited for."""
        if device.type == "cuda":
            return self._map(lambda t: _pinned(t).to(device, non_blocking=True))
        return self._map(lambda t: t.to(device))

    def _map(self, place: Callable[[Tensor], Tensor]) -> Batch:
        states: Tensor | list[Tensor]
        if isinstance(self.states, Tensor):
            states = place(self.states)
        else:
            states = [place(t) for t in self.states]
        owners = None if self.owners is None else place(self.owners)
        start_inputs = [place(t) for t in self.start_inputs]
        return Batch(states, start_inputs, place(self.targets), owners, self.waveforms)

    def averaged(self, outputs: Tensor) -> Tensor:
        """Outputs (inputs, outputs) as those of the utterances (batch, outputs)."""
        if self.owners is None:
            return outputs
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        sums = outputs.new_zeros(len(self.targets), outputs.shape[1])
        counts = torch.bincount(self.owners, minlength=len(self.targets))
        return sums.index_add(0, self.owners, outputs) / counts[:, None]


def _pinned(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_cuda or tensor.is_pinned() else tensor.pin_memory()
