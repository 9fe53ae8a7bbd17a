"""For whom an adapted model fails: groups of speakers and clips in finished runs, how far they are
apart, and whether they are further apart than with a frozen encoder."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from emopeft.downstream.measures.by_group import UAR, Quantity
from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.reports.group_cells import (
    TITLES,
    asked,
    cell,
    change,
    factor_of,
    measure_title,
    scaled,
    sentence,
    text_of,
)
from emopeft.downstream.reports.group_numbers import LEAST, compare, of_speakers
from emopeft.downstream.reports.group_runs import Runs, read_runs
from emopeft.downstream.reports.group_sections import Compared, of_grouping
from emopeft.downstream.reports.grouping import (
    BANDS,
    SPEAKER,
    Bands,
    clips_of,
    groupings,
)
from emopeft.downstream.reports.pictures import interval_rows
from emopeft.downstream.reports.sections import Grid, Picture, Section
from emopeft.errors import UserError
from emopeft.text import plain


@dataclasses.dataclass(frozen=True)
class Groups:
    """All that is shown of some runs.

    Attributes:
        by: the traits that were asked for. left: which are left out, and why.
        speakers: by part and run, the main measure of each speaker.
    """

    runs: Runs
    by: Sequence[str]
    least: int
    compared: Sequence[Compared]
    left: Sequence[str]
    speakers: Sequence[Sequence[dict[str, float]]]


def gather_groups(
    places: Sequence[Path],
    by: Sequence[str] = (),
    bands: Bands = BANDS,
    least: int = LEAST,
    base: Path | None = None,
    test: str = "",
) -> Groups:
    """Count the groups of finished runs of one plan.

    Args:
        by: traits; none: all that make several groups. bands: where bands of a trait begin.
        least: speakers of a group, below which it has no number. base: the run that the others are
            compared with; None: that with a frozen encoder. test: "": the main one.

    Raises:
        UserError: as `read_runs` and `groupings`, or ``least`` below 2.
    """
    if least < 2:
        raise UserError(f"--least {least}: one speaker has no spread; give 2 or more")
    runs = read_runs(places, base, test)
    corpora = {corpus["name"] for run in runs.runs for corpus in run.data["corpora"]}
    clips = clips_of([run.rows for run in runs.runs], sorted(corpora))
    found, left = groupings(clips, by, bands)
    compared = [
        Compared(grouping, part, compare(runs, part, grouping, least))
        for grouping in found
        for part in runs.parts
    ]
    speakers = [[of_speakers(part, run) for run in runs.runs] for part in runs.parts]
    return Groups(runs, by, least, compared, left, speakers)


def groups_sections(groups: Groups) -> list[Section]:
    """What a person sees of them."""
    sections = [_introduction(groups)]
    if groups.runs.base and groups.compared:
        sections.append(_widening(groups))
    sections += [of_grouping(groups.runs, compared) for compared in groups.compared]
    sections += [_of_speakers(groups, p) for p in range(len(groups.runs.parts))]
    return sections


def _introduction(groups: Groups) -> Section:
    runs = groups.runs
    names = ", ".join(run.name for run in runs.runs)
    encoders = {plain(str(run.data["upstream"]["name"])) for run in runs.runs}
    parts = [
        f"{', '.join(sorted(encoders))}: {names}. Clips of all folds together, the mean over "
        "seeds. Intervals: 95 %, bootstrap over speakers, drawn within their group; groups of "
        f"fewer than {groups.least} speakers have no numbers.",
    ]
    notes = [*runs.notes, *groups.left]
    if runs.unknown:
        notes.append(f"{runs.unknown} clips of unknown speakers are left out")
    notes += [
        f"incomplete: {run.name} lacks {run.missing} of its folds and seeds"
        for run in runs.runs
        if run.missing
    ]
    if len(runs.runs) > 1 and not runs.base:
        notes.append(
            "no run has a frozen encoder (-p none) to compare the others with; give one, or --base"
        )
    if not groups.compared and not groups.by:
        notes.append("no trait makes several groups: there are speakers alone")
    parts += [sentence(note) for note in notes]
    plan = runs.plan
    return Section(
        f"Groups: {plain(str(plan['protocol']))} (hash {plan['hash'][:12]}), "
        f"test {plain(runs.test)}",
        parts,
    )


def _widening(groups: Groups) -> Section:
    runs, rows = groups.runs, []
    dots: dict[str, list[tuple[float, tuple[float, float] | None] | None]] = {
        run.name: []
        for run in runs.runs  # which keep their colours from the other pictures
    }
    shown = []
    for compared in groups.compared:
        measure = asked(compared.part)[0]
        told = {i: change(compared.measured[i], compared.part, measure) for i in runs.base}
        if not any(told.values()):
            continue
        shown.append(compared)
        for place, of in told.items():
            name = runs.runs[place].name
            dots[name].append(scaled(None if of is None else of[0], factor_of(measure)))
            if of is not None:
                rows.append(
                    [compared.title, measure_title(measure), name,
                     *(_gap(compared, measure, i) for i in (runs.base[place], place)),
                     cell(measure, of[0], True), of[1]]
                )  # fmt: skip
    title = "Does adapting widen the gap between groups?"
    if not rows:
        return Section(title, ["No trait has two groups of enough speakers: nobody can tell."])
    headers = ["groups", "of", "method", "frozen", "adapted", "wider by", "it"]
    bases = dict.fromkeys(runs.runs[base].name for base in runs.base.values())
    parts: list[str | Grid | Picture] = [
        "The best group minus the worst, against the same of the frozen encoder's probe "
        f"({', '.join(bases)}); whichever group is the best. "
        "\"Cannot be told\" is no proof that nothing changes.",
        Grid(headers, rows),
    ]  # fmt: skip
    for unit in dict.fromkeys(TITLES[c.part.main] for c in shown):
        places = [i for i, c in enumerate(shown) if TITLES[c.part.main] == unit]
        draw = functools.partial(
            interval_rows, rows=[shown[i].title for i in places],
            series={name: [of[i] for i in places] if of else [] for name, of in dots.items()},
            title="How much wider is the gap than with a frozen encoder?",
            axis=f"gap in {unit} minus the probe's (95 %)", line=0.0,
        )  # fmt: skip
        name = "groups-gap" if unit == TITLES[UAR] else "groups-gap-ccc"
        parts.append(Picture(name, f"How much wider gaps in {unit} are than the probe's", draw))
    return Section(title, parts)


def _gap(compared: Compared, measure: str, place: int) -> str:
    """A run's gap, and for whom it is better."""
    of, part = compared.measured[place], compared.part
    value = of.numbers[Quantity(measure, None, part.dimension)].value
    best = compared.grouping.names[of.pairs[part.main][0]]
    return f"{text_of(measure, value)} for {best}" if value > 0 else text_of(measure, value)


def _of_speakers(groups: Groups, p: int) -> Section:
    runs, part = groups.runs, groups.runs.parts[p]
    rows = []
    for i, (run, own) in enumerate(zip(runs.runs, groups.speakers[p], strict=True)):
        known = {name: value for name, value in own.items() if not math.isnan(value)}
        if not known:
            continue
        best, worst = (f(known, key=known.__getitem__) for f in (max, min))
        values = list(known.values())
        spread = statistics.stdev(values) if len(values) > 1 else None
        losers = NONE
        if i in runs.base:
            theirs = groups.speakers[p][runs.base[i]]
            losers = f"{sum(v < theirs[n] for n, v in known.items())} of {len(known)}"
        rows.append(
            [run.name, str(len(known)), f"{text_of(part.main, known[best])} {plain(best)}",
             f"{text_of(part.main, known[worst])} {plain(worst)}",
             text_of(part.main, known[best] - known[worst]),
             text_of(part.main, statistics.median(values)), text_of(part.main, spread), losers]
        )  # fmt: skip
    headers = ["method", "speakers", "best", "worst", "apart", "median", "sd", "worse than frozen"]
    title = " ".join(word for word in (SPEAKER, part.title) if word)
    return Section(f"By {title}", [Grid(headers, rows, f"{TITLES[part.main]} of each speaker")])
