"""Metrics from sums over speakers are those of the rows, each as often as its speaker is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.reports.tallies import counting_of, statistic_of
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask

CLASSES = ("a", "b", "c", "d")  # of which nothing is d
EMOTION = EmotionTask(CLASSES)
RATED = DimensionalTask.from_description(
    {"dimensions": [{"name": n, "low": 1, "high": 7} for n in "vw"]}
)
JOINT = JointTask([EMOTION, RATED])
SPEAKERS = [f"s{i}" for i in range(6)]


def rows_of() -> list[Prediction]:
    """Two folds of three speakers, two seeds."""
    rng = np.random.default_rng(0)
    rows = []
    for i, speaker in enumerate(SPEAKERS):
        for clip in range(5 + i):
            for seed in (0, 1):
                truth = CLASSES[(clip + i) % 3]
                said = CLASSES[int(rng.integers(4))]
                y = rng.uniform(1, 7, 2)
                x = y + rng.normal(0, 1, 2)
                values = {
                    "emotion.truth": truth, "emotion.prediction": said,
                    **{f"emotion.score_{c}": float(c == said) for c in CLASSES},
                    "dimensional.truth_v": y[0], "dimensional.prediction_v": x[0],
                    "dimensional.truth_w": math.nan if clip == 2 else y[1],
                    "dimensional.prediction_w": x[1],
                }  # fmt: skip
                fold = "1" if i < 3 else "2"
                rows.append(Prediction(f"{speaker}{clip}", fold, seed, "test", speaker, {}, values))
    return rows


def by_rows(task: Task, metric: str, times: list[int]) -> float:
    """The mean over folds, of each the mean over seeds of the task's own measure of the rows."""
    total, weights = 0.0, 0.0
    for fold, own in (("1", range(3)), ("2", range(3, 6))):
        weight = sum(times[i] for i in own) / 3
        if not weight:
            continue
        values = []
        for seed in (0, 1):
            some = [r for r in rows_of() if (r.fold, r.seed) == (fold, seed)]
            some = [r for r in some for _ in range(times[SPEAKERS.index(r.speaker)])]
            values.append(task.measure(table_of(some, task))[metric])
        total += weight * sum(values) / 2
        weights += weight
    return total / weights


@pytest.mark.parametrize("times", [[1] * 6, [2, 0, 1, 0, 0, 3], [0, 0, 0, 1, 4, 1]])
@pytest.mark.parametrize(
    "metric", ["emotion.accuracy", "emotion.uar", "emotion.macro_f1",
               "dimensional.ccc", "dimensional.ccc_w"],
)  # fmt: skip
def test_drawn_speakers_are_rows_taken_as_often(metric: str, times: list[int]) -> None:
    counting = counting_of(JOINT, metric)
    assert counting is not None
    statistic = statistic_of(counting, rows_of(), SPEAKERS)
    (found,) = statistic(np.array([times]))
    assert found == pytest.approx(by_rows(JOINT, metric, times), abs=1e-12)


def test_what_is_no_function_of_sums_says_so() -> None:
    for task, metric in ((EMOTION, "nll"), (RATED, "rmse"), (JOINT, "emotion.rmse"), (JOINT, "x")):
        assert counting_of(task, metric) is None


def test_nobody_drawn_is_no_number() -> None:
    for metric in ("emotion.uar", "dimensional.ccc"):
        counting = counting_of(JOINT, metric)
        assert counting is not None
        assert np.isnan(statistic_of(counting, rows_of(), SPEAKERS)(np.zeros((1, 6)))).all()
