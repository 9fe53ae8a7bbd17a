"""Training of one fold with one seed: steps, evaluation on dev, the best state, resuming."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.feature_cache.excerpts import drawn
from emopeft.downstream.models.checkpoint import read_progress, write_progress
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.batching import epoch_order
from emopeft.downstream.training.curves import draw
from emopeft.downstream.training.evaluating import outputs_of
from emopeft.downstream.training.gradient import BatchGradient
from emopeft.downstream.training.interruption import asked, deferred
from emopeft.downstream.training.memory import save_memory_and_time
from emopeft.downstream.training.progress import put_back, snapshot
from emopeft.downstream.training.selection import (
    Fit,
    Selection,
    check_loss,
    rate_factor,
    selected,
)
from emopeft.errors import UserError

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
        crowd: str = "",
    ):
        self.examples, self.task, self.keys = examples, task, keys
        self.starts_trained = starts_trained
        self.train_indices, self.dev_indices = list(train), list(dev)
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
        self.ways = examples.ways_of(self.train_indices, crowd)
        by_place = {
            i: weight for way, weight in zip(self.ways, weights.tolist(), strict=True) for i in way
        }
        self.gradient = BatchGradient(
            self.model, self.plain, examples, task, by_place, keys, seed, accelerator
        )
        self.per_epoch = math.ceil(len(self.train_indices) / keys.batch_size)
        self.total = math.ceil((keys.epochs or 1) * self.per_epoch)
        if keys.steps is not None:
            self.total = keys.steps
        self.eval_every = keys.eval_every or self.per_epoch
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
            self.gradient.inputs = None  # ends what is being read ahead
        self.plain.load_trainable_state(self.best_state)
        return self.selection.fit(self.step, self.seconds)

    def _loop(self, bar: tqdm) -> None:
        started = saved = time.monotonic()
        before = self.seconds
        upcoming = self._batches()
        self.gradient.read_ahead(self._batches())
        if (self.starts_trained or not self.total) and not self.selection.history:
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
        epoch, order, rows = -1, [], self.train_indices
        for step in range(self.step, self.total):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = epoch_order(len(self.train_indices), self.seed, epoch, self.chances)
                rows = drawn(self.ways, self.seed, epoch, self.examples.in_turn)
            first = step % self.per_epoch * self.keys.batch_size
            yield [rows[i] for i in order[first : first + self.keys.batch_size]]

    def _optimise(self, batch: list[int]) -> None:
        """One optimiser step on a batch, shared among processes and split to fit the budget."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._rate_factor()
        self.loss_sum += self.gradient.backward(batch, self.step)
        if self.keys.clip is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.keys.clip)
        self.optimizer.step()
        self.plain.after_step(self.step + 1, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_count += 1

    def _rate_factor(self) -> float:
        """The schedule's factor on the learning rate at this step."""
        return rate_factor(self.keys, self.step, self.total, self.selection.plateau)

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
