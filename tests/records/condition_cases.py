"""Conditions beside the hand-made runs of cases.py: every number can be worked out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emopeft.downstream.records.conditions import (
    Condition,
    ConditionFacts,
    checkpoint_digest,
    rows_digest,
    write_conditions,
)
from emopeft.downstream.records.folds import fold_folder, read_fold
from emopeft.downstream.views.base import parse_view
from tests.records.cases import Rows, make_rows

DIGEST = "0" * 64


def make_condition(rows: Rows, view: str, task: Any, **changes: Any) -> Condition:
    """These rows as they were predicted in a view; ``changes`` replaces facts."""
    seen = [dataclasses.replace(row, id=f"{row.id}@{view}") for row in rows]
    clips: dict[str, int] = {}
    for row in rows:
        clips[row.test] = clips.get(row.test, 0) + 1
    facts = {
        "view": view,
        "transforms": parse_view(view).described,
        "crowd": None,
        "checkpoint": DIGEST,
        "predictions": rows_digest(seen, task),
        "clips": clips,
        "created": "2025-01-02T03:04:05+00:00",
        "emopeft": "0.1.0",
        "code": {"version": "0.1.0", "commit": None, "dirty": None},
        "numerics": {
            "precision": "fp32", "frozen": "fp32", "tf32": False, "deterministic": False,
            "threads": 1,
        },
        "device": {"type": "cpu", "name": "a processor", "count": 1},
        "packages": {"python": "3.11.7"},
        "cache": {"enabled": True},
        "seconds": {"features": 1.0, "test": 0.5},
    } | changes  # fmt: skip
    return Condition(ConditionFacts.model_validate(facts), seen)


def add_conditions(
    run: Path, fold: str, right: Mapping[str, int], seed: int = 0, **changes: Any
) -> Path:
    """Give a fold of a hand-made run conditions, in which so many of its clips are right; returns
    its folder."""
    folder = fold_folder(run, fold, seed)
    recorded = read_fold(folder)
    assert recorded is not None
    made = [
        make_condition(make_rows(fold, seed, count), view, recorded.task, **changes)
        for view, count in right.items()
    ]
    write_conditions(folder, recorded.task, made)
    return folder


def give_checkpoint(folder: Path, text: str = "tensors") -> str:
    """Files as a checkpoint has them; returns their digest."""
    (folder / "adapter.json").write_text('{"upstream": {"name": "x", "path": "/here"}}')
    (folder / "adapter.safetensors").write_text(text)
    digest = checkpoint_digest(folder)
    assert digest is not None
    return digest
