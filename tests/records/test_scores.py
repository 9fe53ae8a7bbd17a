"""Predictions as arrays, of classes, votes and joined tasks; finer measures over folds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from emopeft.downstream.records.details import details
from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.records.scores import class_part, scores_of
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.group import GroupTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.tasks.votes import MultiTask, SoftTask
from emopeft.errors import UserError

AB = ("a", "b")
RATINGS = DimensionalTask({"valence": (1.0, 5.0)})


def row(number: int, **values: Any) -> Prediction:
    return Prediction(f"toy/{number}", "1", number, "test", f"toy/s{number}", {}, values)


def test_classes() -> None:
    found = scores_of(
        [row(0, truth="a", prediction="b", score_a=0.25, score_b=0.75),
         row(1, truth="b", prediction="b", score_a=0.5, score_b=0.5)], EmotionTask(AB),
    )  # fmt: skip
    assert found.scores.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert found.targets.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert (found.truth.tolist(), found.said.tolist()) == ([0, 1], [1, 1])
    assert (found.speakers, found.seeds) == (["toy/s0", "toy/s1"], [0, 1])
    assert found.of(np.array([1])).speakers == ["toy/s1"]


def test_votes_are_shares_and_need_no_consensus() -> None:
    scores = {"prediction": "a", "score_a": 0.6, "score_b": 0.4}
    found = scores_of(
        [row(0, truth="", votes_a=2.0, votes_b=2.0, **scores),
         row(1, truth="b", votes_a=1.0, votes_b=3.0, **scores),
         row(2, truth="", votes_a=math.nan, votes_b=math.nan, **scores)], SoftTask(AB),
    )  # fmt: skip
    assert found.targets.tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert found.truth.tolist() == [-1, 1] and found.certain.tolist() == [1]
    assert details(found)["micro_f1"] == 0.0


def test_of_joined_tasks_the_one_that_is_not_there_to_help() -> None:
    task = JointTask([GroupTask(("x", "y")), RATINGS, EmotionTask(AB)])
    assert class_part(task)[0] == "emotion."
    values = {"emotion.prediction": "a", "emotion.score_a": 1.0, "emotion.score_b": 0.0}
    rows = [row(0, **{"emotion.truth": "b"}, **values), row(1, **{"emotion.truth": ""}, **values)]
    assert scores_of(rows, task).truth.tolist() == [1]


@pytest.mark.parametrize("task", [RATINGS, MultiTask(AB)])
def test_other_tasks_are_said(task: Any) -> None:
    with pytest.raises(UserError, match=f"the task {task.name} predicts no single class"):
        scores_of([], task)


def test_nothing_is_nothing() -> None:
    found = scores_of([], EmotionTask(AB))
    assert found.scores.shape == found.targets.shape == (0, 2)
    assert all(math.isnan(value) for value in details(found).values())
