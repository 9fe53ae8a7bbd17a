"""Builds small, true run folders for tests: every number can be worked out by hand.

Each fold tests eight utterances, two of each of four classes. The first ``right`` of them are
predicted correctly, the others as the next class. Dev is eight utterances, all correct.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.plan import Plan, PlanRow, fold_audio_hash_of, fold_hash_of
from emopeft.downstream.records.folds import fold_folder, write_fold
from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.records.record import write_record
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.files import digest

CLASSES = ("neutral", "happy", "angry", "sad")
FOLDS = ("1", "2", "3")
HEADS = [{"name": "train", "method": None, "freeze": [], "keys": {}}]
Rows = list[Prediction]


def make_rows(
    fold: str,
    seed: int = 0,
    right: int = 8,
    classes: Sequence[str] = CLASSES,
    *,
    test: str = "test",
    prefix: str | None = None,
) -> Rows:
    """The predictions of one test: eight utterances, the first ``right`` of them correct."""
    rows = []
    prefix = f"f{fold}" if prefix is None else prefix
    for number in range(8):
        truth = number % len(classes)
        guess = truth if number < right else (truth + 1) % len(classes)
        low = 0.4 / (len(classes) - 1)
        scores = {f"score_{c}": 0.6 if i == guess else low for i, c in enumerate(classes)}
        values = {"truth": classes[truth], "prediction": classes[guess], **scores}
        traits = {"sex": "female" if number % 2 else "male"}
        uid = f"toy/{prefix}_u{number}"
        rows.append(Prediction(uid, fold, seed, test, f"toy/s{prefix}", traits, values))
    return rows


def dev_rows(fold: str, seed: int = 0, classes: Sequence[str] = CLASSES) -> Rows:
    """The predictions of dev, which all folds share."""
    return make_rows(fold, seed, 8, classes, test="dev", prefix="dev")


def plan_rows(
    fold: str, classes: Sequence[str] = CLASSES, tests: Mapping[str, Rows] | None = None
) -> list[PlanRow]:
    """The plan's rows of a fold: train and dev as in all folds, and what is tested."""
    tests = {"test": make_rows(fold, classes=classes)} if tests is None else tests
    train = make_rows(fold, classes=classes, prefix="train")
    sides = [("train", "train", train), ("dev", "train", dev_rows(fold, classes=classes))]
    sides += [("test", name, rows) for name, rows in tests.items()]
    return [
        PlanRow(
            part, name, row.id, row.speaker, "clean", 1.0, sound(row.id),
            tuple(float(row.values["truth"] == c) for c in classes),
        )
        for part, name, rows in sides
        for row in rows
    ]  # fmt: skip


def sound(uid: str) -> str:
    """What stands for the digest of an utterance's audio."""
    return hashlib.sha256(uid.encode()).hexdigest()


def plan_facts(task: Task, rows: Mapping[str, Sequence[PlanRow]], **changes: Any) -> dict[str, Any]:
    """`PlanFacts` of a plan with these folds."""
    hashes = {name: fold_hash_of(HEADS, of) for name, of in rows.items()}
    audio = {name: fold_audio_hash_of(of) for name, of in rows.items()}
    tests = list(dict.fromkeys(r.set for of in rows.values() for r in of if r.part == "test"))
    return {
        "protocol": "toy-3fold-4class",
        "version": 1,
        "description": "Three folds of a toy corpus.",
        "source": "made up",
        "hash": Plan.hash_of(task, hashes),
        "audio_hash": Plan.audio_hash_of(audio),
        "folds": {name: {"hash": hashes[name], "audio": audio[name]} for name in rows},
        "tests": tests,
        "complete": True,
        "missing": [],
        "dropped": {"calm": 3},
        "overlap": [],
        "unknown_speakers": False,
        "duplicates": [],
        "warnings": [],
    } | changes


def example_facts(
    fold: str = "1",
    seed: int = 0,
    *,
    seeds: Sequence[int] = (0,),
    plan: Mapping[str, Any] | None = None,
    rows: Sequence[Prediction] | None = None,
    tests: Mapping[str, Sequence[Prediction]] | None = None,
    task: Task | None = None,
    name: str = "first",
    method: str = "lora",
    upstream: str = "hubert_base",
    note: str | None = None,
    created: str = "2025-01-02T03:04:05+00:00",
    **changes: Any,
) -> dict[str, Any]:
    """A good `FoldFacts` as data; ``changes`` replaces keys at its top."""
    task = EmotionTask(CLASSES) if task is None else task
    if tests is None:
        tests = {"test": make_rows(fold, seed) if rows is None else rows}
    plan = plan_facts(task, {f: plan_rows(f) for f in FOLDS}) if plan is None else plan
    weights = digest(upstream)
    parts = [{"name": method, "options": {"r": 8, "alpha": 16.0}}]
    head = {"name": "superb", "layers": "all", "outputs": 4}
    train = {"optimizer": "adam", "lr": 1e-4, "steps": 100, "batch_size": 4}
    numerics = {"precision": "fp32", "frozen": "fp32", "tf32": False, "deterministic": False}
    options = {"do_normalize": False}
    dev = task.measure(table_of(dev_rows(fold, seed, getattr(task, "classes", CLASSES)), task))
    facts = {
        "schema": 2,
        "emopeft": "0.1.0",
        "status": "finished",
        "reason": None,
        "run": name,
        "fold": fold,
        "seed": seed,
        "seeds": list(seeds),
        "identity": {
            "schema": 2,
            "plan": plan["hash"],
            "audio": plan["audio_hash"],
            "task": task.describe(),
            "upstream": {
                "weights": weights, "loader": "transformers", "options": options, "code": "1"
            },
            "methods": {"run": parts},
            "head": head,
            "train": train,
            "numerics": numerics,
            "cache": "fp32",
        },
        "created": created,
        "command": f"emopeft run -u {upstream} -d emotion -p {method}",
        "plan": dict(plan),
        "stages": [
            head | {
                "result": {
                    "steps": 100, "best_step": 80, "lr": 1e-4, "tried": {},
                    "history": [{"step": 80, "loss": 0.5, "dev_loss": 0.7, "uar": 1.0}],
                    "dev": dev, "seconds": 20.0, "audio_hours": 0.5,
                }
            }
            for head in copy.deepcopy(HEADS)
        ],
        "task": task.describe(),
        "corpora": [
            {
                "name": "toy", "title": "The Toy Corpus", "licence": "CC0 1.0",
                "utterances": 40, "hours": 0.02,
            }
        ],
        "upstream": {
            "name": upstream, "source": "hf:facebook/hubert-base-ls960", "local": False,
            "loader": "transformers", "revision": None, "licence": "Apache-2.0",
            "weights": weights, "options": options, "code": "1", "parameters": 94_000_000,
            "note": note,
        },
        "method": {
            "spec": method, "asked": method, "parts": [parts[0] | {"parameters": 589_824}]
        },
        "head": head,
        "parameters": {
            "trainable": 1_000_000, "method": 802_108, "head": 197_892, "total": 100_000_000,
            "share": 0.01,
        },
        "train": train | {"batch_seconds": None},
        "numerics": numerics | {"threads": 2},
        "recipe": {"name": None, "file": None},
        "device": {"type": "cpu", "name": "a processor", "count": 1},
        "packages": {"python": "3.11.7"},
        "code": {"version": "0.1.0", "commit": "7bb2e4c", "dirty": False},
        "seconds": {"load": 1.0, "features": 10.0, "tune": 0.0, "train": 20.0, "test": 1.0},
        "frozen_seconds": 30.0,
        "peak_memory_bytes": {"host": 1_500_000_000, "device": None},
        "cache": {"enabled": True, "bytes": 1000},
        "hours": 0.01,
        "utterances": {"train": 8, "dev": 8, "tests": {n: len(of) for n, of in tests.items()}},
        "metrics": {n: task.measure(table_of(of, task)) for n, of in tests.items()},
    } | changes  # fmt: skip
    return json.loads(json.dumps(facts))  # parts of it are one object above


def make_fold(
    run: Path,
    fold: str = "1",
    seed: int = 0,
    right: int = 8,
    *,
    folds: Sequence[str] = FOLDS,
    classes: Sequence[str] = CLASSES,
    rows: Rows | None = None,
    tests: Mapping[str, Rows] | None = None,
    planned: Mapping[str, Sequence[PlanRow]] | None = None,
    plan: Mapping[str, Any] | None = None,
    failed: str | None = None,
    dev: Callable[[Prediction], Prediction] = lambda row: row,
    **facts: Any,
) -> dict[str, Any]:
    """Write a whole fold folder and return its facts; ``plan``: keys of `PlanFacts` to replace.

    Args:
        planned: the plan's rows of each fold; rows: its predictions, instead of ``make_rows``;
            tests: those of several named tests.
        failed: makes it a failed fold, with this reason. dev: changes each row of dev.csv.
    """
    task = EmotionTask(classes)
    if tests is None:
        tests = {"test": make_rows(fold, seed, right, classes) if rows is None else rows}
    planned = {f: plan_rows(f, classes) for f in folds} if planned is None else planned
    made = plan_facts(task, planned) | dict(plan or {})
    data = example_facts(fold, seed, plan=made, tests=tests, task=task, **facts)
    if failed is not None:
        data |= {"status": "failed", "reason": failed, "metrics": {}}
        data["stages"][0]["result"] = None
    place = fold_folder(run, fold, seed)
    tested = [row for of in tests.values() for row in of]
    developed = [dev(row) for row in dev_rows(fold, seed, classes)]
    return write_fold(place, data, planned[fold], tested, developed).to_json()


def make_record(
    run: Path,
    right: Sequence[int] = (8, 6, 4),
    *,
    seeds: Sequence[int] = (0,),
    present: Sequence[str] | None = None,
    folds: Sequence[str] = FOLDS,
    rows: Callable[[str, int, int], Rows] | None = None,
    protocol: str = "toy-3fold-4class",
    plan: Mapping[str, Any] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Write a whole run folder and return its record.

    Args:
        right: correct utterances of each of ``folds``; seed number k has k more of them wrong.
        present: the folds that are there (all of them when None).
        rows: makes the predictions of a fold from (fold, seed, right) instead of ``make_rows``.
    """
    for index, seed in enumerate(seeds):
        for fold, count in zip(folds, right, strict=True):
            if present is None or fold in present:
                made = None if rows is None else rows(fold, seed, count - index)
                make_fold(
                    run, fold, seed, count - index, folds=folds, rows=made, seeds=seeds,
                    plan={"protocol": protocol, **(plan or {})}, **facts,
                )  # fmt: skip
    return write_record(run)


def tamper(path: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Rewrite a JSON file by hand, as no writer of ours would; a folder means its result.json."""
    path = path / "result.json" if path.is_dir() else path
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return copy.deepcopy(record)


def delete(*path: Any) -> Callable[[dict[str, Any]], None]:
    """A change for `tamper`: the key at the end of the path is gone."""

    def change(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return change


def put(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    """A change for `tamper`: the key at the end of the path has this value."""

    def change(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change
