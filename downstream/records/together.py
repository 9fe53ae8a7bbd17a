"""What the tests of all folds give when they are taken together: pooled, and speaker by speaker;
and what each corpus gives where there are several.

A mean over folds weighs every fold alike and, for CCC or F1, is another number than that of all
utterances at once; papers report either. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from emopeft.downstream.measures.classes import mean_std
from emopeft.downstream.measures.columns import Table
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.tasks.base import Task


def pooled(folds: Sequence[FoldResult], task: Task, test: str) -> dict[str, float]:
    """Each metric on the utterances of all folds at once; the mean over seeds."""
    return _over_seeds(_rows(folds, test), task, [metric.name for metric in task.metrics])


def by_speaker(
    folds: Sequence[FoldResult], task: Task, test: str
) -> dict[str, dict[str, float | int]]:
    """Of each known speaker, sorted: ``utterances`` tested (of one seed), and the main metric as
    ``value``, the mean over seeds; NaN where it has none."""
    rows: dict[str, list[Prediction]] = {}
    for row in _rows(folds, test):
        if row.speaker:
            rows.setdefault(row.speaker, []).append(row)
    return {
        speaker: {
            "utterances": len({row.id for row in own}),
            "value": _over_seeds(own, task, [task.main])[task.main],
        }
        for speaker, own in sorted(rows.items())
    }


def _rows(folds: Sequence[FoldResult], test: str) -> Iterable[Prediction]:
    return (row for fold in folds if fold.finished for row in fold.tests if row.test == test)


def _over_seeds(rows: Iterable[Prediction], task: Task, names: list[str]) -> dict[str, float]:
    by_seed: dict[int, list[Prediction]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row)
    measures = [task.measure(table_of(of, task)) for _, of in sorted(by_seed.items())]
    return {name: math.fsum(m[name] for m in measures) / len(measures) for name in names}


# ---- corpus by corpus ---------------------------------------------------------------------------


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
    for row in _rows(folds, test):
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
        `statistic_of`), ``pooled`` (metric, on the utterances of all folds at once; the mean over
        seeds) and ``lacks`` (classes of which its tests hold none: what is averaged over classes
        is so over the others).
    """
    corpora: dict[str, list[Part]] = {}
    for part in parts:
        corpora.setdefault(part.corpus, []).append(part)
    if len(corpora) < 2:
        return {}
    names = [metric.name for metric in task.metrics]
    result = {}
    for corpus, own in sorted(corpora.items()):
        folds: list[dict[str, Any]] = []
        for part in own:
            measured = task.measure(part.table)
            folds.append(
                {
                    "fold": part.fold,
                    "seed": part.seed,
                    "utterances": len(next(iter(part.table.values()))),
                    "metrics": {name: measured[name] for name in names},
                }
            )
        result[corpus] = {
            "folds": folds,
            "summary": {
                name: statistic_of([(f["fold"], f["seed"], f["metrics"][name]) for f in folds])
                for name in names
            },
            "pooled": _pooled_parts(own, task, names),
            "lacks": lacking(task, own),
        }
    return result


def _pooled_parts(parts: Sequence[Part], task: Task, names: Sequence[str]) -> dict[str, float]:
    seeds: dict[int, list[Table]] = {}
    for part in parts:
        seeds.setdefault(part.seed, []).append(part.table)
    measures = [
        task.measure({c.name: [x for t in tables for x in t[c.name]] for c in task.columns})
        for _, tables in sorted(seeds.items())
    ]
    return {name: math.fsum(m[name] for m in measures) / len(measures) for name in names}


def lacking(task: Task, parts: Sequence[Part]) -> list[str]:
    """The classes that no truth of these parts is, of every column of truths that are classes."""
    absent: dict[str, None] = {}
    for column in (c for c in task.columns if c.role == "truth" and c.classes is not None):
        present = {value for part in parts for value in part.table[column.name]}
        absent |= dict.fromkeys(c for c in column.classes or () if c not in present)
    return list(absent)


def statistic_of(values: Iterable[tuple[str, int, float | None]]) -> dict[str, Any]:
    """Mean and deviation of (fold, seed, value) over folds.

    Returns:
        ``{"mean", "std", "n", "seed_std"}``. The seeds of one fold are averaged first; std is the
        sample one over those fold means, None for a single fold; n is the number of folds. Where
        every one of several seeds has the same folds, ``seed_std`` is the sample standard
        deviation of the per-seed means, else None.
    """
    by_fold: dict[str, list[float]] = {}
    by_seed: dict[int, dict[str, float]] = {}
    for fold, seed, given in values:
        value = math.nan if given is None else float(given)
        by_fold.setdefault(fold, []).append(value)
        by_seed.setdefault(seed, {})[fold] = value
    statistic = mean_std([mean_std(of)["mean"] for of in by_fold.values()])
    statistic["seed_std"] = None
    if len(by_seed) > 1 and all(set(of) == set(by_fold) for of in by_seed.values()):
        means = [mean_std(list(of.values()))["mean"] for of in by_seed.values()]
        statistic["seed_std"] = mean_std(means)["std"]
    return statistic
