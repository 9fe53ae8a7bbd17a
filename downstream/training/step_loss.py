"""The loss of an optimiser step: of its whole batch, or of parts of it that the recipe names.

A loss that is no sum over utterances (CCC, RMSE) depends on the batch that it is taken on, which is
therefore a key of the recipe, ``train.loss_batch``, and no accident of memory or of the number of
processes. The parts are cut from the batch as it was drawn; each counts with its share of the
batch's weight.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.tasks.base import Task


class StepLoss:
    """A task's loss as a recipe takes it."""

    def __init__(self, task: Task, keys: TrainKeys):
        self.task = task
        # Of a sum over utterances the parts add up to the whole.
        self.size = None if task.additive else keys.loss_batch

    def whole(self, batch: int) -> bool:
        """Whether a batch of so many utterances is one part."""
        return self.size is None or batch <= self.size

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """As `Task.loss`."""
        if self.whole(outputs.shape[-2]):
            return self.task.loss(outputs, targets, weights)
        losses = [
            share * self.task.loss(outputs[..., part, :], targets[..., part, :], own)
            for part, own, share in self._parts(outputs.shape[-2], weights)
        ]
        return torch.stack(losses).sum(0)

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As `Task.gradient`."""
        if self.whole(outputs.shape[-2]):
            return self.task.gradient(outputs, targets, weights)
        losses, gradients = [], []
        for part, own, share in self._parts(outputs.shape[-2], weights):
            loss, gradient = self.task.gradient(outputs[:, part], targets[..., part, :], own)
            losses.append(share * loss)
            gradients.append(share[..., None, None] * gradient)
        return torch.stack(losses).sum(0), torch.cat(gradients, 1)

    def _parts(self, batch: int, weights: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Each part's place, its utterances' weights (adding up to 1), and its own share."""
        assert self.size is not None
        for begin in range(0, batch, self.size):
            part = slice(begin, begin + self.size)
            share = weights[..., part].sum(-1)
            # A part that weighs nothing (a filled-up batch) has a loss of some utterances times 0.
            own = weights[..., part] / torch.where(share > 0, share, 1.0).unsqueeze(-1)
            yield part, own, share
