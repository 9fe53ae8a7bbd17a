"""The tables of a run that is tested on corpora it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from emopeft.downstream.records.making import summarise
from emopeft.downstream.reports.numbers import statistic, value
from emopeft.downstream.tasks.base import Task
from emopeft.text import plain


def zero_shot_tables(results: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """The tables of a run on other corpora, one per corpus, with the mean over folds.

    Args:
        results: as `evaluation` takes them, of `runs.zero_shot`. notes: what was left out.
    """
    lines = []
    for test in dict.fromkeys(one["test"] for one in results):
        of = [one for one in results if one["test"] == test]
        task: Task = of[0]["task"]
        rows = [
            [plain(one["fold"]), one["seed"], one["clips"]]
            + [value(metric, one["metrics"][metric.name]) for metric in task.shown]
            for one in of
        ]
        entries = [dict(one) | {"metrics": {test: one["metrics"]}} for one in of]
        means = summarise(entries, task, [test])[test]
        rows.append(["mean", "", "", *(statistic(m, means[m.name]) for m in task.shown)])
        headers = ["fold", "seed", "clips", *(metric.title for metric in task.shown)]
        lines.append(f"zero-shot on {plain(test)}")
        lines.append(tabulate(rows, headers, tablefmt="simple", disable_numparse=True))
    return "\n".join([*lines, *(plain(note, 500) for note in notes)])
