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
from typing import Any

from emopeft.downstream.records.checks import same, short
from emopeft.downstream.records.making import TABLE
from emopeft.downstream.records.predictions import LARGEST, Prediction, table_of
from emopeft.downstream.records.schema_v1 import METRICS, RecordV1
from emopeft.downstream.records.together import summarise
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from emopeft.files import digest, read_json, read_text
from emopeft.validation import validated

COLUMNS = ("id", "fold", "seed", "speaker", "truth", "prediction")
TEST = "test"
TOLERANCE = 1e-6  # how far a recorded metric may lie from the recounted one, absolute


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
    protocol = record.protocol
    declared = protocol.speaker_overlap == ["dev"] and "random-dev" in protocol.name
    if protocol.speaker_overlap and not declared:
        problems.append(
            f"it shares speakers of {', '.join(protocol.speaker_overlap)} with training, which its "
            "protocol's name does not say"
        )
    if protocol.audit.get("clean") is False:
        problems.append("its own audit says that it is not clean")
    problems += _identity_problems(run, record)
    warnings = ["it has schema 1: its folds and its audit cannot be computed again"]
    return task, converted(record, counted, tested), problems, warnings


def _identity_problems(run: Path, record: RecordV1) -> list[str]:
    """Against identity.json, which the run's folder had then."""
    path = run / "identity.json"
    if not path.exists():
        return []
    identity = read_json(path)
    if not isinstance(identity, dict) or digest(identity) != record.identity:
        return ["its identity is not the digest of its identity.json"]
    upstream = identity.get("upstream")
    pairs = {
        "method.spec": (record.method.spec, identity.get("method")),
        "protocol.hash": (record.protocol.hash, identity.get("protocol")),
        "upstream.weights": (
            record.upstream.weights,
            upstream.get("weights") if isinstance(upstream, dict) else None,
        ),
    }
    return [
        f"{name} is not that of its identity.json"
        for name, (one, two) in pairs.items()
        if (one or None) != (two or None)
    ]


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
    tested = len({id_ for test in tests.values() for id_ in test})
    if tested > record.corpus.utterances:
        problems.append(f"{tested} are tested of a corpus of {record.corpus.utterances} utterances")
    for entry in record.folds:
        where = f"fold {entry.fold}, seed {entry.seed}"
        predictions = groups.pop((entry.fold, entry.seed), None)
        if predictions is None:
            problems.append(f"{where}: there are no predictions")
            continue
        counted = task.measure(table_of(predictions, task)) | {
            "macro_f1": _old_macro_f1(predictions, task)
        }
        for name in METRICS:
            recorded_value = getattr(entry.metrics, name)
            problems += _differ(f"{where}: {name}", recorded_value, counted[name])
        if entry.metrics.confusion != counted["confusion"]:
            problems.append(f"{where}: the confusion matrix is not that of the predictions")
    problems += [f"fold {fold}, seed {seed}: no result" for fold, seed in sorted(groups)]
    if not problems:
        folds = [
            {"fold": e.fold, "seed": e.seed, "metrics": {TEST: e.metrics.model_dump()}}
            for e in record.folds
        ]
        for name, statistic in summarise(folds, task, [TEST])[TEST].items():
            for key, value in statistic.items():
                recorded_value = getattr(record.summary[name], key)
                problems += _differ(f"summary.{name}.{key}", recorded_value, value)
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


def _differ(what: str, recorded_value: float | None, counted: float | None) -> list[str]:
    agree = same(recorded_value, counted, TOLERANCE)
    say = (
        f"{what} is recorded as {short(recorded_value)}, but the predictions give {short(counted)}"
    )
    return [] if agree else [say]


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
        "missing": record.missing(),
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
