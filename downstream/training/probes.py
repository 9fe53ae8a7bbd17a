"""Frozen probes, all at once: folds, seeds and learning rates on kept time means.

A `Probe` is one fold and seed: its learning rates see the same batches in the same order, so they
train as one stacked computation (models/stacked_heads.py) that reads each batch once. The probes of
several folds and seeds run side by side (training/side_by_side.py): each on a processor core, or
all in lock-step (training/lock_step.py). The numbers are those that `training.trainer.Trainer`
gives one by one, up to the rounding of sums in another order.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.excerpts import drawn
from emopeft.downstream.heads.base import Head
from emopeft.downstream.models.checkpoint import read_progress, write_progress
from emopeft.downstream.models.joined_heads import can_join, put_joined
from emopeft.downstream.models.stacked_heads import StackedHeads
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.batching import epoch_order
from emopeft.downstream.training.gathering import gather
from emopeft.downstream.training.selection import (
    Diverged,
    Selection,
    check_loss,
    rate_factor,
    shares,
)
from emopeft.downstream.training.step_loss import StepLoss
from emopeft.downstream.training.trials import Trial
from emopeft.errors import UserError

SAVE_SECONDS = 30.0  # how much work an interruption may cost
BLOCK = 20  # steps between two looks at the clock


def probes_can_train(head: torch.nn.Module, means: Tensor | None) -> bool:
    """Whether a head on frozen time means is one that `Probe` computes: unpatched, all training."""
    return means is not None and can_join(head)


class Probe:
    """Heads on the frozen means of one fold and seed, one per learning rate.

    Args:
        head: newly initialised, standardisation fitted; its best state is put back by `install`.
        means, targets: of all utterances of the plan, (utterances, states, width) and
            (utterances, targets).
        train, dev: the fold's indices into them.
        weights: of each training utterance in the loss (len(train),), see `utterance_weights`.
        keys: how to train; rates: the learning rates.
        seed: of the order of the batches.
        device: where to compute (``means`` may lie elsewhere).
        checkpoint: where progress is kept, or None.
        label: names the probe in errors.
        chances: of each training utterance to be drawn, see `sampling_chances`.
        ways: `Examples.ways` of each training utterance; None: as ``train`` has it.
    """

    def __init__(
        self,
        head: Head,
        means: Tensor,
        targets: Tensor,
        train: Sequence[int],
        dev: Sequence[int],
        weights: Tensor,
        task: Task,
        keys: TrainKeys,
        rates: Sequence[float],
        seed: int,
        device: torch.device | str = "cpu",
        checkpoint: Path | None = None,
        label: str = "",
        chances: Tensor | None = None,
        ways: Sequence[Sequence[int]] | None = None,
    ):
        self.head, self.task, self.keys, self.seed = head.to(device), task, keys, seed
        self.step_loss = StepLoss(task, keys)
        self.device, self.checkpoint, self.label = torch.device(device), checkpoint, label
        seen, means = head.featurizer, means.to(device)
        if seen.count == 1:
            # It reads no other state: utterances and states one after the other, of which it takes
            # its own, so that the probes of all states lie on the same means.
            self.states, self.state, self.means = means.shape[1], seen.skip, means.flatten(0, 1)
            self.means = self.means[:, None]
        else:
            self.states, self.state, self.means = 1, 0, seen.seen(means, 1)
        self.standard: tuple[Tensor, Tensor] | None = None  # mean and scale (states, width)
        if head.standardise:
            self.standard = seen.seen(head.mean, 0), seen.seen(head.scale, 0)
        self.train, self.dev = torch.tensor(list(train)), torch.tensor(list(dev))
        self.ways = ways or [[i] for i in train]
        self.weights, self.chances = weights, chances
        self.targets = targets[self.train].to(device)
        self.dev_targets = targets[self.dev]
        self.per_epoch = math.ceil(len(self.train) / keys.batch_size)
        self.total = keys.steps or math.ceil((keys.epochs or 1) * self.per_epoch)
        self.eval_every = keys.eval_every or self.per_epoch
        self.trials = [Trial(rate) for rate in rates]
        self.stack = StackedHeads(head, len(self.trials), keys)
        self.active = list(range(len(self.trials)))  # the trials in the stack's rows
        self.step = 0
        self.loss_sum, self.loss_count = torch.zeros(len(self.active), device=device), 0
        self.resumed, self.saved = False, time.monotonic()
        self.error: UserError | None = None  # what ended it, where that is the user's to mend
        self.busy = 0.0  # seconds that this process has spent on it

    # ---- the loop ---------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.error is not None or not self.active or self.step >= self.total

    @torch.no_grad()
    def run(
        self, advance: Callable[[int], None], stop: threading.Event, seconds: float = math.inf
    ) -> None:
        """Train to the end, or until ``stop``, or about so many seconds.

        The first call goes on where an interrupted process stopped.

        Args:
            advance: is told how many steps of one trial were done.
        """
        self.begin(advance)
        epoch, order, rows = -1, torch.empty(0, dtype=torch.long), self.train
        batch = torch.empty(0)
        began = clock = time.monotonic()
        while not self.done:
            if self.step % BLOCK == 0:
                clock = self._share_time(clock)
                if stop.is_set() or clock - self.saved > SAVE_SECONDS:
                    self.save()
                if stop.is_set() or clock - began > seconds:
                    return
            if self.step // self.per_epoch != epoch:
                epoch, order, rows = self.step // self.per_epoch, self.order(), self.rows()
            first = self.step % self.per_epoch * self.keys.batch_size
            chosen = order[first : first + self.keys.batch_size]
            batch = gather(self.means, rows[chosen].to(self.device), batch, self.standard)
            rates = [self.rate(t) for t in self.active]
            weights = shares(self.weights[chosen]).to(self.device, non_blocking=True)
            targets = self.targets[chosen.to(self.device)]
            loss = functools.partial(self.step_loss.gradient, targets=targets, weights=weights)
            self.loss_sum += self.stack.step(batch, loss, rates)
            self.count(advance)
            if self.due:
                clock = self._share_time(clock)
                self.evaluate(advance)
        self._share_time(clock)
        self.free()

    def begin(self, advance: Callable[[int], None]) -> None:
        """Go on where an interrupted process stopped, the first time."""
        if not self.resumed:
            self._resume()
            advance(self.step * len(self.trials))

    def order(self) -> Tensor:
        """Places in the training part (len(train),) in the order of this step's epoch."""
        epoch = self.step // self.per_epoch
        return torch.tensor(epoch_order(len(self.train), self.seed, epoch, self.chances))

    def rows(self) -> Tensor:
        """Where the means of the training part stand in this step's epoch (len(train),)."""
        return self._places(torch.tensor(drawn(self.ways, self.seed, self.step // self.per_epoch)))

    def _places(self, utterances: Tensor) -> Tensor:
        """Where utterances stand in ``means``."""
        return utterances * self.states + self.state

    def rate(self, trial: int) -> float:
        """A trial's learning rate in this step."""
        plateau = self.trials[trial].selection.plateau
        return self.trials[trial].rate * rate_factor(self.keys, self.step, self.total, plateau)

    def count(self, advance: Callable[[int], None]) -> None:
        """Note that a step was done."""
        self.loss_count += 1
        self.step += 1
        advance(len(self.active))

    @property
    def due(self) -> bool:
        """Whether the step just done is one to evaluate after."""
        return self.step % self.eval_every == 0 or self.step == self.total

    def spend(self, seconds: float) -> None:
        """Share the time among the trials that trained."""
        self.busy += seconds
        for t in self.active:
            self.trials[t].seconds += seconds / len(self.active)

    def _share_time(self, since: float) -> float:
        """Share the time since then; returns now."""
        now = time.monotonic()
        self.spend(now - since)
        return now

    def free(self) -> None:
        """Give back the memory of what is trained."""
        self.active = []
        self.stack.keep([])

    def evaluate(self, advance: Callable[[int], None]) -> None:
        """Look at dev; trials that diverged or stopped early leave ``active`` and the stack."""
        losses = (self.loss_sum / self.loss_count).tolist()
        outputs = self._outputs_of(self.stack, self.dev)
        going = []
        for row, t in enumerate(self.active):
            trial = self.trials[t]
            trial.steps = self.step
            try:
                check_loss(losses[row], self.label, self.step, trial.rate)
            except Diverged as error:
                trial.failure = str(error)
                continue
            note = trial.selection.note
            if note(self.task, self.keys, self.step, losses[row], outputs[row], self.dev_targets):
                trial.best = self.stack.parameters_of(row)
            if not trial.selection.stopped(self.keys):
                going.append(row)
        if len(going) < len(self.active):
            advance((len(self.active) - len(going)) * (self.total - self.step))
            self.active = [self.active[row] for row in going]
            self.stack.keep(going)
        self.loss_sum, self.loss_count = torch.zeros(len(going), device=self.device), 0

    def _outputs_of(self, stack: StackedHeads, indices: Tensor) -> Tensor:
        """(copies, indices, outputs) on the CPU, a few hundred utterances at a time."""
        parts = [
            stack.outputs(gather(self.means, part, torch.empty(0), self.standard)).cpu()
            for part in self._places(indices.to(self.device)).split(512)
        ]
        return torch.cat(parts, dim=1)

    def install(self, trial: int) -> Head:
        """The head with a trial's best parameters."""
        put_joined(self.head, self.trials[trial].best)
        return self.head

    @torch.no_grad()
    def outputs(self, indices: Sequence[int]) -> Tensor:
        """The head's outputs (indices, outputs) on the CPU, as last installed."""
        return self._outputs_of(StackedHeads(self.head, 1, self.keys), torch.tensor(indices))[0]

    # ---- interruption -----------------------------------------------------------------------

    def save(self) -> None:
        self.saved = time.monotonic()
        if self.checkpoint is None or self.step == 0:
            return
        trials = [vars(t) | {"selection": t.selection.state()} for t in self.trials]
        progress = {"probe": self._what(), "step": self.step, "active": self.active,
                    "trials": trials, "stack": self.stack.state(),
                    "loss_sum": self.loss_sum, "loss_count": self.loss_count}  # fmt: skip
        write_progress(self.checkpoint, progress)

    def _what(self) -> dict[str, Any]:
        return {"rates": [t.rate for t in self.trials], "total": self.total}

    def _resume(self) -> None:
        self.resumed = True
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        progress = read_progress(self.checkpoint)
        if progress.get("probe") != self._what():
            return  # of another search: start again
        try:
            self.stack.load(progress["stack"])
            self.loss_sum = progress["loss_sum"].to(self.device)
            self.step, self.active, self.loss_count = (
                progress[name] for name in ("step", "active", "loss_count")
            )
            self.trials = [
                Trial(**t | {
                    "selection": Selection(**t["selection"]),
                    "best": {k: v.to(self.device) for k, v in t["best"].items()},
                })
                for t in progress["trials"]
            ]  # fmt: skip
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"{self.checkpoint} is not the progress of this training ({error}); delete it to "
                "train this fold from its start"
            ) from None
