"""What a task's predictions are written as, and what is measured of them, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

NONE = "–"  # in tables, where there is no number
Table = Mapping[str, Sequence[Any]]  # column name to its values, one per utterance


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are.

    Attributes:
        name: in records and recipes. title: in tables.
        low, high: the range of its values (may be infinite).
        better: "higher" or "lower".
        percent: whether tables show it times 100.
        shown: whether tables have a column for it; records have all of them.
    """

    name: str
    title: str
    low: float = 0.0
    high: float = 1.0
    better: str = "higher"
    percent: bool = True
    shown: bool = True

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
        missing: whether a cell may be empty: not rated (NaN), not labelled ("").
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
            if cell not in self.classes and not (self.missing and cell == ""):
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
