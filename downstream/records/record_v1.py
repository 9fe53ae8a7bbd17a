"""Records of schema 1, read for what they are: classes, one test per fold, no plan to check.

Such a record vouches for its merged predictions.csv alone: columns ``id,fold,seed,speaker,truth,
prediction,score_<class>...``. Its metrics are counted again from these, and it is shown in the form
of schema 2, under its own protocol hash, so that it never shares a table with newer ones.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from emopeft.downstream.records.checks import short
from emopeft.downstream.records.predictions import LARGEST, Prediction, table_of
from emopeft.downstream.records.record import TABLE, summarise
from emopeft.downstream.records.schema import (
    Count,
    Hex,
    Hours,
    Moment,
    Name,
    Object,
    ParameterFacts,
    Seconds,
    Seed,
    Text,
    no_truth_value,
)
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from emopeft.files import digest, read_text
from emopeft.validation import Strict, validated

COLUMNS = ("id", "fold", "seed", "speaker", "truth", "prediction")
TEST = "test"
TOLERANCE = 1e-6  # how far a recorded metric may lie from the recounted one, absolute
METRICS = ("accuracy", "uar", "macro_f1")
Score = Annotated[float, Field(ge=0, le=1)]


class _Open(Strict):
    """Schema 1 allowed more keys; they are not read."""

    model_config = ConfigDict(extra="ignore")


class Metrics(_Open):
    """The metrics of one fold."""

    accuracy: Score
    uar: Score
    macro_f1: Score
    confusion: list[list[Count]]


class Fold(_Open):
    """One entry of ``folds``."""

    fold: Name
    seed: Seed
    metrics: Metrics
    lr: Annotated[float, Field(ge=0)]
    steps: Count
    best_step: Count | None
    seconds: dict[Name, Seconds]


class Mean(_Open):
    """One entry of ``summary``."""

    mean: Score
    std: Score | None
    n: Annotated[int, Field(ge=1)]
    seed_std: Score | None = None


class Corpus(_Open):
    """``corpus``."""

    name: Name
    title: Text
    licence: Text
    utterances: Count
    hours: Hours


class OldProtocol(_Open):
    """``protocol``."""

    name: Name
    version: Count
    hash: Hex
    classes: Annotated[list[Name], Field(min_length=2, max_length=1000)]
    folds: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    speaker_overlap: list[Name]
    audit: Object


class Upstream(_Open):
    """``upstream``."""

    name: Name
    loader: Name
    source: Text | None
    revision: Text | None
    weights: Hex | None
    licence: Text | None
    parameters: Count
    note: Text | None


class Part(_Open):
    """One method of a sum."""

    name: Name
    options: Object
    parameters: Count


class Method(_Open):
    """``method``."""

    spec: Name
    parts: list[Part]


class Phases(_Open):
    """``cost.seconds``."""

    load: Seconds
    features: Seconds
    train: Seconds
    test: Seconds


class Cost(_Open):
    """``cost``."""

    seconds: Phases
    audio_hours_per_second: Hours | None
    peak_memory_bytes: Count | None
    cache_bytes: Count | None


class Device(_Open):
    """``device``."""

    name: Name
    precision: Name
    processes: Annotated[int, Field(ge=1)]


class RecordV1(_Open):
    """result.json of schema 1."""

    schema_version: Annotated[Literal[1], BeforeValidator(no_truth_value)] = Field(alias="schema")
    status: Literal["finished", "incomplete"]
    name: Name
    identity: Hex
    task: Literal["emotion"]
    created: Moment
    command: Text
    corpus: Corpus
    protocol: OldProtocol
    upstream: Upstream
    method: Method
    head: Object
    training: Object
    folds: Annotated[list[Fold], Field(min_length=1, max_length=100_000)]
    summary: dict[Name, Mean]
    parameters: ParameterFacts
    cost: Cost
    device: Device
    packages: dict[Name, Name]

    @model_validator(mode="after")
    def _fits(self) -> RecordV1:
        classes, names = self.protocol.classes, self.protocol.folds
        if len(set(classes)) != len(classes) or len(set(names)) != len(names):
            raise ValueError("'protocol' names a class or a fold twice")
        seen = set()
        for entry in self.folds:
            if entry.fold not in names:
                raise ValueError(f"fold {entry.fold[:60]!r} is not one of the protocol")
            if (entry.fold, entry.seed) in seen:
                raise ValueError(f"'folds' repeats fold {entry.fold[:60]} of seed {entry.seed}")
            seen.add((entry.fold, entry.seed))
        if set(self.summary) != set(METRICS):
            raise ValueError(f"'summary' must hold {', '.join(METRICS)}")
        numbers = self.parameters
        if numbers.method + numbers.head != numbers.trainable or numbers.trainable > numbers.total:
            raise ValueError("'parameters': method + head must be trainable, at most total")
        if self.status == "finished" and _missing(self):
            raise ValueError("'status' is finished, but folds are missing")
        return self


def _missing(record: RecordV1) -> list[dict[str, Any]]:
    there = {(entry.fold, entry.seed) for entry in record.folds}
    return [
        {"fold": fold, "seed": seed}
        for seed in sorted({seed for _, seed in there})
        for fold in record.protocol.folds
        if (fold, seed) not in there
    ]


def is_one(data: Any) -> bool:
    """Whether a result.json says that it is of schema 1."""
    version = data.get("schema") if isinstance(data, dict) else None
    return type(version) is int and version == 1


def read(path: Path, data: Any) -> RecordV1:
    """A checked record; raises UserError naming file and key."""
    return validated(str(path), RecordV1, data)


def examined(
    run: Path, record: RecordV1
) -> tuple[EmotionTask, dict[str, Any], list[str], list[str]]:
    """Count a record again: its task, its view in schema 2, problems and warnings.

    Raises UserError when its predictions.csv is missing or damaged.
    """
    task = EmotionTask(record.protocol.classes)
    rows = read_predictions(run / TABLE, task)
    problems = _problems(record, task, rows)
    counted = {
        (fold, seed): task.measure(table_of(of, task)) for (fold, seed), of in _groups(rows).items()
    }
    # The tests were not hashed apart: the table of a row is that of what it was tested on, too.
    tested = digest(sorted({(row.fold, row.id, row.values["truth"]) for row in rows}))
    warnings = ["a record of schema 1: neither its folds nor its audit can be computed again"]
    if record.protocol.audit.get("clean") is False:
        problems.append("its own audit says that it is not clean")
    return task, converted(record, counted, tested), problems, warnings


def _groups(rows: Sequence[Prediction]) -> dict[tuple[str, int], list[Prediction]]:
    groups: dict[tuple[str, int], list[Prediction]] = {}
    for row in rows:
        groups.setdefault((row.fold, row.seed), []).append(row)
    return groups


def _problems(record: RecordV1, task: EmotionTask, rows: Sequence[Prediction]) -> list[str]:
    """Where a record and its rows disagree."""
    problems = []
    groups = _groups(rows)
    tests: dict[str, dict[str, str]] = {}
    for (fold, seed), of in groups.items():
        test = {row.id: row.values["truth"] for row in of}
        if tests.setdefault(fold, test) != test:
            problems.append(f"fold {fold}: seed {seed} has another test set than the first seed")
        if len(test) != len(of):
            problems.append(f"fold {fold}, seed {seed}: an utterance is predicted twice")
    tested = sum(map(len, tests.values()))
    if not _missing(record) and len({i for test in tests.values() for i in test}) > max(
        record.corpus.utterances, 0
    ):
        problems.append(
            f"{tested} utterances are tested, the corpus has {record.corpus.utterances}"
        )
    for entry in record.folds:
        where = f"fold {entry.fold}, seed {entry.seed}"
        own = groups.pop((entry.fold, entry.seed), None)
        if own is None:
            problems.append(f"{where}: there are no predictions")
            continue
        counted = task.measure(table_of(own, task)) | {"macro_f1": _old_macro_f1(own, task)}
        for name in METRICS:
            told = getattr(entry.metrics, name)
            problems += _differ(f"{where}: {name}", told, counted[name])
        if entry.metrics.confusion != counted["confusion"]:
            problems.append(f"{where}: the confusion matrix is not that of the predictions")
    problems += [f"fold {fold}, seed {seed}: no result" for fold, seed in sorted(groups)]
    if not problems:
        folds = [
            {"fold": e.fold, "seed": e.seed, "metrics": {TEST: e.metrics.model_dump()}}
            for e in record.folds
        ]
        for name, found in summarise(folds, task, [TEST])[TEST].items():
            for key, value in found.items():
                told = getattr(record.summary[name], key)
                problems += _differ(f"summary.{name}.{key}", told, value)
    return problems


def _old_macro_f1(rows: Sequence[Prediction], task: EmotionTask) -> float:
    """Over the classes in truth or in prediction, as schema 1 had it."""
    scores = []
    for name in task.classes:
        truth = [row.values["truth"] == name for row in rows]
        guess = [row.values["prediction"] == name for row in rows]
        hits = sum(t and g for t, g in zip(truth, guess, strict=True))
        if any(truth) or any(guess):
            scores.append(2 * hits / (sum(truth) + sum(guess)))
    return math.fsum(scores) / len(scores)


def _differ(what: str, told: float | None, counted: float | None) -> list[str]:
    if told is None or counted is None:
        same = told is counted
    else:
        same = abs(told - counted) <= TOLERANCE
    say = f"{what} is recorded as {short(told)}, but the predictions give {short(counted)}"
    return [] if same else [say]


def converted(
    record: RecordV1,
    counted: dict[tuple[str, int], dict[str, Any]] | None = None,
    tested: str = "",
) -> dict[str, Any]:
    """The record in the form of schema 2, as far as it goes.

    Args:
        counted: metrics per fold and seed, counted again by today's definitions; None: its own.
        tested: digest of what was tested, which becomes part of the plan's hash.
    """
    task = EmotionTask(record.protocol.classes)
    metrics = {(e.fold, e.seed): e.metrics.model_dump() for e in record.folds} | (counted or {})
    folds: list[dict[str, Any]] = [
        {
            "fold": entry.fold,
            "seed": entry.seed,
            "status": "finished",
            "reason": None,
            "created": record.created,
            "metrics": {TEST: metrics[entry.fold, entry.seed]},
            "stages": [
                {
                    "name": "train", "method": None, "freeze": [], "keys": {},
                    "result": {
                        "steps": entry.steps, "best_step": entry.best_step or 0, "lr": entry.lr,
                        "tried": {}, "history": [], "dev": {}, "audio_hours": 0.0,
                        "seconds": entry.seconds.get("train", 0.0),
                    },
                }
            ],
            "seconds": {
                name: entry.seconds.get(name, 0.0)
                for name in ("load", "features", "tune", "train", "test")
            },
            "frozen_seconds": None,
            "peak_memory_bytes": {"host": None, "device": None},
        }
        for entry in sorted(
            record.folds, key=lambda e: (e.seed, record.protocol.folds.index(e.fold))
        )
    ]  # fmt: skip
    protocol, cost, source = record.protocol, record.cost, record.upstream
    hashes = [protocol.hash, list(protocol.classes), list(protocol.folds), tested]
    return {
        "schema": 1,
        "status": record.status,
        "name": record.name,
        "id": record.identity,
        "identity": {},
        "created": record.created,
        "task": task.describe(),
        "corpora": [record.corpus.model_dump()],
        "plan": {
            "protocol": protocol.name, "version": protocol.version, "description": "", "source": "",
            "hash": digest(hashes), "audio_hash": "", "protocol_hash": protocol.hash,
            "folds": {name: {"hash": "", "audio": ""} for name in protocol.folds},
            "tests": [TEST], "complete": True, "missing": [], "dropped": {},
            "overlap": list(protocol.speaker_overlap), "unknown_speakers": False,
            "duplicates": [], "warnings": [],
        },
        "audit": protocol.audit,
        "upstream": source.model_dump() | {"local": _is_path(source.source), "options": {}},
        "method": {**record.method.model_dump(), "asked": record.method.spec},
        "head": record.head,
        "parameters": record.parameters.model_dump(),
        "train": record.training,
        "commands": [record.command],
        "recipes": [{"name": None, "file": None}],
        "numerics": [{"precision": record.device.precision}],
        "devices": [{"type": "", "name": record.device.name, "count": record.device.processes}],
        "packages": [record.packages],
        "code": [],
        "differs": [],
        "folds": folds,
        "missing": _missing(record),
        "summary": summarise(folds, task, [TEST]),
        "cost": {
            "seconds": {**cost.seconds.model_dump(), "tune": 0.0},
            "frozen_seconds": None,
            "audio_hours_per_second": cost.audio_hours_per_second,
            "peak_memory_bytes": {"host": cost.peak_memory_bytes, "device": None},
            "cache": {"bytes": cost.cache_bytes},
        },
    }  # fmt: skip


def _is_path(source: str | None) -> bool:
    """Schema 1 wrote hub ids with hf: and other sources as they were given."""
    return source is not None and not source.startswith(("hf:", "s3prl:")) and "/" in source


def read_predictions(path: Path, task: EmotionTask) -> list[Prediction]:
    """The merged predictions of schema 1 as untrusted data; raises UserError naming the line."""
    reader = csv.reader(io.StringIO(read_text(path, LARGEST), newline=""), strict=True)
    names = [column.name for column in task.columns]
    expected = [*COLUMNS[:4], *names]
    rows = []
    try:
        if next(reader, []) != expected:
            raise ValueError(f"the header must be {','.join(expected)[:300]}")
        for cells in reader:
            if len(cells) != len(expected):
                raise ValueError(f"{len(cells)} cells where {len(expected)} are expected")
            id_, fold, seed, speaker = cells[:4]
            if not (seed.isdecimal() and seed.isascii() and len(seed) < 20):
                raise ValueError(f"the seed {seed[:60]!r} is not a whole number")
            if not id_:
                raise ValueError("there is no id")
            values = {c.name: c.read(x) for c, x in zip(task.columns, cells[4:], strict=True)}
            task.check(values)
            rows.append(Prediction(id_, fold, int(seed), TEST, speaker, {}, values))
    except (ValueError, csv.Error) as error:
        line = max(reader.line_num, 1)
        raise UserError(f"{path}, line {line}: {error}; restore it or run again") from error
    if not rows:
        raise UserError(f"{path} holds no prediction; restore it or run again")
    return rows
