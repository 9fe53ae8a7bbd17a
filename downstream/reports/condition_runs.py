"""Finished runs of one plan, and what they predict in each condition; which of them has a frozen
encoder. From records and predictions alone."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.conditions import (
    AppliedFacts,
    Condition,
    checkpoint_digest,
    read_conditions,
)
from emopeft.downstream.records.folds import fold_folder
from emopeft.downstream.records.making import read_run
from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.records.record import Checked, examine
from emopeft.downstream.reports.frozen_base import is_frozen, probe_of
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.views.base import CLEAN, parse_view
from emopeft.errors import UserError, unknown
from emopeft.text import plain

ABSENT, CHECKPOINT, REVISION = (
    "was not tested, or not in every fold,",
    "has changed since it was tested",
    "was tested by another revision of the views, or of their libraries,",
)
Folds = Sequence[tuple[FoldResult, Sequence[Prediction]]]  # of a run, with rows of one condition
# What each condition that any run has is; None where all have it as another revision.
Known = dict[str, list[AppliedFacts] | None]


@dataclasses.dataclass(frozen=True)
class Conditioned:
    """A run and its tests in each condition, all of its finished folds and seeds.

    Attributes:
        name: what it is called beside the others.
        tested: by condition, the clean one first. missing: how many folds and seeds it lacks.
    """

    name: str
    folder: Path
    data: Mapping[str, Any]
    tested: Mapping[str, Folds]
    missing: int

    @property
    def clips(self) -> set[tuple[str, str]]:
        """Each fold's clips."""
        return {(fold.facts.fold, row.id) for fold, rows in self.tested[CLEAN] for row in rows}


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of one plan, on one of its tests.

    Attributes:
        names: the conditions that a run was tested in as they are today, the clean one not among
            them; with what each is.
        base: the place of the run with a frozen encoder that each is compared with, by the place
            of each that has one.
        notes: what is left out or missing, and how to get it; sentences.
    """

    task: Task
    test: str
    plan: Mapping[str, Any]
    runs: Sequence[Conditioned]
    names: Mapping[str, Sequence[AppliedFacts]]
    base: Mapping[int, int]
    notes: Sequence[str]


def read_runs(places: Sequence[Path], base: Path | None = None, test: str = "") -> Runs:
    """Read finished runs with their conditions.

    Args:
        base: see `gather_conditions`; one that is not among the places is put before them.

    Raises:
        UserError: a run that is not believed, has no finished fold, or is of another plan or other
            audio than the first; a run that stands twice; an unknown test; a damaged file.
    """
    if base is not None and base not in places:
        places = [base, *places]
    if twice := next((p for p in places if list(places).count(p) > 1), None):
        raise UserError(f"{twice} is given twice; name each run once")
    checked = [_believed(place) for place in places]
    first = checked[0]
    for place, one in zip(places, checked, strict=True):
        for name, words in (("hash", "another plan"), ("audio_hash", "other audio")):
            if one.data["plan"][name] != first.data["plan"][name]:
                raise UserError(f"{place} is of {words} than {places[0]}: compare runs of one")
    tests = list(first.data["plan"]["tests"])
    if test and test not in tests:
        raise unknown("test of these runs", test, tests)
    test = test or tests[0]
    known: Known = {}
    runs, lacks = [], []
    names = run_names(places, [one.data for one in checked])
    for name, place, one in zip(names, places, checked, strict=True):
        tested, lack = _tested(place, test, known)
        runs.append(Conditioned(name, place, one.data, tested, len(one.data["missing"])))
        lacks.append(lack)
    notes: list[str] = []
    for run, lack in zip(runs, lacks, strict=True):
        notes += _lacking(run, lack, known)
    bases, more = _bases(runs, None if base is None else list(places).index(base))
    notes += more
    notes += [
        f"{run.name} is incomplete: {run.missing} of its folds and seeds are missing."
        for run in runs
        if run.missing
    ]
    conditions = {view: said for view, said in known.items() if said is not None}
    return Runs(first.task, test, first.data["plan"], runs, conditions, bases, notes)


def run_names(places: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Method as it was asked for, and encoder, where they differ; the folder's name where that is
    not enough."""
    specs = [plain(str(data["method"]["asked"] or data["method"]["spec"])) for data in records]
    encoders = [plain(str(data["upstream"]["name"])) for data in records]
    names = specs
    if len(set(encoders)) > 1:
        names = [f"{one} + {spec}" for one, spec in zip(encoders, specs, strict=True)]
    return [
        f"{name} ({plain(place.name)})" if names.count(name) > 1 else name
        for name, place in zip(names, places, strict=True)
    ]


def _believed(place: Path) -> Checked:
    checked = examine(place)
    if checked.problems:
        raise UserError(f"{place} is not what its folds give: {checked.problems[0]}")
    if not any(fold["status"] == "finished" for fold in checked.data["folds"]):
        raise UserError(f"{place} has no finished fold; run it again")
    if not checked.data["identity"]:
        raise UserError(f"{place} is a record of schema 1, which has no folds; run it again")
    return checked


# ---- the conditions of a run ------------------------------------------------------------------


def _tested(place: Path, test: str, known: Known) -> tuple[dict[str, Folds], dict[str, str]]:
    """Of each condition that all finished folds have, the rows of a test; and of every other one
    that some have why it is left out.

    Args:
        known: the conditions of the runs before; those of this run are added.
    """
    folds = [fold for fold in read_run(place).folds if fold.finished]
    of_folds: list[dict[str, Condition]] = []
    lack: dict[str, str] = {}
    for fold in folds:
        folder = fold_folder(place, fold.facts.fold, fold.facts.seed)
        found = {c.facts.view: c for c in read_conditions(folder, fold)}
        checkpoint = checkpoint_digest(folder) if found else None
        for view, condition in found.items():
            said = list(condition.facts.transforms)
            known.setdefault(view, None)
            if checkpoint not in (None, condition.facts.checkpoint):
                lack[view] = CHECKPOINT
            elif not _current(condition):
                lack.setdefault(view, REVISION)
            elif (other := known[view]) is None:
                known[view] = said
            elif said != other:
                lack.setdefault(view, REVISION)
        of_folds.append(found)
    for view in dict.fromkeys(view for found in of_folds for view in found):
        if any(view not in found for found in of_folds):
            lack.setdefault(view, ABSENT)
    tested: dict[str, Folds] = {CLEAN: [(fold, _of(fold.tests, test)) for fold in folds]}
    for view in of_folds[0]:
        if view not in lack:
            pairs = zip(folds, of_folds, strict=True)
            tested[view] = [(fold, _of(found[view].rows, test)) for fold, found in pairs]
    return tested, lack


def _of(rows: Sequence[Prediction], test: str) -> list[Prediction]:
    return [row for row in rows if row.test == test]


def _current(condition: Condition) -> bool:
    """Whether a condition is what its name says today."""
    views = parse_view(condition.facts.view).transforms
    return [(t.name, t.options, t.revision) for t in condition.facts.transforms] == [
        (v.name, {n: of for n, of in v.options().items() if n != "folder"}, v.revision)
        for v in views
    ]


def _lacking(run: Conditioned, lack: Mapping[str, str], known: Mapping[str, Any]) -> list[str]:
    """What a run lacks beside the others, and the command that makes it."""
    if not known:
        command = f"emopeft evaluate {shlex.quote(str(run.folder))} --conditions standard"
        return [f"{run.name} was not tested in any condition yet: {command}"]
    reasons: dict[str, list[str]] = {}
    for view in known:
        if view not in run.tested:
            reasons.setdefault(lack.get(view, ABSENT), []).append(view)
    return [
        f"{run.name} {reason} in {plain(', '.join(views), 300)}: emopeft evaluate "
        f"{shlex.quote(str(run.folder))} --conditions {plain(shlex.quote('|'.join(views)), 2000)}"
        for reason, views in reasons.items()
    ]


# ---- what they are compared with --------------------------------------------------------------


def _bases(runs: Sequence[Conditioned], base: int | None) -> tuple[dict[int, int], list[str]]:
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
                f"{run.name} is not compared with {runs[best].name}: they have not the same folds."
            )
    if len(runs) > 1 and not found and not notes:
        notes.append(
            "No run has a frozen encoder (-p none) to compare the others with; give one, or --base."
        )
    return found, notes
