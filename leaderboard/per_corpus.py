"""Beside a table of several corpora, the metric that orders it of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tabulate import tabulate

from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.reports.numbers import statistic
from emopeft.downstream.reports.per_corpus import CorpusNumbers, remarks
from emopeft.downstream.reports.results import method_name, upstream_name
from emopeft.leaderboard.gather import Row, Table


def of_row(row: Row, test: str) -> CorpusNumbers:
    """The numbers of each corpus of a test; none where it is of one."""
    return row.data.get("by_corpus", {}).get(test, {})


def corpora_grid(table: Table, style: str, escape: Callable[[str], str]) -> list[str]:
    """What the columns are, the rows in the table's order, and what a corpus lacks; nothing where
    no row has several corpora."""
    numbers = [of_row(row, table.test) for row in table.rows]
    corpora = sorted(set().union(*numbers))
    if not corpora:
        return []
    rows = []
    for row, rank, of in zip(table.rows, table.ranks(), numbers, strict=True):
        cells = [
            _cell(table, of[corpus], len(row.data["plan"]["folds"])) if corpus in of else NONE
            for corpus in corpora
        ]
        rows.append(
            [str(rank), escape(method_name(row.data)), escape(upstream_name(row.data["upstream"])),
             *cells]
        )  # fmt: skip
    headers = ["rank", "method", "upstream", *map(escape, corpora)]
    align = ("right", "left", "left", *["right"] * len(corpora))
    grid = tabulate(rows, headers, tablefmt=style, colalign=align, disable_numparse=True)
    said = remarks({corpus: of[corpus] for of in numbers for corpus in of})
    return [f"{escape(table.metric.title)} of each corpus:", grid, *map(escape, said)]


def _cell(table: Table, numbers: Mapping[str, Any], planned: int) -> str:
    """Mean and deviation, and over how many folds where some test none of the corpus."""
    summary = numbers["summary"][table.metric.name]
    text = statistic(table.metric, summary)
    return text if summary["n"] == planned else f"{text} ({summary['n']} folds)"
