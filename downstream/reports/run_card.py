"""One run on one page: what it is, where it fails, for whom, under what, how sure it is, how fast.

Every part is the report of its own command, on this run alone or beside the frozen probe; a part
that cannot be made says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.augment import augment_name
from emopeft.downstream.measures.columns import NONE, Metric
from emopeft.downstream.records.record import Checked, examine
from emopeft.downstream.reports.calibration import calibration_sections
from emopeft.downstream.reports.calibration_numbers import STATES, calibrated
from emopeft.downstream.reports.conditions import conditions_sections, gather_conditions
from emopeft.downstream.reports.confusion import Classes, class_by_class, confusion_sections
from emopeft.downstream.reports.groups import gather_groups, groups_sections
from emopeft.downstream.reports.numbers import statistic
from emopeft.downstream.reports.results import method_name, upstream_name
from emopeft.downstream.reports.sections import Grid, Section
from emopeft.downstream.views.base import CLEAN
from emopeft.errors import UserError
from emopeft.text import plain
from emopeft.units import duration, percent, size

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
        ("Classes", lambda: _classes(place)),
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
        glance += more
        sections += made
    data = checked.data
    corpora = " + ".join(corpus["title"] for corpus in data["corpora"])
    title = f"{upstream_name(data['upstream'])} + {method_name(data)}"
    lead = f"Trained and tested on {corpora} under {data['plan']['protocol']}."
    return Card(plain(title, 200), plain(lead, 400), glance, sections)


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
            f"{main.title}: {statistic(main, reached)} (mean ± deviation over "
            f"{reached['n']} folds)."
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
    return [], groups_sections(groups)


def _conditions(both: Sequence[Path], base: Path | None) -> Part:
    found = gather_conditions(both, base)
    cells = found.cells[-1]
    drops = {
        name: cell.drop.value
        for name, cell in cells.items()
        if name != CLEAN and cell.drop is not None and not math.isnan(cell.drop.value)
    }
    glance = []
    if drops:
        worst = max(drops, key=drops.__getitem__)
        glance.append(
            f"Of {len(drops)} conditions {plain(worst)} costs most: "
            f"{_points(found.metric, drops[worst])} of {found.metric.title.removesuffix(' %')}."
        )
    return glance, conditions_sections(found)


def _points(metric: Metric, change: float) -> str:
    return f"{100 * change:.1f} points" if metric.percent else f"{change:.3f}"


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
