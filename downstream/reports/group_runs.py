"""Finished runs of one plan, what they predict, and which of them has a frozen encoder: what groups
are compared on. From records and predictions alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.measures.by_group import CCC, UAR
from emopeft.downstream.records.making import TABLE
from emopeft.downstream.records.predictions import Prediction, read_predictions
from emopeft.downstream.records.record import examine
from emopeft.downstream.reports.frozen_base import is_frozen, probe_of
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError, unknown
from emopeft.text import plain

SCHEMA = 2  # of records whose predictions have traits
TRUTH, PREDICTION = "truth", "prediction"


@dataclasses.dataclass(frozen=True)
class Part:
    """What is predicted: a class, or a rating.

    Attributes:
        title: of it where a task has several. truth, prediction: its columns of predictions.csv.
        classes: in order; none of a rating. dimension: the rating's name.
    """

    title: str
    truth: str
    prediction: str
    classes: tuple[str, ...] = ()
    dimension: str = ""

    @property
    def main(self) -> str:
        """The measure that groups are compared by."""
        return UAR if self.classes else CCC


@dataclasses.dataclass(frozen=True)
class OneRun:
    """A run, and what it predicted of one test: the clips whose speakers are known.

    Attributes:
        name: what it is called beside the others. missing: how many folds and seeds it lacks.
    """

    name: str
    folder: Path
    data: Mapping[str, Any]
    rows: Sequence[Prediction]
    missing: int

    @property
    def clips(self) -> set[tuple[str, str, int]]:
        """The clips of each fold and seed."""
        return {(row.id, row.fold, row.seed) for row in self.rows}


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of one plan.

    Attributes:
        base: the place of the run with a frozen encoder that each is compared with, by the place
            of each that has one.
        unknown: clips of unknown speakers, which are left out.
    """

    task: Task
    test: str
    plan: Mapping[str, Any]
    runs: Sequence[OneRun]
    base: Mapping[int, int]
    unknown: int
    notes: Sequence[str]

    @property
    def parts(self) -> list[Part]:
        """What the task predicts."""
        return parts_of(self.task)


def parts_of(task: Task) -> list[Part]:
    """What a task predicts that has a truth; what only helps another is left out."""
    tasks = getattr(task, "parts", {"": task})
    found = []
    for name, one in tasks.items():
        begin = f"{name}." if name else ""
        names = {column.name for column in one.columns}
        for column in () if one.auxiliary and len(tasks) > 1 else one.columns:
            said = PREDICTION + column.name.removeprefix(TRUTH)
            if column.role == TRUTH and column.name.startswith(TRUTH) and said in names:
                item = column.name.removeprefix(TRUTH).lstrip("_")
                title = " ".join(word for word in (name, item) if word)
                found.append(
                    Part(title, begin + column.name, begin + said, column.classes or (), item)
                )
    return found


def read_runs(places: Sequence[Path], base: Path | None = None, test: str = "") -> Runs:
    """Read finished runs, and find the one with a frozen encoder for each.

    Args:
        base: the run that all are compared with; None: of those given, one of the method
            ``none`` on the same encoder. test: its name; "": the main one.

    Raises:
        UserError: a run that is not believed, or of another plan; a test that is not there; no
            speaker that is known, or nothing that can be counted.
    """
    places = list(dict.fromkeys([*places, *([] if base is None else [base])]))
    checked = [examine(place) for place in places]
    for place, one in zip(places, checked, strict=True):
        if one.problems:
            raise UserError(f"{place} is not what its folds give: {one.problems[0]}")
        if one.data["schema"] != SCHEMA:
            raise UserError(f"{place} is an old record, which has no traits; run it again")
        if one.data["plan"]["hash"] != checked[0].data["plan"]["hash"]:
            raise UserError(f"{place} is of another plan than {places[0]}: compare runs of one")
    task, tests = checked[0].task, checked[0].data["plan"]["tests"]
    if not parts_of(task):
        raise UserError(
            f"task {task.name} has no single truth and prediction, which groups are counted by; "
            "give runs of -d emotion, emotion-soft or dimensional"
        )
    if test and test not in tests:
        raise unknown("test of these runs", test, tests)
    test = test or tests[0]
    runs, left = [], set()
    names = _names(places, [one.data for one in checked])
    for name, place, one in zip(names, places, checked, strict=True):
        rows = [r for r in read_predictions(place / TABLE, task) if r.test == test]
        left |= {row.id for row in rows if not row.speaker}
        known = [row for row in rows if row.speaker]
        if not known:
            reason = "its speakers are not known" if rows else "it has no fold that ended"
            raise UserError(f"{place} tells nothing of groups on test {plain(test)}: {reason}")
        runs.append(OneRun(name, place, one.data, known, len(one.data.get("missing") or ())))
    bases, notes = _bases(runs, None if base is None else places.index(base))
    return Runs(task, test, checked[0].data["plan"], runs, bases, len(left), notes)


def _names(places: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Encoder and method, only what differs; the folder's name where that is not enough."""
    specs = [plain(str(data["method"]["asked"] or data["method"]["spec"])) for data in records]
    encoders = [plain(str(data["upstream"]["name"])) for data in records]
    names = specs
    if len(set(encoders)) > 1:
        names = [f"{one} + {spec}" for one, spec in zip(encoders, specs, strict=True)]
    again = {name for name in names if names.count(name) > 1}
    return [
        f"{name} ({plain(place.name)})" if name in again else name
        for name, place in zip(names, places, strict=True)
    ]


def _bases(runs: Sequence[OneRun], base: int | None) -> tuple[dict[int, int], list[str]]:
    """The run that each is compared with; and why some have none."""

    found, notes = {}, []
    records = [run.data for run in runs]
    for i, run in enumerate(runs):
        best = probe_of(records, i) if base is None else base
        if best is None or best == i or (base is None and is_frozen(run.data)):
            continue
        if runs[best].clips == run.clips:
            found[i] = best
        else:
            notes.append(
                f"not compared with {runs[best].name}: {run.name}, which has not the same folds "
                "and seeds"
            )
    return found, notes
