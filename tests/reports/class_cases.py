"""Finished runs with scores that are no whole tenths: four classes, three folds of two speakers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.records.record import write_record
from emopeft.downstream.tasks.emotion import EmotionTask
from tests.records.cases import (
    CLASSES,
    FOLDS,
    dev_rows,
    example_facts,
    make_fold,
    make_rows,
    plan_rows,
)

CLIPS = 20  # of a fold's test
Rows = list[Prediction]


def rescored(rows: Rows, outputs: np.ndarray) -> Rows:
    """The rows with the softmax of other outputs, and what that says."""
    made = []
    for row, scores in zip(rows, softmax(outputs, -1), strict=True):
        values = {
            "truth": row.values["truth"],
            "prediction": CLASSES[int(scores.argmax())],
            **{f"score_{c}": float(s) for c, s in zip(CLASSES, scores, strict=True)},
        }
        made.append(dataclasses.replace(row, values=values))
    return made


def tested_rows(fold: str, seed: int) -> Rows:
    """Twenty clips of two speakers."""
    rows = []
    for number in range(CLIPS):
        row = make_rows(fold, seed)[number % 8]
        speaker = f"toy/s{fold}{'ab'[number // 4 % 2]}"
        rows.append(dataclasses.replace(row, id=f"toy/f{fold}_v{number}", speaker=speaker))
    return rows


def outputs(rows: Rows, sharp: float, draw: int) -> np.ndarray:
    """Of a model that knows the truth a little, times ``sharp`` (rows, classes)."""
    rng = np.random.default_rng(draw)
    of = np.array([CLASSES.index(row.values["truth"]) for row in rows])
    return sharp * (rng.normal(size=(len(rows), 4)) + 1.2 * np.eye(4)[of])


def scored_run(
    place: Path,
    sharp: float = 1.0,
    draw: int = 0,
    *,
    seeds: tuple[int, ...] = (0,),
    dev_right: bool = False,
    folds: tuple[str, ...] = FOLDS,
    **facts: Any,
) -> Path:
    """Write a run, ``draw`` its model's luck; dev_right: every clip of dev is predicted right."""
    task = EmotionTask(CLASSES)
    planned = {f: plan_rows(f, tests={"test": tested_rows(f, 0)}) for f in FOLDS}
    for seed in seeds:
        for fold in folds:
            luck = 100 * draw + 10 * seed + int(fold)
            rows = tested_rows(fold, seed)
            rows = rescored(rows, outputs(rows, sharp, luck))
            dev = dev_rows(fold, seed)
            if not dev_right:
                dev = rescored(dev, outputs(dev, sharp, luck + 50))
            stages = example_facts()["stages"]
            stages[0]["result"]["dev"] = task.measure(table_of(dev, task))
            of = {row.id: row for row in dev}
            make_fold(
                place, fold, seed, rows=rows, planned=planned, seeds=seeds, stages=stages,
                dev=lambda row, of=of: of[row.id], **facts,
            )  # fmt: skip
    write_record(place)
    return place
