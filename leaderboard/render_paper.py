"""A paper beside the runs at hand, as markdown: ``emopeft report``."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from emopeft.downstream.data.papers import SOURCES, Paper, Table
from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.reports.papers import cited, command
from emopeft.downstream.reports.results import method_name
from emopeft.leaderboard.gather import Board, Row
from emopeft.leaderboard.matching import Difference, said
from emopeft.leaderboard.papers import (
    Comparison,
    Outcome,
    comparisons,
    matched,
    parameters,
    relative,
)
from emopeft.leaderboard.render import there
from emopeft.text import cell, fenced
from emopeft.units import duration

SHOWN = 5  # differences of a near run that are written out
HEADERS = ["experiment", "of what", "paper", "ours", "difference", "run"]
RATIOS = {"speed": "times faster in training than", "trainable": "trainable, of those of"}
LEGEND = (
    "Ours are means over folds, counted again from each run's predictions (a fold's seeds averaged"
    " first). The difference is ours less the paper's, in points where the metric is in percent; ±"
    " is the 95 % interval of ours over folds (Student's t), the paper's number taken as exact."
    " A run is an experiment where nothing differs that decides a number; seeds may. Else it is"
    " *near*, says in what it differs, and gives no number. Expected times are upper bounds: early"
    " stopping, or a frozen part that is kept already, makes them shorter."
)


def markdown(name: str, paper: Paper, found: Sequence[Outcome], board: Board) -> str:
    """The whole page.

    Args:
        found: the outcomes of all of the paper's experiments.
    """
    link = [paper.link] if paper.link else []
    parts = [f"# {cell(name)}: the paper and the runs here", cell(cited(paper), 500), *link]
    parts += [_summed(found), LEGEND, *_marks(found)]
    parts += [f"**Warning:** {cell(warning, 1000)}" for warning in board.warnings]
    for table in paper.tables:
        of = [one for one in found if one.experiment.table is table]
        parts += _section(table, of)
    if paper.missing:
        parts += ["## Not repeated here", "\n".join(f"- {cell(m, 1000)}" for m in paper.missing)]
    rows = [row for table in board.tables for row in table.rows] + board.incomplete
    used, others = matched(found), {row.place: row for row in rows}
    lines = [f"- {_run(row)}" for place, row in sorted(others.items()) if place not in used]
    if lines:
        parts += ["## Runs that are no experiment of this paper", "\n".join(lines)]
    for title, pairs in (
        ("Left out: records that do not hold", board.refused),
        ("Left out: another record of the same run is shown", board.replaced),
    ):
        if pairs:
            reasons = [f"- {cell(place, 300)}: {cell(why, 1000)}" for place, why in pairs]
            parts += [f"## {title}", "\n".join(reasons)]
    return "\n\n".join(parts) + "\n"


def _summed(found: Sequence[Outcome]) -> str:
    """How much of the paper was run, and what the rest takes."""
    run = sum(bool(one.runs) for one in found)
    parts = [f"{run} of {len(found)} experiments were run"]
    if begun := sum(bool(one.unfinished and not one.runs) for one in found):
        parts.append(f"{begun} begun")
    times = [one.expected for one in found if isinstance(one.expected, float)]
    if times:
        parts.append(f"{len(times)} more take at most {duration(sum(times))} on this machine")
    lacking: dict[str, int] = {}
    for one in found:
        if isinstance(one.expected, str):
            lacking[one.expected] = lacking.get(one.expected, 0) + 1
    parts += [f"{count}: {cell(what)}" for what, count in lacking.items()]
    if waiting := sum(bool(one.waits) for one in found):
        parts.append(f"{waiting} cannot be run yet")
    return f"**{'; '.join(parts)}.**"


def _marks(found: Sequence[Outcome]) -> list[str]:
    used = {one.experiment.source for one in found}
    marks = [f"[{mark}] {what}" for mark, what in SOURCES.items() if mark in used]
    return ["Marks of the paper's numbers: " + "; ".join(marks) + "."] if marks else []


def _section(table: Table, found: Sequence[Outcome]) -> list[str]:
    parts = [f"## {cell(table.name)}", cell(table.title, 1000)]
    if table.waits:
        parts.append(f"Cannot be run yet: {cell(table.waits, 1000)}.")
    rows = [row for one in found for row in _rows(one, found)]
    parts.append(tabulate(rows, HEADERS, tablefmt="pipe", disable_numparse=True))
    parts += ["\n".join(lines) for lines in (_runs(found), _near(found)) if lines]
    todo = [one for one in found if not one.runs and not one.waits]
    if todo:
        lines = [f"{command(one.experiment)}  # {one.experiment.row.name}" for one in todo]
        parts += ["Not run:", fenced(lines)]
    return parts


def _rows(one: Outcome, others: Sequence[Outcome]) -> list[list[str]]:
    """The lines of an experiment: a number each, for each of its runs."""
    name, mark = cell(one.experiment.row.name), one.experiment.source
    rows = []
    runs: Sequence[Row | None] = one.runs or [None]
    for row in runs:
        who = _state(one) if row is None else cell(row.place)
        for number in comparisons(one.experiment, row):
            several = number.test != "test"
            what = f"{number.test}: {number.metric}" if several else number.metric
            rows.append([name, cell(what), *_numbers(number, mark), who])
        for part, (theirs, ours) in parameters(one.experiment, row).items():
            shown, far = (NONE, NONE) if ours is None else (f"{ours:,}", f"{ours - theirs:+,}")
            far = "equal" if ours == theirs else far
            rows.append([name, f"{part} parameters", f"{theirs:,}", shown, far, who])
    for ratio, (theirs_ratio, mine, why) in relative(one, others).items():
        against = one.experiment.row.relative
        assert against is not None
        what = f"{RATIOS[ratio]} {cell(against.to)}"
        reached = NONE if mine is None else f"{mine:.2f}"
        reached += f" ({why})" if why else ""
        who = cell(one.runs[0].place) if one.runs else _state(one)
        far = NONE if mine is None else f"{mine - theirs_ratio:+.2f}"
        rows.append([name, what, f"{theirs_ratio:g} [{mark}]", reached, far, who])
    return rows or [[name, NONE, NONE, NONE, NONE, _state(one)]]


def _numbers(number: Comparison, mark: str | None) -> list[str]:
    """Paper, ours, difference."""
    metric = number.known
    percent = metric.percent if metric else number.paper is not None and number.paper <= 1
    scale, digits = (100, 2) if percent else (1, 3)

    def shown(value: float, sign: str = "") -> str:
        return f"{scale * value:{sign}.{digits}f}"

    paper = NONE if number.paper is None else f"{scale * number.paper:.5g} [{mark}]"
    if number.ours is None:
        return [paper, number.reason or NONE, NONE]
    interval = "" if number.half is None else f" ± {shown(number.half)}"
    if number.paper is None:
        return [paper, shown(number.ours) + interval, NONE]
    far = shown(number.ours - number.paper, "+")
    return [paper, shown(number.ours), far + (interval or " (one fold: no interval)")]


def _state(one: Outcome) -> str:
    """Why there is no run, and what one would take."""
    if one.waits:
        return "cannot be run yet"
    begun = [f"unfinished: {cell(row.place)}, {cell(there(row), 200)}" for row in one.unfinished]
    parts = begun or ["not run"]
    if isinstance(one.expected, str):
        parts.append(cell(one.expected, 300))
    elif one.expected is not None:
        parts.append(f"at most {duration(one.expected)}")
    return "; ".join(parts)


def _runs(found: Sequence[Outcome]) -> list[str]:
    """What the runs of a table are."""
    rows = {row.place: row for one in found for row in (*one.runs, *one.unfinished)}
    return [f"- {_run(row)}" for row in rows.values()]


def _near(found: Sequence[Outcome]) -> list[str]:
    """The runs nearest to experiments that were not run, and in what they differ; experiments from
    which one run differs in the same keys share a line."""
    groups: dict[tuple[str, tuple[str, ...]], list[Outcome]] = {}
    for one in found:
        if one.near is not None:
            row, differing = one.near
            groups.setdefault((row.place, tuple(d.key for d in differing)), []).append(one)
    lines = []
    for (place, _), of in groups.items():
        names = ", ".join(cell(one.experiment.row.name) for one in of)
        columns = zip(*(one.near[1] for one in of if one.near), strict=True)
        differ = [cell(together(column), 160) for column in columns]
        more = f"; {len(differ) - SHOWN} more keys" if len(differ) > SHOWN else ""
        near = next(one.near[0] for one in of if one.near)
        begun = "" if near.finished else f" ({cell(there(near), 200)})"
        lines.append(f"- near {names}: {cell(place)}{begun}, but {'; '.join(differ[:SHOWN])}{more}")
    return lines


def together(differing: Sequence[Difference]) -> str:
    """How a run differs in one key from several experiments."""
    if len(set(map(str, differing))) == 1:
        return str(differing[0])
    return f"{differing[0].key} {said(differing[0].run)}, not theirs"


def _run(row: Row) -> str:
    """Where it lies, what it is, and its seeds."""
    data = row.data
    weights = (data["upstream"]["weights"] or NONE)[:8]
    seeds = f"{len(row.seeds)} seed{'s' if len(row.seeds) != 1 else ''}"
    what = f"{method_name(data)} on {data['upstream']['name']}, {data['plan']['protocol']}"
    return f"{cell(row.place)}: {cell(what, 200)}; {seeds}; weights {weights}"
