"""Metrics as functions of sums over each speaker's clips, so that thousands of draws of speakers
are products of small matrices. Imports no torch.

Accuracy, UAR and macro-F1 are functions of a confusion matrix, Lin's CCC of five sums; each of a
fold and seed, so that their mean over folds is the record's (`measures.resampling.over_folds`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emopeft.downstream.measures.resampling import Sample, Statistic, over_folds
from emopeft.downstream.measures.weighted import accuracy, uar
from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.tasks.base import Task

Values = Mapping[str, Any]  # a row's columns of the task
MOMENTS = 5  # of a rating: n, x, y, x^2 + y^2, x y


@dataclasses.dataclass(frozen=True)
class Counting:
    """How a metric is counted.

    Attributes:
        sums: of a row's columns what is added up, (sums,).
        value: of totals (draws, sums) the metric (draws,), NaN where it has none.
    """

    sums: Callable[[Values], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]


def counting_of(task: Task, metric: str) -> Counting | None:
    """How a metric of a task is counted; None: not from sums."""
    parts = getattr(task, "parts", None)
    if parts is not None:
        name, _, own = metric.partition(".")
        found = counting_of(parts[name], own) if name in parts else None
        return None if found is None else _of_part(name, found)
    columns = {column.name: column for column in task.columns}
    if metric in OF_CONFUSION and {"truth", "prediction"} <= set(columns):
        return _of_classes(columns["truth"].classes or (), OF_CONFUSION[metric])
    rated = [c.name.removeprefix("truth_") for c in task.columns if c.role == "truth"]
    if metric == "ccc" or metric.removeprefix("ccc_") in rated:
        chosen = rated if metric == "ccc" else [metric.removeprefix("ccc_")]
        if all({f"truth_{d}", f"prediction_{d}"} <= set(columns) for d in chosen):
            return _of_ratings(chosen)
    return None


def statistic_of(
    counting: Counting, rows: Sequence[Prediction], speakers: Sequence[str]
) -> Statistic:
    """The mean over folds of a metric of some rows, by how often each of the speakers counts."""
    cells: dict[tuple[str, str, int], np.ndarray] = {}
    for row in rows:
        key, sums = (row.speaker, row.fold, row.seed), counting.sums(row.values)
        cells[key] = cells[key] + sums if key in cells else sums
    who, folds, seeds = zip(*cells, strict=True)
    totals = np.stack(list(cells.values()))

    def measure(some: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda weights: counting.value(weights @ totals[some])

    return over_folds(Sample.of(who, folds, seeds, speakers), measure)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that the truth holds (draws,), as `classes.emotion_metrics`; NaN of
    no row."""
    truth, said = confusion.sum(-1), confusion.sum(-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        f1 = np.where(truth > 0, 2 * hits / np.where(truth + said > 0, truth + said, 1.0), 0.0)
        return f1.sum(-1) / (truth > 0).sum(-1)


OF_CONFUSION = {"accuracy": accuracy, "uar": uar, "macro_f1": macro_f1}


def _of_classes(classes: Sequence[str], value: Callable[[np.ndarray], np.ndarray]) -> Counting:
    place, count = {name: i for i, name in enumerate(classes)}, len(classes)

    def sums(values: Values) -> np.ndarray:
        found = np.zeros(count * count)
        if values["truth"]:  # else raters do not agree on one
            found[place[values["truth"]] * count + place[values["prediction"]]] = 1.0
        return found

    return Counting(sums, lambda totals: value(totals.reshape(-1, count, count)))


def _of_ratings(dimensions: Sequence[str]) -> Counting:
    def sums(values: Values) -> np.ndarray:
        found = np.zeros((len(dimensions), MOMENTS))
        for i, name in enumerate(dimensions):
            x, y = values[f"prediction_{name}"], values[f"truth_{name}"]
            if not math.isnan(y):
                found[i] = 1.0, x, y, x * x + y * y, x * y
        return found.ravel()

    def value(totals: np.ndarray) -> np.ndarray:
        n, x, y, squares, both = np.moveaxis(totals.reshape(-1, len(dimensions), MOMENTS), -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            covariance = both / n - (x / n) * (y / n)
            spread = squares / n - (x / n) ** 2 - (y / n) ** 2
            return (2 * covariance / (spread + (x / n - y / n) ** 2)).mean(-1)

    return Counting(sums, value)


def _of_part(name: str, counting: Counting) -> Counting:
    begin = f"{name}."

    def sums(values: Values) -> np.ndarray:
        own = {k.removeprefix(begin): v for k, v in values.items() if k.startswith(begin)}
        return counting.sums(own)

    return Counting(sums, counting.value)
