"""The loss of an optimiser step: of its whole batch, or of parts of it that the recipe names.

A loss that is no sum over utterances (CCC, RMSE) depends on the batch that it is taken on, which is
therefore a key of the recipe, ``train.loss_batch``, and no accident of memory or of the number of
processes. The parts are cut from the batch as it was drawn; each counts with its share of the
batch's weight.
"""

from __future__ import annotations

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

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As `Task.gradient`; the parts are so many more models to the task."""
        models, batch = outputs.shape[:2]
        if self.whole(batch):
            return self.task.gradient(outputs, targets, weights)
        targets, weights = targets.expand(models, -1, -1), weights.expand(models, -1)
        losses, gradients = [], []
        for part, size in self._cuts(batch):
            own, share = _normalised(weights[:, part].unflatten(1, (-1, size)))
            loss, gradient = self.task.gradient(
                outputs[:, part].unflatten(1, (-1, size)).flatten(0, 1),
                targets[:, part].unflatten(1, (-1, size)).flatten(0, 1),
                own.flatten(0, 1),
            )
            losses.append((loss.view_as(share) * share).sum(1))
            gradient = gradient * share.flatten()[:, None, None]
            gradients.append(gradient.unflatten(0, (models, -1)).flatten(1, 2))
        return torch.stack(losses).sum(0), torch.cat(gradients, 1)

    def _cuts(self, batch: int) -> list[tuple[slice, int]]:
        """Where the whole parts stand, all together, and where the rest; with the parts' size."""
        assert self.size is not None
        end = batch - batch % self.size
        cuts = [(slice(0, end), self.size), (slice(end, batch), batch - end)]
        return [(part, size) for part, size in cuts if size]


def _normalised(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of parts (..., parts, size), each part's adding up to 1, and the parts' shares.

    A part that weighs nothing (a filled-up batch) has weights of 0.
    """
    share = weights.sum(-1)
    return weights / torch.where(share > 0, share, 1.0).unsqueeze(-1), share
