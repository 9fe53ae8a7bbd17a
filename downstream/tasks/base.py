"""The task contract: what is predicted, how it is learned, what is written down, how it is judged.

A task says, in this order of the data,

- which utterances it can use and what their targets are (`target`: a row of floats, NaN where
  something is not rated, or a distribution over classes);
- how many outputs a head needs, and the loss of a whole batch, a scalar: CCC or RMSE are not sums
  over utterances, so nobody outside may assume one;
- the columns that predictions.csv holds, made of the outputs;
- its metrics, as data, and how they are computed from those columns alone.

The first two need torch, the last two do not: a leaderboard runs without. Nobody outside this room
knows which task it is. A task is one file here, or of another package, that calls `register`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from emopeft.downstream.measures.columns import Column, Metric, Table
from emopeft.downstream.tasks.keys import Settings
from emopeft.errors import UserError, unknown
from emopeft.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from emopeft.downstream.corpora.base import Utterance
    from emopeft.downstream.protocols.protocol import Protocol


class Task:
    """Base of all tasks.

    Class attributes:
        name: as given to ``-d``. version: raised when targets, loss or metrics change meaning.
        auxiliary: it only helps others: it goes with every protocol, and an utterance that no
            other task can use takes no part.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    auxiliary: ClassVar[bool] = False

    # ---- making one -------------------------------------------------------------------------

    @classmethod
    def of(
        cls, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
    ) -> Task:
        """The task of a protocol on these utterances; raises UserError where they do not fit."""
        return cls()

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Task:
        """What `describe` gave, as untrusted data; raises UserError naming the key."""
        return cls()

    def describe(self) -> dict[str, Any]:
        """All that decides targets, outputs and columns, as JSON, for plan hash and records."""
        return {"name": self.name, "version": self.version}

    def learning(self) -> dict[str, Any]:
        """All that decides the loss beside targets and weights, as JSON, for a run's identity."""
        return {}

    # ---- targets ----------------------------------------------------------------------------

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the floats of a target are."""
        raise NotImplementedError

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        """The target of an utterance; None: it takes no part."""
        raise NotImplementedError

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of which folds should hold some on every side; none where there are none."""
        return ()

    @property
    def every_class(self) -> bool:
        """Whether a fold that trains on none of one of `classes` makes no sense."""
        return True

    def class_of(self, utterance: Utterance) -> str | None:
        """The one of `classes` that an utterance is of; None: of none."""
        return None

    def summary(self, targets: Sequence[Sequence[float]]) -> dict[str, Any]:
        """What a person wants to know of some targets at a glance: column to value."""
        columns = zip(self.target_names, zip(*targets, strict=True), strict=True)
        rated = {name: [x for x in values if not math.isnan(x)] for name, values in columns}
        return {name: f"{sum(x) / len(x):.2f}" if x else "" for name, x in rated.items()}

    # ---- learning (torch) -------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """How many outputs a head needs."""
        raise NotImplementedError

    @property
    def output_groups(self) -> tuple[tuple[str, int], ...]:
        """Names and sizes of the groups that the outputs fall into, in their order: with
        ``head.separate`` each has a small head of its own."""
        return ((self.name, self.outputs),)

    @property
    def additive(self) -> bool:
        """Whether the loss is the sum over utterances of weight times a loss of its own; else the
        gradient is taken on the outputs of the whole batch, however it is split."""
        return False

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of a whole batch.

        Beside other tasks, an utterance that this one has no target of has a row of NaN: it counts
        as if it were of weight 0.

        Args:
            outputs: of the head (batch, outputs).
            targets: (batch, targets).
            weights: (batch,), of each utterance in the batch's loss; they add up to 1. One of
                weight 0 is as good as not there: whatever its finite outputs, the loss is the same
                and their gradient 0.

        Returns:
            a scalar.
        """
        raise NotImplementedError

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and their gradients at the outputs, of several models on one batch.

        Args:
            outputs: (models, batch, outputs).
            targets, weights: as for `loss`, or of each model its own: (models, batch, targets)
                and (models, batch).

        Returns:
            losses (models,) and gradients (models, batch, outputs).
        """
        import torch

        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            per_model = targets.expand(len(leaf), -1, -1), weights.expand(len(leaf), -1)
            losses = torch.stack([self.loss(*one) for one in zip(leaf, *per_model, strict=True)])
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient

    def apart(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """How far outputs (..., outputs) are from a teacher's of the same utterances: (...).

        Raises UserError where the task does not say.
        """
        raise UserError(
            f"transfer.penalty=lwf cannot tell how far two outputs of task {self.name} are apart; "
            "take l2sp, or transfer.rehearsal"
        )

    def scores(self, outputs: Tensor) -> Tensor:
        """Vectors s_k (..., k, outputs) at the outputs (..., outputs), such that the sum of their
        outer products is the Fisher information of the outputs: of s, the gradient of the log
        likelihood at the outputs, the expectation of s s^T over what the outputs themselves say.

        Raises UserError where the task has no likelihood.
        """
        raise UserError(
            f"transfer.penalty=ewc needs a likelihood, and task {self.name} has none; take l2sp"
        )

    def balance(self, targets: Tensor, kind: str) -> Tensor:
        """Weights (utterances,) that make rare targets count more, of the training part's targets.

        Args:
            kind: "balanced" or "effective", see tasks/balancing.py.

        Raises UserError where the task has no such thing.
        """
        raise UserError(
            f"train.class_weights and train.sampling are for classes, and task {self.name} has "
            "none; set both to none"
        )

    # ---- what is written down ---------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        """The task's own columns of predictions.csv, in order."""
        raise NotImplementedError

    def table(self, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        """Those columns, made of outputs and targets (utterances, ...), both on the CPU."""
        raise NotImplementedError

    def truths(self, target: Sequence[float]) -> dict[str, Any]:
        """The truth columns of one target; none where nothing can be said of them."""
        names = [column.name for column in self.columns if column.role == "truth"]
        numbers = all(c.classes is None for c in self.columns if c.role == "truth")
        return (
            dict(zip(names, target, strict=True)) if numbers and len(names) == len(target) else {}
        )

    def check(self, row: Mapping[str, Any]) -> None:
        """What must hold among the cells of one row; raises ValueError with a sentence."""

    # ---- how good it is (no torch) ----------------------------------------------------------

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, in the order of tables."""
        raise NotImplementedError

    @property
    def shown(self) -> tuple[Metric, ...]:
        """The metrics that tables have a column for."""
        return tuple(metric for metric in self.metrics if metric.shown or metric.name == self.main)

    @property
    def main(self) -> str:
        """The metric that ranks, and that chooses on dev where the recipe names none."""
        return self.metrics[0].name

    def metric(self, name: str) -> Metric:
        """A metric by its name; raises UserError with the nearest ones."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise unknown(f"metric of task {self.name}", name, (m.name for m in self.metrics))

    def measure(self, table: Table) -> dict[str, Any]:
        """Every metric, and what else is worth keeping, of a set of utterances, as JSON values."""
        raise NotImplementedError

    def remarks(self, measures: Sequence[Mapping[str, Any]]) -> list[str]:
        """What a reader should know beside the metrics: lines, made of `measure` of each fold."""
        return []

    def chance(self, table: Table) -> dict[str, float]:
        """What guessing reaches in a metric on these truths, where that is known."""
        return {}


TASKS: Registry[type[Task]] = Registry("task", "emopeft.downstream.tasks")
SUM = "+"  # between tasks that are learned together


def register(cls: type[Task]) -> type[Task]:
    """Class decorator: make a task known under its name."""
    TASKS.add(cls.name, cls)
    return cls


def task_classes(spec: str) -> list[type[Task]]:
    """The tasks of ``-d``: one, or several with + between them; raises UserError."""
    names = spec.split(SUM)
    if len(set(names)) < len(names):
        raise UserError(f"-d {spec} names a task twice; give each once")
    classes = [TASKS[name] for name in names]
    if all(cls.auxiliary for cls in classes) and len(classes) > 1:
        raise UserError(
            f"-d {spec} holds only tasks that help others; name what they are to help: "
            f"emotion{SUM}{spec}"
        )
    return classes


def make_task(
    spec: str, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
) -> Task:
    """The task of ``-d`` on a protocol's utterances; raises UserError where they do not fit."""
    from emopeft.downstream.tasks.joint import JointTask

    parts = [cls.of(protocol, utterances, settings) for cls in task_classes(spec)]
    return parts[0] if len(parts) == 1 else JointTask.together(parts, settings)


def task_of(description: Any) -> Task:
    """The task that a record or checkpoint describes, as untrusted data; raises UserError."""
    if not isinstance(description, Mapping) or not isinstance(description.get("name"), str):
        raise UserError("the task's description has no name; restore the file or run again")
    from emopeft.downstream.tasks.joint import JointTask

    cls = JointTask if SUM in description["name"] else TASKS[description["name"]]
    if description.get("version") != cls.version:
        raise UserError(
            f"task {description['name']:.60} is version {cls.version} here and "
            f"{description.get('version')!r:.20} there; their numbers cannot be compared: run "
            "again with this version"
        )
    return cls.from_description(description)


def rows_of(table: Table) -> Iterable[dict[str, Any]]:
    """The rows of a table of columns."""
    for cells in zip(*table.values(), strict=True):
        yield dict(zip(table, cells, strict=True))
