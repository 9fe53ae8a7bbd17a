"""The board as markdown, as JSON and for the terminal.

Every text of a record is untrusted: it comes through ``cell`` (markdown), ``plain`` (terminal,
JSON keeps it as it is) or ``fenced`` (commands) and can neither break a table nor bring markup.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tabulate import tabulate

from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.reports.numbers import statistic, value
from emopeft.downstream.reports.results import method_name, test_name, unscored, upstream_name
from emopeft.leaderboard.gather import Board, Row, Table
from emopeft.leaderboard.per_corpus import corpora_grid, of_row
from emopeft.text import cell, fenced, plain
from emopeft.units import duration, size

HEADERS = ("rank", "method", "upstream", "weights", "run", "trainable", "% of all")
COSTS = ("time", "peak memory", "seeds")
Escape = Callable[[str], str]


def _run(row: Row) -> str:
    """Its name, and that of its recipe."""
    recipes = [r["name"] or r["file"] for r in row.data["recipes"] if r["name"] or r["file"]]
    return f"{row.data['name']} ({', '.join(recipes)})" if recipes else row.data["name"]


def _cells(row: Row, rank: int, test: str, escape: Escape) -> list[str]:
    data = row.data
    return [
        str(rank),
        escape(method_name(data)),
        escape(upstream_name(data["upstream"])),
        (data["upstream"]["weights"] or NONE)[:8],
        escape(_run(row)),
        f"{data['parameters']['trainable']:,}",
        f"{100 * row.share:.2f}",
        *(statistic(m, data["summary"][test][m.name]) for m in row.task.shown),
        duration(row.seconds),
        NONE if row.peak is None else size(row.peak),
        ", ".join(map(str, row.seeds)),
    ]


def grid(table: Table, style: str, escape: Escape) -> str:
    """One table by tabulate; the metric that orders it is marked with an arrow."""
    down = {"higher": " ↓", "lower": " ↑"}  # the way that values go from the first row on
    metrics = table.task.shown
    titles = [escape(m.title) + (down[m.better] if m == table.metric else "") for m in metrics]
    cells = [
        _cells(row, rank, table.test, escape)
        for row, rank in zip(table.rows, table.ranks(), strict=True)
    ]
    return tabulate(
        cells,
        headers=[*HEADERS, *titles, *COSTS],
        tablefmt=style,
        colalign=("right", *["left"] * 4, *["right"] * (5 + len(titles))),
        disable_numparse=True,
    )


def _caption(table: Table, escape: Escape) -> list[str]:
    plan, first = table.plan, table.rows[0].data
    shared = f"; speakers shared with: {', '.join(plan['overlap'])}" if plan["overlap"] else ""
    unknown = first["audit"].get("unknown")
    strangers = f"; {unknown} utterances of unknown speakers" if unknown else ""
    devices = sorted(
        {
            f"{device['name']}, {numerics['precision']}"
            for row in table.rows
            for device in row.data["devices"]
            for numerics in row.data["numerics"]
        }
    )
    lines = [
        f"Corpus: {escape(corpus['title'])}; licence: {escape(corpus['licence'])}; "
        f"{corpus['utterances']:,} utterances, {corpus['hours']:.2f} h."
        for corpus in table.corpora
    ]
    classes = first["task"].get("classes")
    named = f"; {len(classes)} classes: {escape(', '.join(classes))}" if classes else ""
    lines += [
        f"{len(plan['folds'])} folds; task {escape(table.task.name)}{named}"
        f"{escape(shared)}{strangers}.",
        f"Plan hash: {plan['hash']}.",
        *(f"Unscored, only predicted: {escape(one)}." for one in unscored(first["folds"])),
        f"Time (all phases) and peak memory were measured on: {escape('; '.join(devices))}.",
    ]
    return lines + [f"Warning: {escape(warning)}." for warning in plan["warnings"][:20]]


def _heading(table: Table, escape: Escape) -> str:
    plan = table.plan
    test = f", test {test_name(plan, table.test)}" if len(plan["tests"]) > 1 else ""
    leaking = table.rows[0].data["audit"].get("leaking")
    mark = f" LEAKS: {len(leaking)} test speakers are trained on" if leaking else ""
    return escape(
        f"{plan['protocol']}, version {plan['version']}{test} (hash {plan['hash'][:12]}){mark}"
    )


def there(row: Row) -> str:
    """``folds 1, 3 of 6``, per seed when the seeds differ; and how many failed."""
    names = row.data["plan"]["folds"]
    per_seed = {
        seed: ", ".join(fold["fold"] for fold in row.folds if fold["seed"] == seed)
        for seed in row.seeds
    }
    failed = [fold for fold in row.data["folds"] if fold["status"] == "failed"]
    note = f"; {len(failed)} failed: {failed[0]['reason']}" if failed else ""
    if not per_seed:
        return f"no fold of {len(names)}{note}"
    if len(set(per_seed.values())) == 1:
        return f"folds {next(iter(per_seed.values()))} of {len(names)}{note}"
    parts = (f"seed {seed}: folds {have}" for seed, have in per_seed.items())
    return f"{'; '.join(parts)} of {len(names)}{note}"


def _incomplete(board: Board, row: Row, escape: Escape) -> list[str]:
    plan, metric = row.data["plan"], board.sorted_by(row.task)
    values = "; ".join(
        (f"{test}: " if len(plan["tests"]) > 1 else "")
        + ", ".join(value(metric, fold["metrics"][test][metric.name]) for fold in row.folds)
        for test in plan["tests"]
    )
    title = f"{plan['protocol']}, version {plan['version']}, {plan['hash'][:12]}"
    return [
        escape(title),
        escape(method_name(row.data)),
        escape(upstream_name(row.data["upstream"])),
        escape(_run(row)),
        escape(there(row)),
        escape(f"{metric.title}: {values}"),
    ]


def incomplete_grid(board: Board, style: str, escape: Escape) -> str:
    """The incomplete runs, fold by fold, never averaged."""
    return tabulate(
        [_incomplete(board, row, escape) for row in board.incomplete],
        headers=["protocol", "method", "upstream", "run", "there", "each"],
        tablefmt=style,
        disable_numparse=True,
    )


def _commands(row: Row, mark: str) -> list[str]:
    """How to run it again, and what its name stands for."""
    upstream = row.data["upstream"]
    source = ", ".join(filter(None, (upstream["source"], upstream["revision"])))
    weights = f", weights {upstream['weights'][:16]}" if upstream["weights"] else ""
    about = f" ({source}{weights})" if source or weights else ""
    return [f"# {mark}{row.data['name']}{about}", *row.data["commands"]]


def markdown(board: Board) -> str:
    """The whole page."""
    parts = [
        "# Leaderboard",
        "All numbers are counted again from each run's predictions: means ± sample standard"
        " deviations over folds, the seeds of a fold averaged first. The metric with an arrow"
        " orders the rows; equal ones share a rank. Rows of different plan hashes cannot be"
        " compared and never share a table.",
        *(f"**Warning:** {cell(warning, 1000)}" for warning in board.warnings),
    ]
    if not board.tables:
        parts.append("No finished run.")
    for table in board.tables:
        commands = [
            line
            for row, rank in zip(table.rows, table.ranks(), strict=True)
            for line in _commands(row, f"{rank}: ")
        ]
        parts += [
            f"## {_heading(table, cell)}",
            grid(table, "pipe", cell),
            *corpora_grid(table, "pipe", cell),
            "\n".join(f"- {line}" for line in _caption(table, lambda text: cell(text, 500))),
            "Each row again:",
            fenced(commands),
        ]
    if board.incomplete:
        commands = [line for row in board.incomplete for line in _commands(row, "")]
        parts += ["## Incomplete: not ranked", incomplete_grid(board, "pipe", cell)]
        parts += ["Each row again, to the end:", fenced(commands)]
    for title, pairs in (
        ("Refused", board.refused),
        ("Left out: another record of the same run is shown", board.replaced),
    ):
        if pairs:
            lines = [f"- {cell(place, 300)}: {cell(why, 1000)}" for place, why in pairs]
            parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def terminal(board: Board) -> str:
    """The tables for a person at a screen."""
    parts = [f"WARNING: {plain(warning, 1000)}" for warning in board.warnings]
    for table in board.tables:
        parts.append(f"{_heading(table, plain)}\n{grid(table, 'simple', plain)}")
        if apart := corpora_grid(table, "simple", plain):
            parts.append("\n".join(apart))
        if table.test == table.plan["tests"][-1]:
            parts += [f"unscored: {plain(one)}" for one in unscored(table.rows[0].data["folds"])]
    if board.incomplete:
        parts.append("Incomplete: not ranked\n" + incomplete_grid(board, "simple", plain))
    for title, pairs in (("Refused", board.refused), ("Left out", board.replaced)):
        lines = [f"  {plain(place, 300)}: {plain(why, 1000)}" for place, why in pairs]
        if lines:
            parts.append("\n".join([title, *lines]))
    return "\n\n".join(parts)


def as_json(board: Board) -> dict[str, Any]:
    """The board as data: the same rows, unrounded and unescaped."""

    def entry(row: Row) -> dict[str, Any]:
        data = row.data
        keys = (
            *("name", "id", "task", "created", "commands", "recipes", "upstream", "method", "head"),
            *("cost", "devices", "numerics", "audit"),
        )
        return {
            "place": row.place,
            **{key: data[key] for key in keys},
            "seeds": row.seeds,
            "folds": [
                {k: fold[k] for k in ("fold", "seed", "metrics", "unscored") if k in fold}
                for fold in row.folds
            ],
            "parameters": data["parameters"] | {"share": row.share},
            "seconds": row.seconds,
            "warnings": row.warnings,
        }

    tables = [
        {
            "plan": table.plan,
            "test": table.test,
            "main": table.test == table.plan["tests"][0],
            "sort": table.metric.name,
            "corpora": table.corpora,
            "rows": [
                {"rank": rank, "summary": row.data["summary"][table.test], **entry(row)}
                | ({"by_corpus": of} if (of := of_row(row, table.test)) else {})
                for row, rank in zip(table.rows, table.ranks(), strict=True)
            ],
        }
        for table in board.tables
    ]
    return {
        "schema": 2,
        "sort": board.metric,
        "tables": tables,
        "incomplete": [{"plan": row.data["plan"], **entry(row)} for row in board.incomplete],
        "refused": [{"place": place, "reason": why} for place, why in board.refused],
        "replaced": [{"place": place, "reason": why} for place, why in board.replaced],
        "warnings": board.warnings,
    }
