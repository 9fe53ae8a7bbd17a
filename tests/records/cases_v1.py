"""Builds small, true records for tests: every number can be worked out by hand.

Each fold tests eight utterances, two of each of four classes. The first ``right`` of them are
predicted correctly, the others as the next class.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.records.record import (
    Prediction,
    fold_folder,
    status,
    summarise,
    write_fold,
    write_record,
)
from emopeft.downstream.tasks.metrics import emotion_metrics
from emopeft.files import digest

CLASSES = ("neutral", "happy", "angry", "sad")
FOLDS = ("1", "2", "3")


def make_rows(
    fold: str, seed: int, right: int, classes: Sequence[str] = CLASSES
) -> list[Prediction]:
    """The predictions of one fold: eight utterances, the first ``right`` of them correct."""
    rows = []
    for number in range(8):
        truth = number % len(classes)
        guess = truth if number < right else (truth + 1) % len(classes)
        low = 0.4 / (len(classes) - 1)
        scores = {name: 0.6 if index == guess else low for index, name in enumerate(classes)}
        rows.append(
            Prediction(
                id=f"f{fold}_u{number}",
                fold=fold,
                seed=seed,
                speaker=f"s{fold}",
                truth=classes[truth],
                prediction=classes[guess],
                scores=scores,
            )
        )
    return rows


def make_fold(fold: str, seed: int, rows: Sequence[Prediction]) -> dict[str, Any]:
    """The entry of result.json's "folds" for these rows."""
    classes = list(rows[0].scores)
    truth = [classes.index(row.truth) for row in rows]
    prediction = [classes.index(row.prediction) for row in rows]
    return {
        "fold": fold,
        "seed": seed,
        "metrics": emotion_metrics(truth, prediction, len(classes)),
        "dev": {"uar": 0.5, "loss": 1.2},
        "lr": 1e-4,
        "steps": 100,
        "best_step": 80,
        "seconds": {"train": 2.0, "test": 0.5},
    }


def make_record(
    run: Path,
    right: Sequence[int] = (8, 6, 4),
    *,
    seeds: Sequence[int] = (0,),
    present: Sequence[str] | None = None,
    folds: Sequence[str] = FOLDS,
    classes: Sequence[str] = CLASSES,
    name: str = "first",
    method: str = "lora",
    upstream: str = "hubert_base",
    note: str | None = None,
    protocol: str = "toy-3fold-4class",
    hash: str = "",
    created: str = "2025-01-02T03:04:05+00:00",
    identity: str = "",
    rows: Callable[[str, int, int], list[Prediction]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Write a whole run folder and return its record.

    Args:
        right: correct utterances of each of ``folds``; seed number k has k more of them wrong.
        present: the folds that are there (all of them when None).
        rows: makes the predictions of a fold from (fold, seed, right) instead of ``make_rows``.
        changes: top-level keys to replace.
    """
    entries = []
    for index, seed in enumerate(seeds):
        for fold, count in zip(folds, right, strict=True):
            if present is not None and fold not in present:
                continue
            if rows is None:
                made = make_rows(fold, seed, count - index, classes)
            else:
                made = rows(fold, seed, count - index)
            entry = make_fold(fold, seed, made)
            write_fold(fold_folder(run, fold, seed), entry, made)
            entries.append(entry)
    record: dict[str, Any] = {
        "schema": 1,
        "status": status(folds, entries),
        "name": name,
        "identity": identity or digest([run.name, name, method, upstream]),
        "task": "emotion",
        "created": created,
        "command": f"python run_downstream.py -u {upstream} -d emotion -p {method}",
        "corpus": {
            "name": "toy",
            "title": "The Toy Corpus",
            "licence": "CC0 1.0",
            "utterances": 24,
            "hours": 0.02,
        },
        "protocol": {
            "name": protocol,
            "version": 1,
            "hash": hash or digest(["protocol", protocol]),
            "classes": list(classes),
            "folds": list(folds),
            "speaker_overlap": [],
            "audit": {"1": {"train_test": []}},
        },
        "upstream": {
            "name": upstream,
            "loader": "transformers",
            "source": "hf:facebook/hubert-base-ls960",
            "revision": None,
            "weights": digest(upstream),
            "licence": "Apache-2.0",
            "parameters": 94_000_000,
            "note": note,
        },
        "method": {
            "spec": method,
            "parts": [{"name": method, "options": {"r": 8}, "parameters": 589_824}],
        },
        "head": {"name": "superb", "layers": 13},
        "training": {"optimizer": "adam", "steps": 100},
        "folds": entries,
        "summary": summarise(entries),
        "parameters": {
            "trainable": 1_000_000,
            "method": 802_108,
            "head": 197_892,
            "total": 100_000_000,
            "share": 0.01,
        },
        "cost": {
            "seconds": {"load": 1.0, "features": 30.0, "train": 60.0, "test": 4.0},
            "audio_hours_per_second": 0.001,
            "peak_memory_bytes": 1_500_000_000,
            "cache_bytes": 1000,
            "cache_bytes_per_hour": 50_000.0,
        },
        "device": {"name": "cpu", "precision": "fp32", "processes": 1},
        "packages": {"python": "3.11.7"},
    }
    record |= changes
    write_record(run, record)
    return record


def tamper(run: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Rewrite result.json by hand, as no writer of ours would."""
    path = run / "result.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return copy.deepcopy(record)
