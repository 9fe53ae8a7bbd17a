"""What the tests of all folds give of each corpus, where they hold several. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from emopeft.downstream.measures.columns import Table
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.records.together import summarise
from emopeft.downstream.tasks.base import Task


class Part(NamedTuple):
    """One corpus' part of a test in one fold and seed: the task's columns of its utterances."""

    fold: str
    seed: int
    corpus: str
    table: Table


def by_corpus(folds: Sequence[FoldResult], task: Task, test: str) -> dict[str, dict[str, Any]]:
    """`of_each_corpus` of a test's predictions alone; empty where all are of one corpus."""
    names = [corpus.name for corpus in folds[0].facts.corpora]
    rows: dict[tuple[str, int, str], list[Prediction]] = {}
    for row in (row for fold in folds if fold.finished for row in fold.tests if row.test == test):
        rows.setdefault((row.fold, row.seed, corpus_of(row.id, names)), []).append(row)
    return of_each_corpus([Part(*key, table_of(own, task)) for key, own in rows.items()], task)


def corpus_of(uid: str, names: Iterable[str]) -> str:
    """Whose an id is: the corpus whose name, and a slash, it begins with (the longest of them)."""
    return max((n for n in names if uid.startswith(f"{n}/")), key=len, default=uid.split("/")[0])


def of_each_corpus(parts: Sequence[Part], task: Task) -> dict[str, dict[str, Any]]:
    """The numbers of each corpus, sorted; empty where there is but one.

    Returns:
        per corpus ``folds`` (of each fold and seed that tests any of it: "fold", "seed",
        "utterances", "metrics"), ``summary`` (metric to mean and std over these folds, see
        `summarise`), ``pooled`` (metric, on the utterances of all folds at once; the mean over
        seeds) and ``lacks`` (classes of which its tests hold none: what is averaged over classes
        is so over the others).
    """
    corpora: dict[str, list[Part]] = {}
    for part in parts:
        corpora.setdefault(part.corpus, []).append(part)
    if len(corpora) < 2:
        return {}
    return {corpus: _numbers(own, task) for corpus, own in sorted(corpora.items())}


def _numbers(parts: Sequence[Part], task: Task) -> dict[str, Any]:
    folds: list[dict[str, Any]] = [
        {
            "fold": part.fold,
            "seed": part.seed,
            "utterances": len(next(iter(part.table.values()))),
            "metrics": _metrics(part.table, task),
        }
        for part in parts
    ]
    entries = [fold | {"metrics": {"": fold["metrics"]}} for fold in folds]
    return {
        "folds": folds,
        "summary": summarise(entries, task, [""])[""],
        "pooled": _pooled(parts, task),
        "lacks": _lacking(parts, task),
    }


def _metrics(table: Table, task: Task) -> dict[str, float]:
    measured = task.measure(table)
    return {metric.name: measured[metric.name] for metric in task.metrics}


def _pooled(parts: Sequence[Part], task: Task) -> dict[str, float]:
    seeds: dict[int, list[Table]] = {}
    for part in parts:
        seeds.setdefault(part.seed, []).append(part.table)
    together = [
        {
            column.name: [x for table in tables for x in table[column.name]]
            for column in task.columns
        }
        for _, tables in sorted(seeds.items())
    ]
    measures = [_metrics(table, task) for table in together]
    return {name: math.fsum(m[name] for m in measures) / len(measures) for name in measures[0]}


def _lacking(parts: Sequence[Part], task: Task) -> list[str]:
    """The classes that no truth of these parts is, of every column of truths that are classes."""
    absent: dict[str, None] = {}
    for column in (c for c in task.columns if c.role == "truth" and c.classes is not None):
        present = {value for part in parts for value in part.table[column.name]}
        absent |= dict.fromkeys(c for c in column.classes or () if c not in present)
    return list(absent)
