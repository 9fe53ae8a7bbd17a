"""How robust finished runs are: their tests in noise, in rooms, over telephones, cut short, and
whether an adapted encoder loses more there than the frozen one."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from emopeft.downstream.measures.columns import NONE, Metric
from emopeft.downstream.measures.resampling import Interval
from emopeft.downstream.records.predictions import table_of
from emopeft.downstream.reports.condition_families import Family, families_of
from emopeft.downstream.reports.condition_numbers import DIGITS, Cell, Number, cells_of, verdict
from emopeft.downstream.reports.condition_runs import Runs, read_runs
from emopeft.downstream.reports.curve_pictures import Band, bands
from emopeft.downstream.reports.numbers import statistic, value
from emopeft.downstream.reports.pictures import Point, interval_rows
from emopeft.downstream.reports.sections import Grid, Picture, Section
from emopeft.downstream.views.base import CLEAN
from emopeft.text import plain

FEW = 10  # speakers


@dataclasses.dataclass(frozen=True)
class Conditions:
    """All that is shown of some runs; ``cells``: of each run, by condition."""

    runs: Runs
    cells: Sequence[Mapping[str, Cell]]

    @property
    def names(self) -> list[str]:
        """The conditions that some run has numbers of, the clean one not among them."""
        return [name for name in self.runs.names if any(name in of for of in self.cells)]

    @property
    def notes(self) -> Sequence[str]:
        """See `Runs`."""
        return self.runs.notes

    @property
    def metric(self) -> Metric:
        """The task's main one."""
        return self.runs.task.metric(self.runs.task.main)

    @property
    def factor(self) -> float:
        """What numbers are multiplied with where they are shown."""
        return 100.0 if self.metric.percent else 1.0


def gather_conditions(
    places: Sequence[Path], base: Path | None = None, test: str = ""
) -> Conditions:
    """The numbers of finished runs of one plan in the conditions that they were tested in.

    Args:
        base: the run that the others are compared with; None: that with a frozen encoder and the
            same weights. test: "": the main one.

    Raises:
        UserError: as `read_runs`.
    """
    runs = read_runs(places, base, test)
    return Conditions(runs, cells_of(runs))


def conditions_sections(found: Conditions) -> list[Section]:
    """What a person sees of them; where no run has a condition, how to get some."""
    sections = [_levels(found)]
    if found.names:
        sections.append(_drops(found))
    if any(cell.more for of in found.cells for cell in of.values()):
        sections.append(_robustness(found))
    return sections


def _levels(found: Conditions) -> Section:
    runs, metric = found.runs, found.metric
    plan = runs.plan
    title = (
        f"Conditions: {plain(str(plan['protocol']))} (hash {plan['hash'][:12]}), test "
        f"{plain(runs.test)}"
    )
    if not found.names:
        return Section(title, list(found.notes))
    encoders = sorted({plain(str(run.data["upstream"]["name"])) for run in runs.runs})
    rows = [
        [plain(name), *(_level(metric, of.get(name)) for of in found.cells)]
        for name in (CLEAN, *found.names)
    ]
    table = Grid(
        ["condition", *(run.name for run in runs.runs)], rows,
        f"{metric.title}, mean ± standard deviation over folds",
    )  # fmt: skip
    introduction = (
        f"{', '.join(encoders)}. The runs' own tests, each clip in the condition, with the models "
        "as they were trained. Intervals: 95 %, bootstrap over speakers; with many conditions some "
        f"miss by chance.{_few(found)}{_chance(found)}"
    )
    return Section(title, [introduction, table, *found.notes])


def _level(metric: Metric, cell: Cell | None) -> str:
    return NONE if cell is None else statistic(metric, cell.summary)


def _chance(found: Conditions) -> str:
    """What guessing reaches in the clean tests, where that is known and one number."""
    task = found.runs.task
    reached = {
        round(of, DIGITS)
        for fold, rows in found.runs.runs[0].tested[CLEAN]
        if (of := task.chance(table_of(rows, fold.task)).get(task.main)) is not None
    }
    if len(reached) != 1:
        return ""
    return f" Guessing: {found.metric.title} {value(found.metric, reached.pop())}."


def _few(found: Conditions) -> str:
    """A warning where speakers are too few for a bootstrap."""
    speakers = {r.speaker for run in found.runs.runs for _, of in run.tested[CLEAN] for r in of}
    if "" in speakers:
        return " Some speakers are unknown, so that there are no intervals."
    if len(speakers) >= FEW:
        return ""
    return f" There are {len(speakers)} speakers: intervals of so few are too narrow."


def _drops(found: Conditions) -> Section:
    """What each condition costs each run, and how that goes with its severity."""
    runs, metric = found.runs, found.metric
    rows = [
        [plain(name), *(_cell(metric, of[name].drop if name in of else None) for of in found.cells)]
        for name in found.names
    ]
    headers = ["condition", *(run.name for run in runs.runs)]
    parts: list[str | Grid | Picture] = [
        Grid(headers, rows, f"{metric.title} lost against the clean tests [95 %]")
    ]
    families = families_of({name: runs.names[name] for name in found.names})
    curved = [family for family in families if len(family.places) > 1]
    parts += [_curve(found, family) for family in curved]
    single = [n for n in found.names if not any(n in family.places.values() for family in curved)]
    if single:
        parts.append(_dots(found, single))
    return Section("What each condition costs", parts)


def _curve(found: Conditions, family: Family) -> Picture:
    metric, factor = found.metric, found.factor
    series = {}
    for run, cells in zip(found.runs.runs, found.cells, strict=True):
        points = [
            Point(x, factor * cells[name].level.value, "", None, _scaled(cells[name].level, factor))
            for x, name in sorted(family.places.items())
            if name in cells and not math.isnan(cells[name].level.value)
        ]
        clean = cells[CLEAN].level.value
        if points:
            series[run.name] = Band(points, None if math.isnan(clean) else factor * clean)
    draw = functools.partial(
        bands, series=series, title=f"{metric.title}: {family.title}",
        axes=(family.axis, f"{metric.title}, mean over folds (95 % over speakers)"), level="clean",
    )  # fmt: skip
    return Picture(
        f"conditions-{family.file}", f"{metric.title} of each run by {family.axis}", draw
    )


def _dots(found: Conditions, names: Sequence[str]) -> Picture:
    series = {
        run.name: [_dot(of[name].drop if name in of else None, found.factor) for name in names]
        for run, of in zip(found.runs.runs, found.cells, strict=True)
    }
    draw = functools.partial(
        interval_rows, rows=[plain(name) for name in names], series=series,
        title="What does each condition cost?",
        axis=f"{found.metric.title} lost against the clean tests (95 % over speakers)", line=0.0,
    )  # fmt: skip
    return Picture("conditions-drop", f"{found.metric.title} that each condition costs", draw)


def _robustness(found: Conditions) -> Section:
    """Each method beside the frozen encoder."""
    runs, metric = found.runs, found.metric
    parts: list[str | Grid | Picture] = [
        "Better by: the method minus the frozen encoder's probe in that condition. Loses more by: "
        "how much more the condition costs the method than it costs the probe. What is better has "
        'more to lose. "Cannot be told" is no proof that nothing changes.'
    ]
    dots: dict[str, list[tuple[float, Interval | None] | None]] = {}
    for place, base in runs.base.items():
        cells, name = found.cells[place], runs.runs[place].name
        rows = [
            [plain(c), _cell(metric, cells[c].gain), _cell(metric, cells[c].more),
             verdict(cells[c].more)]
            for c in (CLEAN, *found.names)
            if c in cells and cells[c].gain is not None
        ]  # fmt: skip
        headers = ["condition", "better by", "loses more by", "it"]
        caption = f"{name} against {runs.runs[base].name}, {metric.title} [95 %]"
        parts.append(Grid(headers, rows, caption))
        dots[name] = [
            _dot(cells[c].more if c in cells else None, found.factor) for c in found.names
        ]
    shown = [i for i, _ in enumerate(found.names) if any(of[i] for of in dots.values())]
    draw: Callable[[Path], None] = functools.partial(
        interval_rows, rows=[plain(found.names[i]) for i in shown],
        series={name: [of[i] for i in shown] for name, of in dots.items()},
        title="How much more does a condition cost than with a frozen encoder?",
        axis=f"{found.metric.title} lost beyond what the probe loses (95 % over speakers)",
        line=0.0,
    )  # fmt: skip
    parts.append(Picture("conditions-more", "What each condition costs beyond the probe", draw))
    return Section("Is an adapted encoder less robust?", parts)


def _scaled(number: Number, factor: float) -> Interval | None:
    ends = number.interval
    return None if ends is None else (factor * ends[0], factor * ends[1])


def _dot(number: Number | None, factor: float) -> tuple[float, Interval | None] | None:
    if number is None or math.isnan(number.value):
        return None
    return factor * number.value, _scaled(number, factor)


def _cell(metric: Metric, number: Number | None) -> str:
    """``3.20 [1.10, 5.30]``; a dash where there is no value."""
    if number is None or math.isnan(number.value):
        return NONE
    text = value(metric, number.value)
    if number.interval is None:
        return text
    low, high = (value(metric, end) for end in number.interval)
    return f"{text} [{low}, {high}]"
