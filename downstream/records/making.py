"""How the record of a run is made of its folds, and of nothing else.

Made again, anywhere and however often, it is the same to the byte: no clock, no machine, no corpus,
no encoder. Nor do recipe.yaml, identity.json or anything else in the run's folder matter. Imports
no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.plan import audit_rows
from emopeft.downstream.protocols.fields import declared
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.corpora_apart import by_corpus
from emopeft.downstream.records.folds import fold_folder, fold_folders, read_fold
from emopeft.downstream.records.predictions import predictions_text
from emopeft.downstream.records.record_schema import RecordFacts
from emopeft.downstream.records.schema import OPTIONAL
from emopeft.downstream.records.together import by_speaker, pooled, summarise
from emopeft.downstream.records.transfer import differences_of, transfer_summary
from emopeft.downstream.records.values import parse_moment, without_nan
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.files import digest
from emopeft.validation import validated

RESULT, TABLE, UNSCORED_TABLE = "result.json", "predictions.csv", "unscored.csv"
# What decides a number is the same in all folds of a run; of the rest the record has every
# version, or (these) the first fold's and a note that others differ.
FIRST = ("run", "upstream", "method", "head", "parameters", "train", "corpora", "emopeft", "cache")
PLAN = ("protocol", "version", "hash", "audio_hash", "folds", "tests", "overlap", "duplicates")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folds as read, and the record that they make."""

    folds: list[FoldResult]
    record: dict[str, Any]

    @property
    def task(self) -> Task:
        """The task of all folds."""
        return self.folds[0].task

    def table(self) -> str:
        """The text of the run's predictions.csv."""
        rows = [row for fold in self.folds if fold.finished for row in fold.tests]
        return predictions_text(rows, self.task)

    def unscored_table(self) -> str | None:
        """The text of the run's unscored.csv, None where it has no unscored test."""
        if not any(fold.facts.unscored for fold in self.folds):
            return None
        rows = [row for fold in self.folds if fold.finished for row in fold.unscored]
        return predictions_text(rows, self.task, truths=False)


def read_run(run: Path) -> Run:
    """Read all folds of a run that ended, and make their record.

    Raises:
        UserError: there is none, one is damaged or contradicts itself, or they are of several runs.
    """
    folds = []
    for place in fold_folders(run):
        fold = read_fold(place)
        if fold is None:
            continue
        if fold_folder(run, fold.facts.fold, fold.facts.seed) != place:
            raise UserError(
                f"{place} holds fold {fold.facts.fold} of seed {fold.facts.seed}; move it where it "
                "belongs"
            )
        folds.append(fold)
    if not folds:
        raise UserError(f"{run} holds no fold that ended; run it first, or again")
    _same_run(run, folds)
    order = {name: number for number, name in enumerate(folds[0].facts.plan.folds)}
    folds.sort(key=lambda fold: (fold.facts.seed, order[fold.facts.fold]))
    record = validated(f"the record of {run}", RecordFacts, without_nan(_record(folds)))
    return Run(folds, record.to_json())


def _same_run(run: Path, folds: Sequence[FoldResult]) -> None:
    first = folds[0].facts
    for fold in folds[1:]:
        for name in ("identity", "task"):
            if getattr(fold.facts, name) != getattr(first, name):
                raise UserError(_of_another(run, fold, folds[0], name))
        for name in PLAN:
            if getattr(fold.facts.plan, name) != getattr(first.plan, name):
                raise UserError(_of_another(run, fold, folds[0], f"plan.{name}"))


def _of_another(run: Path, fold: FoldResult, other: FoldResult, name: str) -> str:
    one, two = (fold_folder(run, f.facts.fold, f.facts.seed) for f in (fold, other))
    return f"{one} is of another run than {two.name}: {name} differs; keep them in two folders"


def _record(folds: Sequence[FoldResult]) -> dict[str, Any]:
    first = folds[0].facts
    data = [fold.facts.to_json() for fold in folds]
    finished = [entry for entry in data if entry["status"] == "finished"]
    seeds = sorted({seed for fold in folds for seed in fold.facts.seeds})
    pairs = {(entry["fold"], entry["seed"]) for entry in finished}
    lacking = [
        {"fold": name, "seed": seed}
        for seed in seeds
        for name in first.plan.folds
        if (name, seed) not in pairs
    ]
    tests = first.plan.tests if finished else []
    entries = [_entry(entry) for entry in data]
    return {
        "schema": 2,
        "status": "incomplete" if lacking else "finished",
        "name": first.run,
        "id": digest(first.identity),
        "identity": first.identity,
        "created": max((entry["created"] for entry in data), key=parse_moment),
        "task": first.task,
        "plan": data[0]["plan"],
        "audit": audit_of(folds),
        **{name: data[0][name] for name in FIRST if name not in ("run", "emopeft", "cache")},
        "commands": distinct(entry["command"] for entry in data),
        "recipes": distinct(entry["recipe"] for entry in data),
        "numerics": distinct(entry["numerics"] for entry in data),
        "devices": distinct(entry["device"] for entry in data),
        "packages": distinct(entry["packages"] for entry in data),
        "code": distinct(entry["code"] for entry in data),
        "differs": [name for name in FIRST if len(distinct(entry[name] for entry in data)) > 1],
        "folds": entries,
        "missing": lacking,
        "summary": summarise(finished, folds[0].task, first.plan.tests),
        "pooled": {test: pooled(folds, folds[0].task, test) for test in tests},
        "speakers": {test: by_speaker(folds, folds[0].task, test) for test in tests},
        "by_corpus": _corpora_apart(folds, tests),
        "cost": _cost(data),
        "transfer": transfer_summary(entries, folds[0].task) if first.domains else None,
    }


def _corpora_apart(folds: Sequence[FoldResult], tests: Sequence[str]) -> dict[str, Any]:
    """Of each test that holds several corpora, their numbers."""
    found = {test: by_corpus(folds, folds[0].task, test) for test in tests}
    return {test: corpora for test, corpora in found.items() if corpora}


def _entry(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        *("fold", "seed", "status", "reason", "created", "metrics", "stages", "seconds"),
        *("frozen_seconds", "peak_memory_bytes", "hours", "utterances"),
    )
    some = (name for name in OPTIONAL if name in facts)
    entry = {name: facts[name] for name in (*names, *some)}
    if "transfer" in facts:
        entry["transfer"] = facts["transfer"] | differences_of(facts, task_of(facts["task"]))
    return entry


def distinct(values: Iterable[Any]) -> list[Any]:
    """The different ones of some JSON values, in the order of their first."""
    by_digest: dict[str, Any] = {}
    for value in values:
        by_digest.setdefault(digest(value), value)
    return list(by_digest.values())


def audit_of(folds: Sequence[FoldResult]) -> dict[str, Any]:
    """The audit of these folds, from their rows alone.

    A part that shares speakers with train counts as declared where the protocol's name says so,
    too.
    """
    plan = folds[0].facts.plan
    return audit_rows(
        {fold.facts.fold: fold.examples for fold in folds},
        declared=declared(plan.protocol, plan.overlap),
        unknown_speakers=plan.unknown_speakers,
        duplicates=plan.duplicates,
    )


def _cost(data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    results = [stage["result"] for entry in data for stage in entry["stages"] if stage["result"]]
    trained = math.fsum(result["seconds"] for result in results)
    hours = math.fsum(result["audio_hours"] for result in results)
    probes = [entry["probe"]["seconds"] for entry in data if "probe" in entry]
    read = _read_stages(data)
    return {
        "seconds": {
            name: math.fsum(entry["seconds"][name] for entry in data)
            for name in ("load", "features", "tune", "train", "test")
        },
        "frozen_seconds": _most(entry["frozen_seconds"] for entry in data),
        "audio_hours_per_second": hours / trained if trained else None,
        "peak_memory_bytes": {
            name: _most(entry["peak_memory_bytes"][name] for entry in data)
            for name in ("host", "device")
        },
        "cache": data[0]["cache"],
        "probe_seconds": math.fsum(probes) if probes else None,
        "source_seconds": math.fsum(r["seconds"] for r in read) if read else None,
    }


def _read_stages(data: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The results of source's stages that none of these folds trained itself, each once."""
    sides: dict[bool, list[Any]] = {True: [], False: []}
    for entry in data:
        result = entry["stages"][0]["result"]
        if "transfer" in entry and result is not None:
            sides[entry["transfer"]["shared"]].append(result)
    trained = {digest(result) for result in sides[False]}
    return [result for result in distinct(sides[True]) if digest(result) not in trained]


def _most(values: Iterable[Any]) -> Any:
    """The largest that is there, or None."""
    return max((value for value in values if value is not None), default=None)
