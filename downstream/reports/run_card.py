"""One run on one page: what it is, where it fails, for whom, under what, how sure it is, how fast.

Every part is the report of its own command, on this run alone or beside the frozen probe; a part
that cannot be made says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.augment import augment_name
from emopeft.downstream.measures.by_group import Quantity
from emopeft.downstream.measures.columns import NONE, Metric
from emopeft.downstream.measures.resampling import Interval
from emopeft.downstream.records.checks import by_test
from emopeft.downstream.records.predictions import table_of
from emopeft.downstream.records.record import Checked, examine
from emopeft.downstream.reports.calibration import calibration_sections
from emopeft.downstream.reports.calibration_numbers import STATES, calibrated
from emopeft.downstream.reports.conditions import conditions_sections, gather_conditions
from emopeft.downstream.reports.confusion import Classes, class_by_class, confusion_sections
from emopeft.downstream.reports.group_cells import TITLES, cell
from emopeft.downstream.reports.groups import Groups, gather_groups, groups_sections
from emopeft.downstream.reports.numbers import statistic, value
from emopeft.downstream.reports.results import method_name, upstream_name
from emopeft.downstream.reports.sections import Grid, Section
from emopeft.downstream.views.base import CLEAN
from emopeft.errors import UserError
from emopeft.text import plain
from emopeft.units import duration, percent, size

AGAINST = "Against the frozen probe"  # what comes second, after the number itself
UNTESTED = (
    "It was not tested in noise, in rooms, over telephones or cut short yet: `emopeft evaluate RUN "
    "--conditions standard` does that, and this page then shows it."
)
# What a reader who has never seen them needs to know of metrics.
WORDS = {
    "uar": "UAR is the share of clips that are given their own class, averaged over the classes, "
    "so that rare ones count as much as common ones.",
    "accuracy": "WA is the share of clips that are given their own class.",
    "ccc": "CCC is 1 where ratings and predictions are the same, 0 where they have nothing in "
    "common.",
}

Part = tuple[list[str], list[Section]]  # what a reader should know first, and all of it


@dataclasses.dataclass(frozen=True)
class Card:
    """What `page.write_page` takes: title, what it is, what to know first, and all parts."""

    title: str
    lead: str
    glance: list[str]
    sections: list[Section]


def run_card(
    place: Path,
    base: Path | None = None,
    delay: Callable[[], Sequence[Section]] | None = None,
    layers: Callable[[], Sequence[Section]] | None = None,
) -> Card:
    """The card of a finished run.

    Args:
        base: the frozen probe of the same plan and encoder, which it is compared with.
        delay, layers: make these parts, which take time; None: they are left out.

    Raises:
        UserError: the run is not believed, or its folds ended in failure.
    """
    checked = examine(place)
    if checked.problems:
        raise UserError(f"{place} is not what its folds give: {checked.problems[0]}")
    if not any(fold["status"] == "finished" for fold in checked.data["folds"]):
        raise UserError(f"{place} holds no finished fold; run it first")
    both = [place] if base is None else [base, place]
    glance, sections = _what(checked)
    for title, make in (
        ("Where it fails", lambda: _classes(place)),
        ("For whom", lambda: _groups(both, base)),
        ("Under what", lambda: _conditions(both, base)),
        ("How sure", lambda: _calibration(both, place)),
        ("How fast", None if delay is None else lambda: ([], list(delay()))),
        ("Which layers", None if layers is None else lambda: ([], list(layers()))),
    ):
        if make is None:
            continue
        try:
            more, made = make()
        except UserError as error:
            more, made = [], [Section(title, [f"Not here: {error}."])]
        first = [sentence for sentence in more if sentence.startswith(AGAINST)]
        glance = [*glance[:1], *first, *glance[1:], *(s for s in more if s not in first)]
        sections += _titled(title, made)
    data = checked.data
    corpora = " + ".join(corpus["title"] for corpus in data["corpora"])
    title = f"{upstream_name(data['upstream'])} + {method_name(data)}"
    lead = f"Trained and tested on {corpora} under {data['plan']['protocol']}."
    return Card(plain(title, 200), plain(lead, 400), glance, sections)


def _titled(title: str, sections: Sequence[Section]) -> list[Section]:
    """The sections of a part, the first under the part's own title: the page names plan and test
    once."""
    return [dataclasses.replace(s, title=title) if i == 0 else s for i, s in enumerate(sections)]


# ---- the parts ----------------------------------------------------------------------------------


def _what(checked: Checked) -> Part:
    data, task = checked.data, checked.task
    plan, parameters = data["plan"], data["parameters"]
    glance, rows = [], []
    for test in plan["tests"]:
        summary = data["summary"].get(test, {})
        for metric in task.shown:
            if metric.name in summary:
                name = metric.title if len(plan["tests"]) == 1 else f"{test}: {metric.title}"
                rows.append([plain(name), statistic(metric, summary[metric.name])])
    main = task.metric(task.main)
    reached = data["summary"].get(plan["tests"][0], {}).get(task.main)
    if reached is not None:
        glance.append(
            f"{main.title}: {statistic(main, reached)} (mean ± deviation over {reached['n']} folds"
            f"{_chance(checked)}). {WORDS.get(task.main, '')}".rstrip()
        )
    if data["missing"]:
        glance.append(
            f"{len(data['missing'])} folds are missing: no number here is of all of them."
        )
    cost = data["cost"]
    train = math.fsum(cost["seconds"].values())
    facts = [
        ["encoder", upstream_name(data["upstream"])],
        ["licence of its weights", data["upstream"]["licence"] or NONE],
        ["method", method_name(data)],
        ["trained", f"{parameters['trainable']:,} of {parameters['total']:,} parameters "
                    f"({percent(parameters['share'])})"],
        ["corpora", ", ".join(f"{c['title']} ({c['licence']})" for c in data["corpora"])],
        ["protocol", f"{plan['protocol']}, version {plan['version']}, hash {plan['hash'][:12]}"],
        ["folds and seeds", f"{len(plan['folds'])} folds, seeds {_seeds(data)}"],
        ["audit", _audit(data["audit"])],
        ["time", f"{duration(train)}, {data['devices'][0]['name']}"],
        ["peak memory", size(cost["peak_memory_bytes"]["host"] or 0)],
    ]  # fmt: skip
    views = (data.get("identity") or {}).get("augment")
    if views:
        facts.insert(3, ["training clips", augment_name(views)])
    return glance, [
        Section("What it is", [Grid(["", ""], [[a, plain(b, 300)] for a, b in facts]),
                               Grid(["", "mean ± deviation over folds"], rows, "Tests")]),
    ]  # fmt: skip


def _chance(checked: Checked) -> str:
    """What guessing reaches in the main test, where that is one number."""
    task, test = checked.task, checked.data["plan"]["tests"][0]
    folds = [by_test(fold.tests).get(test, []) for fold in checked.folds if fold.finished]
    reached = {
        round(of, 9)
        for rows in folds
        if rows and (of := task.chance(table_of(rows, task)).get(task.main)) is not None
    }
    if len(reached) != 1:
        return ""
    return f"; guessing: {value(task.metric(task.main), reached.pop())}"


def _seeds(data: dict[str, Any]) -> str:
    return ", ".join(map(str, sorted({fold["seed"] for fold in data["folds"]})))


def _audit(audit: dict[str, Any]) -> str:
    return (
        "no speaker and no recording on two sides" if audit["clean"] else "not clean, as declared"
    )


def _classes(place: Path) -> Part:
    found = class_by_class(place)
    return [*_extremes(found)], confusion_sections(found)


def _extremes(found: Classes) -> list[str]:
    """The classes that are found best and worst."""
    recalls = [
        (number.value, name)
        for name, number in zip(found.names, found.per_class["recall"], strict=True)
        if not math.isnan(number.value)
    ]
    if len(recalls) < 2:
        return []
    (low, worst), (high, best) = min(recalls), max(recalls)
    return [
        f"Found most often: {best} ({100 * high:.0f} of 100 clips); least often: {worst} "
        f"({100 * low:.0f} of 100)."
    ]


def _groups(both: Sequence[Path], base: Path | None) -> Part:
    groups = gather_groups(both, base=base)
    told = [of for of in groups.compared if any(one.kept for one in of.measured)]
    groups = dataclasses.replace(groups, compared=told)  # not those that are too small to tell
    return [*_gaps(groups)], groups_sections(groups)


def _gaps(groups: Groups) -> Iterator[str]:
    """Of each grouping the group that fares best and the one that fares worst."""
    for compared in groups.compared:
        run, part = compared.measured[-1], compared.part
        found = {
            g: run.numbers[Quantity(part.main, g, part.dimension)]
            for g in run.kept
            if Quantity(part.main, g, part.dimension) in run.numbers
        }
        found = {g: number for g, number in found.items() if not math.isnan(number.value)}
        if len(found) < 2:
            continue
        best, worst = (pick(found, key=lambda g: found[g].value) for pick in (max, min))
        names = compared.grouping.names
        yield (
            f"By {compared.title}: {plain(names[best])} {cell(part.main, found[best])}, "
            f"{plain(names[worst])} {cell(part.main, found[worst])} ({TITLES[part.main]})."
        )


def _conditions(both: Sequence[Path], base: Path | None) -> Part:
    found = gather_conditions(both, base)
    cells = found.cells[-1]
    drops = {
        name: cell.drop.value
        for name, cell in cells.items()
        if name != CLEAN and cell.drop is not None and not math.isnan(cell.drop.value)
    }
    glance = []
    gain = cells[CLEAN].gain if CLEAN in cells else None
    if gain is not None and not math.isnan(gain.value):
        glance.append(
            f"{AGAINST}: {_points(found.metric, gain.value, '+')}"
            f"{_between(found.metric, gain.interval)}."
        )
    if not drops:
        return glance, [Section("", [UNTESTED])]
    worst = max(drops, key=drops.__getitem__)
    glance.append(
        f"Of {len(drops)} conditions {plain(worst)} costs most: "
        f"{_points(found.metric, drops[worst])} of {found.metric.title.removesuffix(' %')}."
    )
    return glance, conditions_sections(found)


def _points(metric: Metric, change: float, sign: str = "") -> str:
    return f"{100 * change:{sign}.1f} points" if metric.percent else f"{change:{sign}.3f}"


def _between(metric: Metric, interval: Interval | None) -> str:
    """``, 95 % interval 0.2 to 4.6 points``; what holds 0 may be nothing."""
    if interval is None:
        return ""
    low, high = interval
    nothing = ", which may be nothing" if low <= 0 <= high else ""
    ends = f"{_points(metric, low).removesuffix(' points')} to {_points(metric, high)}"
    return f", 95 % interval over speakers {ends}{nothing}"


def _calibration(both: Sequence[Path], place: Path) -> Part:
    found = calibrated(both)
    numbers = found.runs[-1].numbers
    before, after = ({m: numbers[s, m].value for m in ("accuracy", "confidence", "ece")}
                     for s in STATES)  # fmt: skip
    return [
        f"It gives what it says a probability of {100 * before['confidence']:.0f} % on average, "
        f"and is right {100 * before['accuracy']:.0f} % of the time; after a temperature that dev "
        f"chose it says {100 * after['confidence']:.0f} % (calibration error "
        f"{100 * before['ece']:.1f} before, {100 * after['ece']:.1f} after)."
    ], calibration_sections(found)
