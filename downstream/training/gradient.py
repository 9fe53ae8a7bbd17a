"""The gradient of a batch: shared among processes, split to fit the memory, taken on the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.batching import micro_batches
from emopeft.downstream.training.evaluating import precise
from emopeft.downstream.training.selection import shares
from emopeft.downstream.training.step_loss import StepLoss
from emopeft.numerics import stream


class BatchGradient:
    """How a model's gradient on a batch is computed; it does not depend on how.

    Args:
        model: as accelerate prepared it; plain: the same without.
        weights: index into the examples -> the utterance's weight in the loss.
        seed: of dropout.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        plain: AdaptedModel,
        examples: Examples,
        task: Task,
        weights: Mapping[int, float],
        keys: TrainKeys,
        seed: int,
        accelerator: Accelerator,
    ):
        self.model, self.plain, self.examples, self.task = model, plain, examples, task
        self.step_loss = StepLoss(task, keys)
        self.weights, self.keys, self.seed = weights, keys, seed
        self.accelerator = accelerator
        self.inputs: Iterator[Batch] | None = None  # what is read ahead
        self.anchor: Callable[[], Tensor] | None = None  # added to the loss of a step, once

    def learn(self, task: Task, examples: Examples) -> None:
        """From now on take the loss of ``task`` on the targets that ``examples`` have."""
        self.task, self.examples = task, examples
        self.step_loss = StepLoss(task, self.keys)

    def read_ahead(self, batches: Iterable[list[int]]) -> None:
        """From now on read and copy the inputs of a step while the one before is computed."""
        groups = ([batch[p] for p in group] for batch in batches for group in self.groups(batch)[0])
        self.inputs = self.examples.prefetch(groups, self.accelerator.device)

    def backward(self, batch: list[int], step: int) -> Tensor:
        """Leave the gradient of a batch's loss in the parameters; returns this process' part of
        the loss.

        Args:
            batch: indices into the examples. step: of the training, from 0.

        A loss that is a sum over utterances is taken group by group. Of any other the outputs of
        the whole batch are computed first, without a graph; its gradient is taken on them (see
        `StepLoss`), and each group is run again, with the same dropout, and propagates its rows.
        Groups hold places in the batch, in which an utterance may stand more than once.
        """
        world = self.accelerator.num_processes
        groups, has_examples = self.groups(batch)
        weights = torch.tensor([self.weights[i] for i in batch], dtype=torch.float64)
        share = shares(weights).tolist()
        rows: dict[int, Tensor] = {}
        whole = torch.zeros((), device=self.accelerator.device)
        one_part = world == 1 and len(groups) == 1 and self.step_loss.whole(len(batch))
        direct = self.task.additive or one_part
        if not direct:
            whole, rows = self._rows(batch, groups if has_examples else [], share, step)
        self.seed_dropout(step)
        total = torch.zeros((), device=self.accelerator.device)
        for number, group in enumerate(groups):
            inputs = self._next([batch[p] for p in group])
            last = number == len(groups) - 1
            # Gradients are exchanged once per step, at the last micro-batch.
            exchange = contextlib.nullcontext() if last else self.accelerator.no_sync(self.model)
            with exchange:
                outputs = precise(self.model(inputs))
                # Processes average their gradients: times their number gives the sum.
                if direct:
                    part = outputs.new_tensor([share[p] * world * has_examples for p in group])
                    loss = self.task.loss(outputs, inputs.targets.to(outputs.dtype), part)
                else:
                    zero = torch.zeros(outputs.shape[1])
                    gradient = torch.stack([rows.get(p, zero) for p in group]).to(outputs)
                    loss = (outputs * gradient).sum() * (world * has_examples)
                part_of_loss = loss.detach()
                for penalty in self._penalties() if last else []:
                    loss = loss + penalty
                self.accelerator.backward(loss)
            total += part_of_loss / world
        return total if direct else whole / world

    def _penalties(self) -> list[Tensor]:
        """What is added to the loss of a step, whatever its batch: it counts once, and is no part
        of the loss that is shown."""
        anchor = None if self.anchor is None else self.anchor()
        return [term for term in (self.plain.penalty(), anchor) if term is not None]

    def _next(self, group: list[int]) -> Batch:
        """The inputs of a micro-batch: those in flight, while the loop runs."""
        if self.inputs is None:
            return self.examples.batch(group, self.accelerator.device)
        return next(self.inputs)

    def groups(self, batch: list[int]) -> tuple[list[list[int]], bool]:
        """This process' share of a batch in micro-batches, as places in the batch, and whether it
        has one at all.

        Where there are fewer utterances than processes, the others take part in the exchange of
        gradients with weight zero.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        seconds = [self.examples.seconds[i] for i in batch]
        places = sorted(range(len(batch)), key=lambda p: (seconds[p], batch[p], p))[rank::world]
        if not places:
            return [[0]], False
        if self.examples.preloaded is not None:
            return [places], True
        return micro_batches(places, seconds, self.keys.batch_seconds), True

    def _rows(
        self, batch: list[int], groups: list[list[int]], share: list[float], step: int
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The loss of a whole batch, and its gradient at the outputs of each of its places."""
        self.seed_dropout(step)
        pairs: list[tuple[int, Tensor]] = []
        with torch.no_grad(), self.accelerator.autocast():
            for group in groups:
                inputs = self.examples.batch([batch[p] for p in group], self.accelerator.device)
                pairs += zip(group, precise(self.plain(inputs)).cpu(), strict=True)
        if self.accelerator.num_processes > 1:
            pairs = gather_object(pairs)
        outputs = dict(pairs)
        whole = torch.stack([outputs[p] for p in range(len(batch))])
        targets = self.examples.targets[batch].to(whole.dtype)
        weights = whole.new_tensor(share)
        loss, gradient = self.step_loss.gradient(whole[None], targets, weights)
        rows = dict(enumerate(gradient[0]))
        return loss[0].to(self.accelerator.device), rows

    def seed_dropout(self, step: int) -> None:
        """Dropout of a step depends on seed, step and process alone: the same in both passes of a
        batch, and in a training that was interrupted."""
        torch.manual_seed(stream("dropout", self.seed, step, self.accelerator.process_index))
