"""Every number of `groups` as a table, so that nothing has to be read from a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator

from emopeft.downstream.measures.by_group import DIFFERENCE, Quantity
from emopeft.downstream.records.predictions import guarded
from emopeft.downstream.reports.group_cells import TOO_FEW, change
from emopeft.downstream.reports.group_numbers import Measured
from emopeft.downstream.reports.group_runs import Part, Runs
from emopeft.downstream.reports.grouping import SPEAKER
from emopeft.downstream.reports.groups import Groups

COLUMNS = (
    "run", "folder", "test", "part", "grouping", "group", "clips", "speakers", "measure", "of",
    "value", "low", "high", "by_chance", "p", "base", "more", "more_low", "more_high", "verdict",
    "note",
)  # fmt: skip
Row = dict[str, object]


def csv_text(groups: Groups) -> str:
    """groups.csv: values as shares (not percent), a row for each number.

    ``low`` and ``high`` are of ``value``, ``more``, ``more_low`` and ``more_high`` of how much
    larger it is than that of ``base``; what is not known is empty.
    """
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    out.writeheader()
    for row in (*_of_groups(groups), *_of_speakers(groups)):
        out.writerow({name: _written(value) for name, value in row.items()})
    return text.getvalue()


def _written(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return guarded(value) if isinstance(value, str) else str(value)


def _of_groups(groups: Groups) -> Iterator[Row]:
    runs = groups.runs
    for compared in groups.compared:
        for place, of in enumerate(compared.measured):
            begin = _begin(runs, place, compared.part) | {"grouping": compared.grouping.name}
            for g, name in enumerate(compared.grouping.names):
                own = begin | {"group": name, "clips": of.clips[g], "speakers": of.speakers[g]}
                if g not in of.kept:
                    yield own | {"measure": compared.part.main, "note": TOO_FEW}
                for quantity in (q for q in of.numbers if q.group == g):
                    yield own | _numbers(runs, place, compared.part, of, quantity)
            for quantity in (q for q in of.numbers if q.group is None):
                yield begin | _numbers(runs, place, compared.part, of, quantity)


def _begin(runs: Runs, place: int, part: Part) -> Row:
    run = runs.runs[place]
    return {"run": run.name, "folder": str(run.folder), "test": runs.test, "part": part.title}


def _numbers(runs: Runs, place: int, part: Part, of: Measured, quantity: Quantity) -> Row:
    number = of.numbers[quantity]
    row: Row = {"measure": quantity.measure, "of": quantity.item, "value": number.value}
    unsigned = quantity.group is None and not quantity.measure.endswith(DIFFERENCE)
    if number.interval is not None and not unsigned:
        row |= dict(zip(("low", "high"), number.interval, strict=True))
    if chance := of.chances.get(quantity):
        row |= {"by_chance": chance.mean, "p": chance.p}
    more = of.more.get(quantity)
    if more is not None and not quantity.measure.endswith(DIFFERENCE):
        row |= {"base": runs.runs[runs.base[place]].name, "more": more.value}
        if more.interval is not None:
            row |= dict(zip(("more_low", "more_high"), more.interval, strict=True))
        told = change(of, part, quantity.measure) if quantity.item == part.dimension else None
        if told is not None and unsigned:
            row["verdict"] = told[1]
    return row


def _of_speakers(groups: Groups) -> Iterator[Row]:
    runs = groups.runs
    for p, part in enumerate(runs.parts):
        for place, own in enumerate(groups.speakers[p]):
            base = groups.speakers[p][runs.base[place]] if place in runs.base else {}
            for name, value in own.items():
                row = _begin(runs, place, part) | {
                    "grouping": SPEAKER, "group": name, "speakers": 1, "measure": part.main,
                    "of": part.dimension, "value": value,
                }  # fmt: skip
                if name in base:
                    row |= {"base": runs.runs[runs.base[place]].name, "more": value - base[name]}
                yield row
