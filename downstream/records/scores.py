"""What predictions say of classes, as arrays: a score per class, the truth, what was said.

Of tasks whose scores are one softmax: classes, distributions of votes, and the first of these among
tasks that are learned together. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emopeft.downstream.measures.votes import distribution
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.predictions import DEV, Prediction
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.classes import SCORE, ClassTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.tasks.votes import VOTES, MultiTask, SoftTask
from emopeft.errors import UserError


@dataclasses.dataclass(frozen=True)
class Scores:
    """Predictions of examples that have a target.

    Attributes:
        classes: their names, in order.
        scores: as they were written (rows, classes); they add up to 1 within 0.001.
        targets: distributions (rows, classes): of a class 1 at it, of votes their shares.
        truth: the class (rows,), -1 where votes have no consensus. said: the predicted one.
        speakers, folds, seeds: of each row.
    """

    classes: tuple[str, ...]
    scores: np.ndarray
    targets: np.ndarray
    truth: np.ndarray
    said: np.ndarray
    speakers: list[str]
    folds: list[str]
    seeds: list[int]

    @property
    def certain(self) -> np.ndarray:
        """The places of rows whose class is known (rows,)."""
        return np.flatnonzero(self.truth >= 0)

    def of(self, rows: np.ndarray) -> Scores:
        """Some of the rows, by their places."""
        return Scores(
            self.classes, self.scores[rows], self.targets[rows], self.truth[rows], self.said[rows],
            *([values[i] for i in rows] for values in (self.speakers, self.folds, self.seeds)),
        )  # fmt: skip


def class_part(task: Task) -> tuple[str, ClassTask]:
    """The task whose classes have scores, and what its columns' names begin with.

    Raises UserError where there is none.
    """
    parts: dict[str, Task] = {"": task}
    if isinstance(task, JointTask):
        parts = {f"{name}.": part for name, part in task.parts.items() if not part.auxiliary}
    for begin, part in parts.items():
        if isinstance(part, ClassTask) and not isinstance(part, MultiTask):
            return begin, part
    raise UserError(
        f"the task {task.name} predicts no single class with a probability of each; emotion, "
        "emotion-soft and tasks of classes do"
    )


def scores_of(rows: Sequence[Prediction], task: Task) -> Scores:
    """The rows that have a target, as arrays; raises UserError as `class_part`."""
    begin, part = class_part(task)
    classes = part.classes
    place = {name: i for i, name in enumerate(classes)}
    targets = [_target(row.values, begin, part, place) for row in rows]
    known = [i for i, target in enumerate(targets) if target is not None]
    rows = [rows[i] for i in known]
    size = (len(rows), len(classes))
    return Scores(
        classes,
        np.array([[r.values[f"{begin}{SCORE}{c}"] for c in classes] for r in rows]).reshape(size),
        np.array([targets[i] for i in known], dtype=np.float64).reshape(size),
        np.array([place.get(r.values[f"{begin}truth"], -1) for r in rows], dtype=np.intp),
        np.array([place[r.values[f"{begin}prediction"]] for r in rows], dtype=np.intp),
        [row.speaker for row in rows],
        [row.fold for row in rows],
        [row.seed for row in rows],
    )


def _target(
    values: Mapping[str, Any], begin: str, part: ClassTask, place: Mapping[str, int]
) -> list[float] | None:
    """The distribution over classes that an example is of, None of one that has none."""
    if isinstance(part, SoftTask):
        votes = [values[f"{begin}{VOTES}{c}"] for c in place]
        unknown = any(map(math.isnan, votes)) or sum(votes) <= 0
        return None if unknown else distribution(votes)
    truth = values[f"{begin}truth"]
    return [float(c == truth) for c in place] if truth else None


def tested(fold: FoldResult, test: str) -> list[Prediction]:
    """A fold's predictions of a test, or of dev."""
    return fold.dev if test == DEV else [row for row in fold.tests if row.test == test]
