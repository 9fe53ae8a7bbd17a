"""One grouping of runs: its groups, how far apart they are, and against a frozen encoder."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

from emopeft.downstream.measures import fairness
from emopeft.downstream.measures.by_group import (
    CCC,
    DIFFERENCE,
    GAP,
    RECALL,
    UAR,
    WA,
    Quantity,
)
from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.reports.group_cells import (
    TITLES,
    TOO_FEW,
    asked,
    cell,
    change,
    factor_of,
    measure_title,
    scaled,
    sentence,
    text_of,
)
from emopeft.downstream.reports.group_numbers import Measured
from emopeft.downstream.reports.group_runs import OneRun, Part, Runs
from emopeft.downstream.reports.grouping import Grouping
from emopeft.downstream.reports.pictures import interval_rows
from emopeft.downstream.reports.sections import Grid, Picture, Section
from emopeft.text import plain


@dataclasses.dataclass(frozen=True)
class Compared:
    """A part of the task in one grouping, measured in every run."""

    grouping: Grouping
    part: Part
    measured: Sequence[Measured]

    @property
    def title(self) -> str:
        """What is compared, as pictures and tables call it."""
        return " ".join(word for word in (self.grouping.name, self.part.title) if word)


def of_grouping(runs: Runs, compared: Compared) -> Section:
    """The section of a grouping."""
    grouping, part = compared.grouping, compared.part
    parts: list[str | Grid | Picture] = [sentence(note) for note in grouping.notes]
    lacking = sorted({(g, c) for m in compared.measured for g, of in m.lacks.items() for c in of})
    for g in sorted({g for g, _ in lacking}):
        classes = ", ".join(plain(c) for of, c in lacking if of == g)
        parts.append(
            f"{grouping.names[g]} has no clip of {classes}: what groups are compared by is over "
            "the classes that all of them hold."
        )
    if len(grouping.names) < 2:
        only = f" ({grouping.names[0]})" if grouping.names else ""
        parts.append(f"All clips are of one {grouping.name}{only}: there is nothing to compare.")
    measures = (UAR, WA) if part.classes else (CCC,)
    titles = [TITLES[name] for name in measures]
    if runs.base:
        titles.append(f"{TITLES[part.main]}, more than frozen")
    parts.append(
        Grid([grouping.name, "method", "clips", "speakers", *titles],
             _rows(compared, runs, measures))
    )  # fmt: skip
    if recalls := _recalls(compared, runs.runs):
        headers = [grouping.name, "method", *map(plain, part.classes)]
        parts.append(Grid(headers, recalls, "recall per class, %"))
    if between := _between(compared, runs.runs):
        parts.append(between)
    if against := _against(runs, compared):
        parts.append(against)
    if any(m.kept for m in compared.measured):
        parts.append(_picture(compared, runs.runs))
    return Section(f"By {compared.title}", parts)


def _rows(compared: Compared, runs: Runs, measures: Sequence[str]) -> list[list[str]]:
    part, rows = compared.part, []
    for g, name in enumerate(compared.grouping.names):
        for run, of in zip(runs.runs, compared.measured, strict=True):
            cells = [TOO_FEW] * len(measures)
            if g in of.kept:
                quantities = (Quantity(measure, g, part.dimension) for measure in measures)
                cells = [cell(q.measure, of.numbers.get(q)) for q in quantities]
            if runs.base:
                more = of.more.get(Quantity(part.main, g, part.dimension))
                cells.append(cell(part.main, more, True))
            rows.append([name, run.name, str(of.clips[g]), str(of.speakers[g]), *cells])
    return rows


def _recalls(compared: Compared, runs: Sequence[OneRun]) -> list[list[str]]:
    rows = []
    for g, name in enumerate(compared.grouping.names):
        for run, of in zip(runs, compared.measured, strict=True):
            if g in of.kept and compared.part.classes:
                each = (of.numbers[Quantity(RECALL, g, c)].value for c in compared.part.classes)
                rows.append([name, run.name, *(text_of(RECALL, value) for value in each)])
    return rows


def _between(compared: Compared, runs: Sequence[OneRun]) -> Grid | None:
    """How far apart the groups of each run are; None where there are no two."""
    if all(len(of.kept) < 2 for of in compared.measured):
        return None
    part, rows = compared.part, []
    for measure in (UAR, WA) if part.classes else (CCC,):
        cells = [_farthest(compared, of, measure) for of in compared.measured]
        rows.append([f"{TITLES[measure]}, best – worst", *cells])
    for measure in (*fairness.OVERALL, *fairness.PER_CLASS) if part.classes else ():
        rows.append([measure, *(_parity(part, of, measure) for of in compared.measured)])
    return Grid(
        ["between groups", *(run.name for run in runs)], rows,
        "p: how often speakers dealt to the groups at random are as far apart",
    )  # fmt: skip


def _farthest(compared: Compared, of: Measured, measure: str) -> str:
    """The gap, between which groups, its interval and p."""
    gap, apart = (
        Quantity(f"{measure} {kind}", None, compared.part.dimension) for kind in (GAP, DIFFERENCE)
    )
    if gap not in of.numbers or math.isnan(of.numbers[gap].value):
        return NONE
    number = of.numbers[gap]._replace(interval=of.numbers[apart].interval)
    best, worst = (compared.grouping.names[place] for place in of.pairs[measure])
    return f"{cell(measure, number)} {best} – {worst}{_p(of, gap)}"


def _parity(part: Part, of: Measured, measure: str) -> str:
    """A fairness measure with its p; the class that it is the worst of."""
    quantity = Quantity(measure)
    number = of.numbers.get(quantity)
    if number is None or math.isnan(number.value):
        return NONE
    of_class = ""
    if measure in fairness.PER_CLASS:
        each = {c: of.numbers[Quantity(measure, None, c)].value for c in part.classes}
        of_class = f" {plain(next(c for c, v in each.items() if v == number.value))}"
    return f"{text_of(measure, number.value)}{of_class}{_p(of, quantity)}"


def _p(of: Measured, quantity: Quantity) -> str:
    chance = of.chances.get(quantity)
    return "" if chance is None else f" (p {chance.p:.3f})"


def _against(runs: Runs, compared: Compared) -> Grid | None:
    """Every measure of how far groups are apart, against the frozen encoder's."""
    part, rows = compared.part, []
    for measure in asked(part):
        cells = []
        for place in runs.base:
            told = change(compared.measured[place], part, measure)
            cells.append(NONE if told is None else f"{cell(measure, told[0], True)} {told[1]}")
        if any(cell != NONE for cell in cells):
            rows.append([measure_title(measure), *cells])
    if not rows:
        return None
    bases = dict.fromkeys(runs.runs[base].name for base in runs.base.values())
    return Grid(
        ["against " + ", ".join(bases), *(runs.runs[place].name for place in runs.base)], rows,
        "how much further apart the groups are (paired, on the same draws)",
    )  # fmt: skip


def _picture(compared: Compared, runs: Sequence[OneRun]) -> Picture:
    part, factor = compared.part, factor_of(compared.part.main)
    kept = sorted({g for of in compared.measured for g in of.kept})
    series = {}
    for run, of in zip(runs, compared.measured, strict=True):
        numbers = [of.numbers.get(Quantity(part.main, g, part.dimension)) for g in kept]
        series[run.name] = [scaled(number, factor) for number in numbers]
    draw = functools.partial(
        interval_rows, rows=[compared.grouping.names[g] for g in kept], series=series,
        title=f"By {compared.title}", axis=f"{TITLES[part.main]} (95 %, over speakers)",
    )  # fmt: skip
    name = "".join(c if c.isalnum() else "-" for c in f"groups-{compared.title}")
    return Picture(name, f"{TITLES[part.main]} by {compared.title}, with intervals", draw)
