"""What dev says of a training: its history, the best step, when to stop, when the rate halves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError

PLATEAU_PATIENCE = 5  # evaluations without a better one before the rate halves (PEFT-SER)


class Diverged(UserError):
    """The loss is no number any more; a search over learning rates goes on with the next."""


@dataclasses.dataclass
class Fit:
    """What a training ended with; the model holds the best state, or, with choose=last, the last,
    which then stands for the best."""

    steps: int
    best_step: int  # whose state is kept; 0: the state it started from
    best: dict[str, Any]  # dev metrics at the best step
    history: list[dict[str, float]]  # step, loss (not of step 0), dev metrics of every evaluation
    seconds: float


@dataclasses.dataclass
class Selection:
    """The evaluations of one training so far. All of it is plain data, for checkpoints."""

    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    best_step: int = 0
    since_best: int = 0
    since_plateau: int = 0
    plateau: float = 1.0  # factor on the learning rate

    def note(
        self,
        task: Task,
        keys: TrainKeys,
        step: int,
        loss: float | None,
        outputs: Tensor,
        targets: Tensor,
    ) -> bool:
        """Take in an evaluation: dev's outputs and targets; true where this state is to be kept:
        it is the best so far, or the last one is asked for.

        Args:
            loss: of the steps since the evaluation before; None before the first step.

        A metric that is NaN (CCC of constant ratings) is worse than every number, and no error.
        """
        metrics = task.measure(task.table(outputs, targets))
        even = torch.full((len(outputs),), 1 / len(outputs), dtype=outputs.dtype)
        dev_loss = float(task.loss(outputs, targets.to(outputs.dtype), even))
        shown = {m.name: float(metrics[m.name]) for m in task.metrics}
        trained = {} if loss is None else {"loss": loss}
        self.history.append({"step": step, **trained, "dev_loss": dev_loss, **shown})
        self.since_best += 1
        self.since_plateau += 1
        select = selected(task, keys)
        better = not self.best or select.beats(metrics[select.name], self.best[select.name])
        if better or keys.choose == "last":
            self.best, self.best_step = metrics, step
            self.since_best = self.since_plateau = 0
            return True
        if keys.schedule == "plateau" and self.since_plateau > PLATEAU_PATIENCE:
            self.plateau, self.since_plateau = self.plateau / 2, 0
        return False

    def stopped(self, keys: TrainKeys) -> bool:
        """Whether early stopping ends the training."""
        return keys.patience is not None and self.since_best >= keys.patience

    def state(self) -> dict[str, Any]:
        """Plain data; ``Selection(**state)`` puts it back."""
        return dataclasses.asdict(self)

    def fit(self, steps: int, seconds: float) -> Fit:
        """What the training ended with."""
        return Fit(steps, self.best_step, self.best, self.history, seconds)


def selected(task: Task, keys: TrainKeys) -> Any:
    """The dev metric that chooses: the recipe's, else the task's own."""
    return task.metric(keys.select or task.main)


def best_of(task: Task, keys: TrainKeys, reached: dict[str, float]) -> str:
    """The name with the best dev metric, the first of equals."""
    order = selected(task, keys).order
    return min(reached, key=lambda name: order(reached[name]))


def check_loss(loss: float, label: str, step: int, lr: float) -> None:
    """Raises Diverged when a loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss of {label} is {loss} at step {step} with learning rate {lr:g}; lower "
            "train.lr, or take train.precision=fp32"
        )


def rate_factor(keys: TrainKeys, step: int, total: int, plateau: float) -> float:
    """The schedule's factor on the learning rate at a step (from 0) of ``total``."""
    done = step / total
    if done < keys.warmup:
        return (step + 1) / math.ceil(keys.warmup * total)
    left = (1 - done) / (1 - keys.warmup)
    if keys.schedule == "linear":
        return left
    if keys.schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    return plateau


def utterance_weights(task: Task, keys: TrainKeys, targets: Tensor, weights: Tensor) -> Tensor:
    """How much each utterance of the training part counts: the plan's weight, times the task's
    balance where the recipe asks for it. All (utterances,)."""
    kind = keys.class_weights
    return weights if kind == "none" else weights * task.balance(targets, kind)


def sampling_chances(
    task: Task, keys: TrainKeys, targets: Tensor, corpora: Sequence[str] = ()
) -> Tensor | None:
    """How likely each utterance of the training part is to be drawn (utterances,), up to a factor;
    None where an epoch sees each of them once.

    With corpora=balanced each of C corpora has a share of 1 / C: of its n utterances each one
    1 / (C n), or, with sampling=balanced, what the task's balance of this corpus alone gives it.

    Args:
        corpora: whose each utterance is (utterances,); where all are of one, it has nothing to
            share with.
    """
    if keys.corpora == "as_is" or len(set(corpora)) < 2:
        return None if keys.sampling == "none" else task.balance(targets, keys.sampling)
    chances = torch.zeros(len(targets), dtype=torch.float64)
    for corpus in sorted(set(corpora)):
        own = torch.tensor([name == corpus for name in corpora])
        part = targets[own]
        each = (
            torch.ones(len(part)) if keys.sampling == "none" else task.balance(part, keys.sampling)
        )
        chances[own] = each.double() / each.double().sum()
    return chances


def shares(weights: Tensor) -> Tensor:
    """The weights of a batch (..., batch), so that they add up to 1: an utterance's share in its
    loss.

    Raises UserError where a whole batch weighs nothing.
    """
    total = weights.sum(-1, keepdim=True)
    if not bool((total > 0).all()):
        raise UserError("every utterance of a batch has weight 0 in the plan; take them out")
    return weights / total
