"""Training of one fold with one seed: steps, evaluation on dev, the best state, resuming."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.models.checkpoint import read_progress, write_progress
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.batching import epoch_order, micro_batches
from emopeft.downstream.training.curves import draw
from emopeft.downstream.training.evaluating import outputs_of, precise
from emopeft.downstream.training.interruption import asked, deferred
from emopeft.downstream.training.memory import save_memory_and_time
from emopeft.downstream.training.progress import put_back, snapshot
from emopeft.downstream.training.selection import (
    Fit,
    Selection,
    check_loss,
    rate_factor,
    selected,
    shares,
)
from emopeft.downstream.training.step_loss import StepLoss
from emopeft.errors import UserError
from emopeft.numerics import stream

logger = logging.getLogger(__name__)

SAVE_SECONDS = 60.0  # how much work an interruption may cost


class Trainer:
    """Trains a model's head and patched modules on one part of a fold.

    Args:
        model: adapted upstream and head, newly initialised or as an earlier stage left it.
        examples: all utterances of the plan; train, dev: indices into them.
        weights: of each training utterance in the loss (len(train),), see `utterance_weights`.
        keys: how to train; lr: the rate (keys.lr, or a candidate of a search).
        seed: of order and dropout (the model's initial state was drawn from it by the caller).
        checkpoint: where progress is kept (None: nowhere).
        label: shown on the progress bar.
        curves: TensorBoard folder, or None.
        starts_trained: whether the model's first state is one to choose, too: it is evaluated
            before the first step and counts as step 0.
        chances: of each training utterance to be drawn, see `sampling_chances`.
    """

    def __init__(
        self,
        model: AdaptedModel,
        examples: Examples,
        task: Task,
        train: Sequence[int],
        dev: Sequence[int],
        weights: Tensor,
        keys: TrainKeys,
        lr: float,
        seed: int,
        accelerator: Accelerator,
        checkpoint: Path | None = None,
        label: str = "",
        curves: Path | None = None,
        starts_trained: bool = False,
        chances: Tensor | None = None,
    ):
        self.examples, self.task, self.keys = examples, task, keys
        self.starts_trained = starts_trained
        self.step_loss = StepLoss(task, keys)
        self.train_indices, self.dev_indices = list(train), list(dev)
        self.weights = dict(zip(self.train_indices, weights.tolist(), strict=True))
        self.chances = chances
        self.lr, self.seed, self.label = lr, seed, label
        self.accelerator, self.checkpoint, self.curves = accelerator, checkpoint, curves
        self.plain = model.to(accelerator.device)
        save_memory_and_time(model, keys)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        in_head = [p for p in model.head.parameters() if p.requires_grad]
        in_upstream = [p for p in model.upstream.parameters() if p.requires_grad]
        # A new head wants larger steps than pretrained weights.
        self.rates = [lr, keys.head_lr or lr]
        optimizer = kinds[keys.optimizer](
            [{"params": in_upstream}, {"params": in_head}], lr=lr, weight_decay=keys.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.per_epoch = math.ceil(len(self.train_indices) / keys.batch_size)
        self.total = keys.steps or math.ceil((keys.epochs or 1) * self.per_epoch)
        self.eval_every = keys.eval_every or self.per_epoch
        self.inputs: Iterator[Batch] | None = None  # what is read ahead while the loop runs
        # Progress: all of it stands in the checkpoint.
        self.step = 0
        self.seconds = 0.0
        self.loss_sum, self.loss_count = torch.zeros((), device=accelerator.device), 0
        self.selection = Selection()
        self.best_state: dict[str, Tensor] = {}

    # ---- the loop ---------------------------------------------------------------------------

    def fit(self) -> Fit:
        """Train to the end (or from where an interrupted training stopped).

        Raises:
            Diverged: the loss became NaN or infinite.
            Interrupted: the process was told to stop; the progress is saved.
        """
        self._resume()
        bar = tqdm(
            total=self.total,
            initial=self.step,
            desc=self.label,
            unit="step",
            disable=None if self.accelerator.is_main_process else True,
            leave=False,
        )
        self.model.train()
        try:
            with bar, deferred():
                self._loop(bar)
                if asked():
                    self._save()
        finally:
            self.inputs = None  # ends what is being read ahead
        self.plain.load_trainable_state(self.best_state)
        return self.selection.fit(self.step, self.seconds)

    def _loop(self, bar: tqdm) -> None:
        started = saved = time.monotonic()
        before = self.seconds
        upcoming = self._batches()
        # The inputs of a step are read and copied while the one before is computed.
        groups = (
            [batch[p] for p in group]
            for batch in self._batches()
            for group in self._groups(batch)[0]
        )
        self.inputs = self.examples.prefetch(groups, self.accelerator.device)
        if self.starts_trained and not self.selection.history:
            self._evaluate(bar)
        while self.step < self.total and not self.selection.stopped(self.keys):
            self._optimise(next(upcoming))
            self.step += 1
            bar.update()
            self.seconds = before + time.monotonic() - started
            evaluated = self.step % self.eval_every == 0 or self.step == self.total
            if evaluated:
                self._evaluate(bar)
            stop = asked()
            late = time.monotonic() - saved > (SAVE_SECONDS / 6 if evaluated else SAVE_SECONDS)
            if stop or late:
                self._save()
                saved = time.monotonic()
            if stop:
                raise stop

    def _batches(self) -> Iterator[list[int]]:
        """The batches of all steps that are left, as indices into the examples."""
        epoch, order = -1, []
        for step in range(self.step, self.total):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = epoch_order(len(self.train_indices), self.seed, epoch, self.chances)
            first = step % self.per_epoch * self.keys.batch_size
            yield [self.train_indices[i] for i in order[first : first + self.keys.batch_size]]

    def _optimise(self, batch: list[int]) -> None:
        """One optimiser step on a batch, shared among processes and split to fit the budget."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._rate_factor()
        self.loss_sum += self.backward(batch)
        if self.keys.clip is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.keys.clip)
        self.optimizer.step()
        self.plain.after_step(self.step + 1, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_count += 1

    def _rate_factor(self) -> float:
        """The schedule's factor on the learning rate at this step."""
        return rate_factor(self.keys, self.step, self.total, self.selection.plateau)

    # ---- the gradient of a batch ------------------------------------------------------------

    def backward(self, batch: list[int]) -> Tensor:
        """Leave the gradient of a batch's loss in the parameters; returns this process' part of
        the loss.

        A loss that is a sum over utterances is taken group by group. Of any other the outputs of
        the whole batch are computed first, without a graph; its gradient is taken on them (see
        `StepLoss`), and each group is run again, with the same dropout, and propagates its rows.
        Groups hold places in the batch, in which an utterance may stand more than once.
        """
        world = self.accelerator.num_processes
        groups, has_examples = self._groups(batch)
        weights = torch.tensor([self.weights[i] for i in batch], dtype=torch.float64)
        share = shares(weights).tolist()
        rows: dict[int, Tensor] = {}
        whole = torch.zeros((), device=self.accelerator.device)
        one_part = world == 1 and len(groups) == 1 and self.step_loss.whole(len(batch))
        direct = self.task.additive or one_part
        if not direct:
            whole, rows = self._rows(batch, groups if has_examples else [], share)
        self._seed_dropout()
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
                penalty = self.plain.penalty() if last else None
                self.accelerator.backward(loss if penalty is None else loss + penalty)
            total += loss.detach() / world
        return total if direct else whole / world

    def _next(self, group: list[int]) -> Batch:
        """The inputs of a micro-batch: those in flight, while the loop runs."""
        if self.inputs is None:
            return self.examples.batch(group, self.accelerator.device)
        return next(self.inputs)

    def _groups(self, batch: list[int]) -> tuple[list[list[int]], bool]:
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
        self, batch: list[int], groups: list[list[int]], share: list[float]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The loss of a whole batch, and its gradient at the outputs of each of its places."""
        self._seed_dropout()
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

    def _seed_dropout(self) -> None:
        """Dropout of a step depends on seed, step and process alone: the same in both passes of a
        batch, and in a training that was interrupted."""
        torch.manual_seed(stream("dropout", self.seed, self.step, self.accelerator.process_index))

    # ---- dev --------------------------------------------------------------------------------

    def outputs(self, indices: Sequence[int]) -> Tensor:
        """The head's outputs (len(indices), outputs) on the CPU, in the order of ``indices``."""
        return outputs_of(self.model, self.examples, indices, self.keys, self.accelerator)

    def _evaluate(self, bar: tqdm) -> None:
        """Look at dev, after some steps or before the first."""
        loss: float | None = None
        if self.loss_count:
            loss = self.accelerator.reduce(self.loss_sum.clone(), "sum").item() / self.loss_count
            self.loss_sum.zero_()
            self.loss_count = 0
            check_loss(loss, self.label, self.step, self.lr)
        outputs, targets = self.outputs(self.dev_indices), self.examples.targets[self.dev_indices]
        chosen = self.selection
        if chosen.note(self.task, self.keys, self.step, loss, outputs, targets):
            self.best_state = self.plain.trainable_state()
        select = selected(self.task, self.keys)
        now, best = (select.show(x[select.name]) for x in (chosen.history[-1], chosen.best))
        trained = "" if loss is None else f"loss {loss:.3f}, "
        bar.set_postfix_str(f"{trained}dev {select.title} {now} (best {best})")
        self._draw()
        self.model.train()

    def _draw(self) -> None:
        if self.curves is not None and self.accelerator.is_main_process:
            draw(self.curves, self.selection.history[-1:])

    # ---- interruption -----------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoint is not None and self.accelerator.is_main_process:
            write_progress(self.checkpoint, snapshot(self))

    def _resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        progress = read_progress(self.checkpoint)
        try:
            put_back(self, progress)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"{self.checkpoint} is not the progress of this training ({error}); delete it to "
                "train this fold from its start"
            ) from None
        logger.info("%s goes on at step %d of %d", self.label, self.step, self.total)
