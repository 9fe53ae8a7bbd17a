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

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from emopeft.errors import UserError, unknown
from emopeft.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from emopeft.downstream.corpora.base import Utterance
    from emopeft.downstream.protocols.protocol import Protocol

Table = Mapping[str, Sequence[Any]]  # column name to its values, one per utterance


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are.

    Attributes:
        name: in records and recipes. title: in tables.
        low, high: the range of its values (may be infinite).
        better: "higher" or "lower".
        percent: whether tables show it times 100.
    """

    name: str
    title: str
    low: float = 0.0
    high: float = 1.0
    better: str = "higher"
    percent: bool = True

    @property
    def worst(self) -> float:
        """What every value beats: a training that diverged has this one."""
        return -math.inf if self.better == "higher" else math.inf

    def beats(self, one: float, other: float) -> bool:
        """Whether ``one`` is better than ``other``; a NaN beats nothing, and is beaten by all."""
        if math.isnan(one) or math.isnan(other):
            return not math.isnan(one)
        return one > other if self.better == "higher" else one < other

    def order(self, value: float) -> float:
        """What sorts by it, best first."""
        if math.isnan(value):
            return math.inf
        return -value if self.better == "higher" else value

    def show(self, value: float) -> str:
        """A value as tables show it."""
        return f"{100 * value:.2f}" if self.percent else f"{value:.3f}"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of predictions.csv.

    Attributes:
        name: in the header.
        role: "truth", "prediction" or "score".
        classes: the names its cells may hold; None: finite numbers from ``low`` to ``high``.
        missing: whether a cell may be empty (NaN: not rated).
    """

    name: str
    role: str
    classes: tuple[str, ...] | None = None
    low: float = -math.inf
    high: float = math.inf
    missing: bool = False

    def read(self, cell: str) -> Any:
        """The value of a cell; raises ValueError with a sentence."""
        if self.classes is not None:
            if cell not in self.classes:
                raise ValueError(f"the {self.name} {cell[:60]!r} is not a class of the task")
            return cell
        if self.missing and cell == "":
            return math.nan
        try:
            value = float(cell) if len(cell) < 40 else math.nan
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high or math.isinf(value):  # NaN fails, too
            limits = f" from {self.low:g} to {self.high:g}" if math.isfinite(self.high) else ""
            raise ValueError(f"the {self.name} {cell[:60]!r} is not a number{limits}")
        return value

    def write(self, value: Any) -> str:
        """The cell of a value, with every digit."""
        if self.classes is not None:
            return str(value)
        return "" if math.isnan(value) else repr(float(value))


class Task:
    """Base of all tasks.

    Class attributes:
        name: as given to ``-d``. version: raised when targets, loss or metrics change meaning.
        additive: whether the loss is the sum over utterances of weight times a loss of its own;
            else the gradient is taken on the outputs of the whole batch, however it is split.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    additive: ClassVar[bool] = False

    # ---- making one -------------------------------------------------------------------------

    @classmethod
    def of(cls, protocol: Protocol, utterances: Sequence[Utterance]) -> Task:
        """The task of a protocol on these utterances; raises UserError where they do not fit."""
        return cls()

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Task:
        """What `describe` gave, as untrusted data; raises UserError naming the key."""
        return cls()

    def describe(self) -> dict[str, Any]:
        """All that decides targets, outputs and columns, as JSON, for plan hash and records."""
        return {"name": self.name, "version": self.version}

    # ---- targets ----------------------------------------------------------------------------

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the floats of a target are."""
        raise NotImplementedError

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        """The target of an utterance; None: it takes no part."""
        raise NotImplementedError

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
        """Names and sizes of the groups that the outputs fall into, in their order.

        With ``head.separate`` each has a small head of its own.
        """
        return ((self.name, self.outputs),)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of a whole batch.

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

    def balance(self, targets: Tensor, kind: str) -> Tensor:
        """Weights (utterances,) that make rare targets count more, of the training part's targets.

        Args:
            kind: "balanced" or "effective" (tasks/balancing.py).

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

    def check(self, row: Mapping[str, Any]) -> None:
        """What must hold among the cells of one row; raises ValueError with a sentence."""

    # ---- how good it is (no torch) ----------------------------------------------------------

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, in the order of tables."""
        raise NotImplementedError

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

    def chance(self, table: Table) -> dict[str, float]:
        """What guessing reaches in a metric on these truths, where that is known."""
        return {}


TASKS: Registry[type[Task]] = Registry("task", "emopeft.downstream.tasks")


def register(cls: type[Task]) -> type[Task]:
    """Class decorator: make a task known under its name."""
    TASKS.add(cls.name, cls)
    return cls


def task_of(description: Any) -> Task:
    """The task that a record or checkpoint describes, as untrusted data; raises UserError."""
    if not isinstance(description, Mapping) or not isinstance(description.get("name"), str):
        raise UserError("the task's description has no name; restore the file or run again")
    cls = TASKS[description["name"]]
    if description.get("version") != cls.version:
        raise UserError(
            f"task {cls.name} is version {cls.version} here and {description.get('version')!r:.20} "
            "there; their numbers cannot be compared: run again with this version"
        )
    return cls.from_description(description)


def rows_of(table: Table) -> Iterable[dict[str, Any]]:
    """The rows of a table of columns."""
    for cells in zip(*table.values(), strict=True):
        yield dict(zip(table, cells, strict=True))
