"""What a probe's learning rates have come to, and which of them is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.selection import Diverged, Fit, Selection, best_of


@dataclasses.dataclass
class Trial:
    """One learning rate of a probe, trained: its fit and best parameters, or why there is none."""

    rate: float
    selection: Selection = dataclasses.field(default_factory=Selection)
    steps: int = 0
    seconds: float = 0.0
    best: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    failure: str | None = None

    def fit(self) -> Fit:
        """What the training ended with; raises Diverged."""
        if self.failure is not None:
            raise Diverged(self.failure)
        return self.selection.fit(self.steps, self.seconds)


def choose(task: Task, keys: TrainKeys, trials: Sequence[Trial]) -> int:
    """The trial with the best dev metric, the earlier of equals; a diverged one never wins.

    Raises Diverged where all of them did.
    """
    reached = {
        str(i): t.selection.best[keys.select or task.main]
        for i, t in enumerate(trials)
        if not t.failure
    }
    if not reached:
        raise Diverged(str(trials[0].failure))
    return int(best_of(task, keys, reached))
