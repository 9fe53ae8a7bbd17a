"""Finished runs of one plan whose classes have scores: what calibration and class measures are of.

From records and predictions alone; imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emopeft.downstream.measures.resampling import Interval, speaker_intervals
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.record import Checked, examine
from emopeft.downstream.records.scores import Scores, class_part, scores_of, tested
from emopeft.downstream.reports.frozen_base import is_frozen, probe_of
from emopeft.downstream.reports.results import method_name, upstream_name
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError, unknown
from emopeft.text import plain


@dataclasses.dataclass(frozen=True)
class ClassRun:
    """A run on one of its tests.

    Attributes:
        name: what it is called beside the others. record: made again from its folds.
        folds: those that are finished. scores: of all their rows of the test that have a target.
    """

    name: str
    record: Mapping[str, Any]
    folds: Sequence[FoldResult]
    scores: Scores

    @property
    def seeds(self) -> list[int]:
        """Of its rows, in order."""
        return sorted(set(self.scores.seeds))

    def of_seed(self, seed: int) -> Scores:
        """Its rows of a seed."""
        return self.scores.of(np.flatnonzero(np.array(self.scores.seeds) == seed))


@dataclasses.dataclass(frozen=True)
class ClassRuns:
    """Runs on one test of one plan.

    Attributes:
        speakers: of the test, sorted; none where one is unknown, so that they cannot be drawn.
        bases: of each run the place of the frozen probe that it is compared with, or None.
        notes: what a reader must know, a sentence each.
    """

    task: Task
    test: str
    runs: Sequence[ClassRun]
    speakers: Sequence[str]
    bases: Sequence[int | None]
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """What all runs share: encoder, corpora, protocol and test."""
        record = self.runs[0].record
        encoders = dict.fromkeys(upstream_name(run.record["upstream"]) for run in self.runs)
        corpora = " + ".join(corpus["name"] for corpus in record["corpora"])
        plan = record["plan"]
        title = f"{' and '.join(encoders)} on {corpora}, {plan['protocol']} (hash "
        title += f"{plan['hash'][:12]})"
        return plain(title + (f", {self.test}" if len(plan["tests"]) > 1 else ""), 300)


def read_class_runs(places: Sequence[Path], test: str | None = None) -> ClassRuns:
    """Runs by their folders.

    Args:
        test: a test of their plan; None: its first.

    Raises:
        UserError: a run that is not there, is not believed, has no scores of classes, or no dev
            (schema 1), is of another plan than the first, or named twice; no such test, or nothing
            in it.
    """
    checked = [examine(place) for place in places]
    plan = checked[0].data["plan"]
    for place, one in zip(places, checked, strict=True):
        if one.problems:
            raise UserError(f"{place} is not what its folds give: {one.problems[0]}")
        if not one.folds:
            raise UserError(f"{place} is a record of schema 1, without dev: run it again")
        if one.data["plan"]["hash"] != plan["hash"]:
            raise UserError(f"{place} is of another plan than {places[0]}: compare runs of one")
    class_part(checked[0].task)
    if len({place.resolve() for place in places}) < len(places):
        raise UserError("a run is named twice; name each once")
    test = plan["tests"][0] if test is None else test
    if test not in plan["tests"]:
        raise unknown(f"test of {plain(plan['protocol'])}", test, plan["tests"])
    names = _names(places, [one.data for one in checked])
    runs = [
        _run(place, name, one, test)
        for place, name, one in zip(places, names, checked, strict=True)
    ]
    speakers = sorted({name for run in runs for name in run.scores.speakers})
    notes = [_lacking(run) for run in runs if run.record["missing"]]
    if "" in speakers:
        notes.append("Some speakers are not known, so that there are no intervals.")
        speakers = []
    elif len(speakers) < 2:
        notes.append("There is one speaker, so that there are no intervals.")
    bases, more = _bases(runs)
    return ClassRuns(checked[0].task, test, runs, speakers, bases, [*notes, *more])


@dataclasses.dataclass(frozen=True)
class Number:
    """A value (NaN: none), and its 95 % interval, where there is one."""

    value: float
    interval: Interval | None = None


def numbers_of(
    statistics: Callable[[np.ndarray], np.ndarray], speakers: int, size: int
) -> list[Number]:
    """Values with their intervals; arguments as `speaker_intervals`. A value that some draw has not
    (it holds no clip of a class, for instance) has no interval."""
    values = statistics(np.ones((1, max(1, speakers)), dtype=np.intp))[:, 0].tolist()
    found = speaker_intervals(statistics, speakers, size)
    if found is None:
        return [Number(value) for value in values]
    return [
        Number(value, None if math.isnan(ends[0]) else ends)
        for value, ends in zip(values, found, strict=True)
    ]


def _run(place: Path, name: str, one: Checked, test: str) -> ClassRun:
    folds = [fold for fold in one.folds if fold.finished]
    rows = [row for fold in folds for row in tested(fold, test)]
    scores = scores_of(rows, folds[0].task) if folds else None
    if scores is None or not len(scores.certain):
        raise UserError(f"{place} holds no clip of test '{plain(test)}' whose class is known")
    return ClassRun(name, one.data, folds, scores)


def _lacking(run: ClassRun) -> str:
    count = len(run.record["missing"])
    return f"{run.name} is not finished: {count} fold{'s' if count > 1 else ''} missing."


def _names(places: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The method, with the encoder where they differ, and the folder where that is not enough."""
    names = [plain(method_name(data)) for data in records]
    encoders = [plain(upstream_name(data["upstream"])) for data in records]
    if len(set(encoders)) > 1:
        names = [f"{one} + {name}" for one, name in zip(encoders, names, strict=True)]
    again = {name for name in names if names.count(name) > 1}
    return [
        f"{name} ({plain(str(place))})" if name in again else name
        for name, place in zip(names, places, strict=True)
    ]


def _bases(runs: Sequence[ClassRun]) -> tuple[list[int | None], list[str]]:
    """Of each run the frozen probe of its encoder that is most like it, and what hinders it."""

    def clips(run: ClassRun) -> set[tuple[str, str]]:
        return {(row.fold, row.id) for fold in run.folds for row in fold.tests}  # of all its tests

    records = [run.record for run in runs]
    bases: list[int | None] = []
    notes = []
    for place, run in enumerate(runs):
        best = probe_of(records, place)
        if best is None or is_frozen(run.record):
            bases.append(None)
        elif clips(runs[best]) != clips(run):
            bases.append(None)
            notes.append(
                f"{run.name} and {runs[best].name} have not the same folds: no difference."
            )
        else:
            bases.append(best)
    return bases, notes
