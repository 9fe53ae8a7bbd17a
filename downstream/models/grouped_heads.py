"""Heads of several folds and seeds as one stack: each group of them on its own batches.

What `StackedHeads` computes for one batch is computed here for all groups at once, by stacked
products, and the optimiser is one call over all rows: a device that is quick only with much to do
at a time (a GPU) then trains all frozen probes of a run in one stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

from emopeft.downstream.models.stacked_heads import DEFAULTS, FUSED, LARGE, Loss, StackedHeads


class GroupedHeads(StackedHeads):
    """The heads of several stacks of one shape, which then train together.

    Args:
        stacks: one per group.
        places: of each stack, where in its group its copies stand.
        size: how many places a group has; those that nobody takes are computed and mean nothing.

    The rows of group g are g * size to (g + 1) * size - 1.
    """

    def __init__(self, stacks: Sequence[StackedHeads], places: Sequence[Sequence[int]], size: int):
        like = stacks[0]
        self.keys, self.skip, self.shapes, self.mask = like.keys, like.skip, like.shapes, like.mask
        every = like.rows.new_zeros(3, len(stacks) * size, like.rows.shape[1])
        steps = [torch.zeros((), device=every.device) for _ in range(every.shape[1])]
        for group, (stack, where) in enumerate(zip(stacks, places, strict=True)):
            for copy, place in enumerate(where):
                row = group * size + place
                every[0, row] = stack.rows[copy]
                every[1, row] = stack.first[copy]
                every[2, row] = stack.second[copy]
                steps[row] = stack.steps[copy]
        self._set(*every)
        self.steps = steps

    def _make_room(self) -> None:
        """For the gradients of all copies, and for what Adam would change at rate 1."""
        self.gradient, self.change = torch.zeros_like(self.rows), torch.zeros_like(self.rows)
        self.small = self.gradient[:, self.shapes[LARGE].numel() :]
        self.large = self._views(self.gradient)[LARGE]
        every = self.change, self.gradient, self.first, self.second
        self.lists = [list(tensor.unbind()) for tensor in every]

    def part(self, which: list[int]) -> StackedHeads:
        """Some rows as a stack of their own, as they stand now; it shares nothing with this one."""
        part = StackedHeads.__new__(StackedHeads)
        part.keys, part.skip, part.shapes, part.mask = self.keys, self.skip, self.shapes, self.mask
        part._set(self.rows[which], self.first[which], self.second[which])
        part.steps = [self.steps[i].clone() for i in which]
        return part

    def step_all(self, means: Tensor, loss: Loss, rates: Tensor) -> Tensor:
        """One optimiser step of every copy on its group's batch.

        Args:
            means: (groups, batch, states, width).
            loss: of the outputs of all copies (copies, batch, outputs), group after group; see
                `StackedHeads.step`.
            rates: the learning rate of each copy (copies,); one of rate 0 does not change.

        Returns:
            the losses before the step: (copies,).
        """
        losses, left, right = self._backward(means, loss)
        torch.bmm(left.mT, right, out=self.large)
        self._update_all(rates[:, None])
        torch.bmm(self.views["classifier.weight"], self.views[LARGE], out=self.folded)
        return losses

    def _update_all(self, rates: Tensor) -> None:
        """The optimiser on all copies; rates (copies, 1)."""
        decay = self.keys.weight_decay
        if self.keys.optimizer == "adamw":
            self.rows.mul_(1 - rates * decay)
        elif decay:
            self.gradient.add_(self.rows, alpha=decay)
        if self.keys.optimizer == "sgd":
            self.rows.addcmul_(self.gradient, rates, value=-1)
            return
        # torch's takes one rate for all rows: what it changes at rate 1 is then scaled.
        self.change.zero_()
        changes, gradients, first, second = self.lists
        adam(
            changes, gradients, first, second, [], self.steps,
            fused=self.rows.device.type in FUSED, lr=1.0, weight_decay=0.0, **DEFAULTS,
        )  # fmt: skip
        self.rows.addcmul_(self.change, rates)
