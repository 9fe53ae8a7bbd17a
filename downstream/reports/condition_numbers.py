"""What conditions cost finished runs in the main metric, with intervals over speakers.

Speakers are drawn, and what is compared (a condition with the clean tests, a method with the
frozen encoder's probe) is measured on the same draws. A fold counts by how many of its speakers
were drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emopeft.downstream.measures.columns import NONE, Metric
from emopeft.downstream.measures.resampling import (
    Interval,
    Measure,
    Sample,
    Statistic,
    over_folds,
    speaker_intervals,
)
from emopeft.downstream.measures.weighted import concordance, moments, uar
from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.reports.condition_runs import Conditioned, Folds, Runs
from emopeft.downstream.reports.tested import summary_of
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.classes import ClassTask
from emopeft.downstream.tasks.dimensional import PREDICTION, TRUTH, DimensionalTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.views.base import CLEAN

DIGITS = 12  # behind the point; beyond them is rounding


@dataclasses.dataclass(frozen=True)
class Number:
    """A value with the 95 % interval that it may lie in; None where there is none."""

    value: float
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """A run in a condition; what is better is larger in every number but ``level``.

    Attributes:
        summary: the metric over folds, as records have it. level: its mean.
        drop: the clean mean minus it: what the condition costs.
        gain: it minus that of the run it is compared with, None without one.
        more: how much more the condition costs than it costs that one; None of the clean tests.
    """

    summary: Mapping[str, Any]
    level: Number
    drop: Number | None
    gain: Number | None
    more: Number | None


Sums = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


def sums_of(task: Task, metric: str, rows: Sequence[Prediction]) -> Sums | None:
    """What a metric is a function of when it is added up over rows: (rows, k), and the function,
    (draws, k) to (draws,); None of a metric that is no such thing here."""
    return _sums(task, metric, [row.values for row in rows])


def _sums(task: Task, metric: str, rows: Sequence[Mapping[str, Any]]) -> Sums | None:
    if isinstance(task, JointTask):
        name, _, own = metric.partition(".")
        columns = [column.name for column in task.parts[name].columns]
        values = [{column: row[f"{name}.{column}"] for column in columns} for row in rows]
        return _sums(task.parts[name], own, values)
    if isinstance(task, ClassTask) and metric == "uar":
        return _uar_sums(task.classes, rows)
    if isinstance(task, DimensionalTask) and metric in ("ccc", *(f"ccc_{n}" for n in task.scales)):
        return _ccc_sums([n for n in task.scales if metric in ("ccc", f"ccc_{n}")], rows)
    return None


def _uar_sums(classes: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Sums:
    place, count = {name: i for i, name in enumerate(classes)}, len(classes)
    cells = np.zeros((len(rows), count * count))
    for number, row in enumerate(rows):
        if row["truth"]:  # else it has no class
            cells[number, place[row["truth"]] * count + place[row["prediction"]]] = 1.0
    return cells, lambda sums: uar(sums.reshape(-1, count, count))


def _ccc_sums(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Sums:
    each = [
        moments(*([row[of + name] for row in rows] for of in (TRUTH, PREDICTION))) for name in names
    ]
    count = len(names)
    return np.concatenate(each, -1), lambda sums: concordance(sums.reshape(-1, count, 5)).mean(-1)


def statistic_of(task: Task, folds: Folds, speakers: Sequence[str]) -> Statistic | None:
    """The main metric's mean over folds by how often each speaker counts, see `over_folds`."""
    rows = [row for _, of in folds for row in of]
    made = sums_of(task, task.main, rows)
    if made is None:
        return None
    cells, value = made
    units: dict[tuple[str, int, str], int] = {}
    places = [units.setdefault((row.fold, row.seed, row.speaker), len(units)) for row in rows]
    sums = np.zeros((len(units), cells.shape[-1]))
    np.add.at(sums, places, cells)
    in_fold, of_seed, who = zip(*units, strict=True)
    sample = Sample.of(who, in_fold, of_seed, speakers)

    def measure(some: np.ndarray) -> Measure:
        return lambda weights: value(weights @ sums[some])

    return over_folds(sample, measure)


def cells_of(runs: Runs) -> list[dict[str, Cell]]:
    """Per run, its numbers in the clean tests and in each condition."""
    metric = runs.task.metric(runs.task.main)
    levels = [
        {name: summary_of(folds, runs.test)[metric.name] for name, folds in run.tested.items()}
        for run in runs.runs
    ]
    found = []
    for i, run in enumerate(runs.runs):
        base = runs.base.get(i)
        other = None if base is None else runs.runs[base]
        intervals = _intervals(runs.task, run, other)
        theirs = {} if base is None else levels[base]
        found.append(
            {name: _cell(name, metric, levels[i], theirs, intervals) for name in run.tested}
        )
    return found


def _cell(
    name: str,
    metric: Metric,
    levels: Mapping[str, Mapping[str, Any]],
    theirs: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[tuple[str, str], Interval],
) -> Cell:
    sign = 1.0 if metric.better == "higher" else -1.0

    def number(what: str, value: float) -> Number:
        ends = intervals.get((what, name))
        return Number(_clear(value), None if ends is None else (_clear(ends[0]), _clear(ends[1])))

    def mean(of: Mapping[str, Mapping[str, Any]], condition: str) -> float:
        known = of[condition]["mean"]
        return math.nan if known is None else known

    drop = gain = more = None
    here = mean(levels, name)
    cost = sign * (mean(levels, CLEAN) - here)
    if name != CLEAN:
        drop = number("drop", cost)
    if name in theirs:
        gain = number("gain", sign * (here - mean(theirs, name)))
        if name != CLEAN:
            more = number("more", cost - sign * (mean(theirs, CLEAN) - mean(theirs, name)))
    return Cell(levels[name], number("level", here), drop, gain, more)


def _clear(value: float) -> float:
    """Without what rounding left of 0."""
    return round(value, DIGITS) + 0.0


def _intervals(
    task: Task, run: Conditioned, other: Conditioned | None
) -> dict[tuple[str, str], Interval]:
    """Of (level, drop, gain or more; condition), where it has one."""
    speakers = sorted({row.speaker for _, rows in run.tested[CLEAN] for row in rows})
    if "" in speakers:
        return {}
    own = {name: statistic_of(task, folds, speakers) for name, folds in run.tested.items()}
    base = {} if other is None else other.tested
    theirs = {name: statistic_of(task, base[name], speakers) for name in own if name in base}
    if own[CLEAN] is None:
        return {}
    labels = [("level", name) for name in own] + [("drop", name) for name in own if name != CLEAN]
    labels += [("gain", name) for name in theirs]
    labels += [("more", name) for name in theirs if name != CLEAN]

    def values(times: np.ndarray) -> np.ndarray:
        mine = {name: of(times) for name, of in own.items() if of is not None}
        their = {name: of(times) for name, of in theirs.items() if of is not None}
        made = {
            "level": lambda name: mine[name],
            "drop": lambda name: mine[CLEAN] - mine[name],
            "gain": lambda name: mine[name] - their[name],
            "more": lambda name: mine[CLEAN] - mine[name] - their[CLEAN] + their[name],
        }
        return np.stack([made[what](name) for what, name in labels])

    seeds = {fold.facts.seed for fold, _ in run.tested[CLEAN]}
    size = 2 * len(labels) + len(speakers) * len(seeds) + len(task.classes) ** 2
    found = speaker_intervals(values, len(speakers), size)
    return {
        label: ends
        for label, ends in zip(labels, found or (), strict=False)
        if np.isfinite(ends).all()
    }


def verdict(more: Number | None) -> str:
    """What an interval says of a method beside the frozen encoder; a dash where there is none."""
    if more is None:
        return NONE
    if more.interval is None:
        return "nobody can tell"
    low, high = more.interval
    if low > 0:
        return "less robust"
    return "more robust" if high < 0 else "cannot be told"
