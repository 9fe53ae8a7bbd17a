"""Builds small, true records of schema 1 as they were written then."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.measures.classes import emotion_metrics
from emopeft.files import digest
from tests.records.cases import CLASSES, FOLDS, make_rows

METRICS = ("accuracy", "uar", "macro_f1")


def make_record_v1(
    run: Path,
    right: Sequence[int] = (8, 6, 4),
    *,
    seeds: Sequence[int] = (0,),
    method: str = "lora",
    **changes: Any,
) -> dict[str, Any]:
    """Write predictions.csv and result.json; ``changes``: top-level keys to replace."""
    entries, table = [], []
    for index, seed in enumerate(seeds):
        for fold, count in zip(FOLDS, right, strict=True):
            rows = make_rows(fold, seed, count - index)
            table += [
                [
                    r.id.partition("/")[2], fold, seed, f"s{fold}",
                    *(r.values[n] for n in ("truth", "prediction")),
                    *(repr(r.values[f"score_{c}"]) for c in CLASSES),
                ]
                for r in rows
            ]  # fmt: skip
            truth = [CLASSES.index(r.values["truth"]) for r in rows]
            guess = [CLASSES.index(r.values["prediction"]) for r in rows]
            entries.append(
                {
                    "fold": fold,
                    "seed": seed,
                    "metrics": emotion_metrics(truth, guess, len(CLASSES)),
                    "dev": {"uar": 0.5, "tried": {}},
                    "lr": 1e-4,
                    "steps": 100,
                    "best_step": 80,
                    "seconds": {"train": 2.0, "tune": 0.0, "test": 0.5},
                }
            )
    run.mkdir(parents=True, exist_ok=True)
    header = [*("id", "fold", "seed", "speaker", "truth", "prediction")]
    with (run / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header + [f"score_{c}" for c in CLASSES])
        writer.writerows(table)
    record: dict[str, Any] = {
        "schema": 1,
        "status": "finished",
        "name": "old",
        "identity": digest([run.name, method]),
        "task": "emotion",
        "created": "2025-01-02T03:04:05+00:00",
        "command": f"python run_downstream.py -u hubert_base -d emotion -p {method}",
        "corpus": {
            "name": "toy", "title": "The Toy Corpus", "licence": "CC0 1.0", "utterances": 24,
            "hours": 0.02,
        },
        "protocol": {
            "name": "toy-3fold-4class", "version": 1, "hash": digest("old protocol"),
            "classes": list(CLASSES), "folds": list(FOLDS), "speaker_overlap": [],
            "audit": {"clean": True, "leaks": []},
        },
        "upstream": {
            "name": "hubert_base", "loader": "transformers",
            "source": "hf:facebook/hubert-base-ls960", "revision": None,
            "weights": digest("hubert"), "licence": "Apache-2.0", "parameters": 94_000_000,
            "note": None,
        },
        "method": {
            "spec": method, "parts": [{"name": method, "options": {"r": 8}, "parameters": 589_824}]
        },
        "head": {"name": "superb", "layers": 13},
        "training": {"optimizer": "adam", "steps": 100},
        "folds": entries,
        "summary": summary_v1(entries),
        "parameters": {
            "trainable": 1_000_000, "method": 802_108, "head": 197_892, "total": 100_000_000,
            "share": 0.01,
        },
        "cost": {
            "seconds": {"load": 1.0, "features": 30.0, "train": 60.0, "test": 4.0},
            "audio_hours_per_second": 0.001, "peak_memory_bytes": 1_500_000_000,
            "cache_bytes": 1000, "cache_bytes_per_hour": 50_000.0,
            "cache": {"enabled": True, "id": "x"},
        },
        "device": {"name": "cpu, 2 threads", "precision": "fp32", "processes": 1},
        "packages": {"python": "3.11.7"},
    }  # fmt: skip
    record |= changes
    (run / "result.json").write_text(json.dumps(record))
    return record


def summary_v1(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over folds, the seeds averaged first; the deviation of the seeds' means where there are."""
    found = {}
    for name in METRICS:
        grid: dict[str, dict[int, float]] = {}
        for entry in entries:
            grid.setdefault(entry["fold"], {})[entry["seed"]] = entry["metrics"][name]
        means = [statistics.fmean(of.values()) for of in grid.values()]
        found[name] = {
            "mean": statistics.fmean(means), "std": statistics.stdev(means), "n": len(means)
        }  # fmt: skip
        seeds = list(grid[FOLDS[0]])
        if len(seeds) > 1:
            each = [statistics.fmean(of[seed] for of in grid.values()) for seed in seeds]
            found[name]["seed_std"] = statistics.stdev(each)
    return found
