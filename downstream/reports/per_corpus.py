"""The numbers of each of several corpora, as `records.corpora_apart.of_each_corpus` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from emopeft.downstream.reports.numbers import statistic, value
from emopeft.downstream.tasks.base import Task
from emopeft.text import plain

CorpusNumbers = Mapping[str, Mapping[str, Any]]  # corpus -> its numbers


def per_corpus(corpora: CorpusNumbers, task: Task) -> list[str]:
    """A table of every fold of each corpus, its mean and its pooled numbers, and what they lack;
    nothing where there are not several."""
    rows = []
    for name, numbers in corpora.items():
        for fold in numbers["folds"]:
            cells = [value(m, fold["metrics"][m.name]) for m in task.shown]
            rows.append(
                [plain(name), plain(fold["fold"]), fold["seed"], fold["utterances"], *cells]
            )
        several = len({fold["fold"] for fold in numbers["folds"]}) > 1
        if several or len(numbers["folds"]) > 1:
            cells = [statistic(m, numbers["summary"][m.name]) for m in task.shown]
            rows.append([plain(name), "mean", "", "", *cells])
        if several:
            cells = [value(m, numbers["pooled"][m.name]) for m in task.shown]
            rows.append([plain(name), "pooled", "", "", *cells])
    if not rows:
        return []
    headers = ["corpus", "fold", "seed", "clips", *(m.title for m in task.shown)]
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
    return ["per corpus", table, *remarks(corpora)]


def remarks(corpora: CorpusNumbers) -> list[str]:
    """Of each corpus that lacks classes, over which its numbers are."""
    return [
        f"{plain(name)} has no {plain(', '.join(numbers['lacks']))}: what is averaged over classes "
        "is so over those that its test part holds"
        for name, numbers in corpora.items()
        if numbers["lacks"]
    ]
