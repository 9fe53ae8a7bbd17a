"""The board as markdown, as JSON and for the terminal.

Every text of a record is untrusted: it comes through ``cell`` (markdown), ``plain`` (terminal,
JSON keeps it as it is) or ``fenced`` (commands) and can neither break a table nor bring markup.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from tabulate import tabulate

from emopeft.downstream.tasks.metrics import NAMES
from emopeft.leaderboard.gather import Board, Row, Table
from emopeft.units import duration, size

TITLES = {"accuracy": "WA %", "uar": "UAR %", "macro_f1": "F1 %"}
HEADERS = ("rank", "method", "upstream", "run", "trainable", "% of all")
COSTS = ("time", "peak memory", "seeds")
LONGEST = 80  # characters of a name in a table
Escape = Callable[[str], str]


def visible(text: str) -> str:
    """``text`` with a blank for every line break, control, direction or invisible character."""
    return "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)


def plain(text: str, longest: int = LONGEST) -> str:
    """One line of visible characters, single blanks, shortened to ``longest``."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def cell(text: str, longest: int = LONGEST) -> str:
    """``plain`` text that markdown shows as it is: no markup, link, HTML or table border."""
    line = html.escape(plain(text, longest), quote=False)
    line = re.sub(r"([\\`*\[\]~])", r"\\\1", line).replace("|", "&#124;")
    line = re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", line)
    line = re.sub(r"://|(?<=www)\.", lambda hit: "\\" + hit[0], line, flags=re.IGNORECASE)
    return re.sub(r"^(\d*)([-+#.)])", r"\1\\\2", line)  # no heading, no list item


def fenced(lines: Sequence[str]) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    text = "\n".join(visible(line).rstrip() for line in lines)
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return f"{fence}sh\n{text}\n{fence}"


def percent(statistic: dict[str, Any]) -> str:
    """``61.20 ± 3.10`` over folds, with ``(seeds ± 0.40)`` where there are several."""
    text = f"{100 * statistic['mean']:.2f}"
    if statistic["std"] is not None:
        text += f" ± {100 * statistic['std']:.2f}"
    if statistic.get("seed_std") is not None:
        text += f" (seeds ± {100 * statistic['seed_std']:.2f})"
    return text


def _upstream(row: Row) -> str:
    """Its name, marked when its record has a note (synthetic, random weights)."""
    upstream = row.data["upstream"]
    return upstream["name"] + (f" ({upstream['note']})" if upstream["note"] else "")


def _cells(row: Row, rank: int, escape: Escape) -> list[str]:
    data = row.data
    return [
        str(rank),
        escape(data["method"]["spec"]),
        escape(_upstream(row)),
        escape(data["name"]),
        f"{data['parameters']['trainable']:,}",
        f"{100 * row.share:.2f}",
        *(percent(row.summary[name]) for name in NAMES),
        duration(row.seconds),
        "–" if (peak := data["cost"]["peak_memory_bytes"]) is None else size(peak),
        ", ".join(map(str, row.seeds)),
    ]


def grid(table: Table, metric: str, style: str, escape: Escape) -> str:
    """One table by tabulate; the metric that orders it is marked with an arrow."""
    titles = [TITLES[name] + (" ↓" if name == metric else "") for name in NAMES]
    cells = [
        _cells(row, rank, escape) for row, rank in zip(table.rows, table.ranks(metric), strict=True)
    ]
    return tabulate(
        cells,
        headers=[*HEADERS, *titles, *COSTS],
        tablefmt=style,
        colalign=("right", *["left"] * 3, *["right"] * 8),
        disable_numparse=True,
    )


def _caption(table: Table, escape: Escape) -> list[str]:
    protocol, corpus = table.protocol, table.corpus
    overlap = protocol["speaker_overlap"]
    shared = f"; speakers shared with: {', '.join(overlap)}" if overlap else ""
    pairs = {(row.data["device"]["name"], row.data["device"]["precision"]) for row in table.rows}
    devices = sorted(f"{name}, {precision}" for name, precision in pairs)
    return [
        f"Corpus: {escape(corpus['title'])}; licence: {escape(corpus['licence'])}; "
        f"{corpus['utterances']:,} utterances, {corpus['hours']:.2f} h.",
        f"{len(protocol['folds'])} folds; {len(protocol['classes'])} classes: "
        f"{escape(', '.join(protocol['classes']))}{escape(shared)}.",
        f"Protocol hash: {protocol['hash']}.",
        f"Time (all phases) and peak memory were measured on: {escape('; '.join(devices))}.",
    ]


def _heading(table: Table, escape: Escape) -> str:
    protocol = table.protocol
    title = f"{protocol['name']}, version {protocol['version']}"
    return escape(f"{title} (hash {protocol['hash'][:12]})")


def there(row: Row) -> str:
    """``folds 1, 3 of 6``, per seed when the seeds differ."""
    names = row.data["protocol"]["folds"]
    per_seed = {
        seed: ", ".join(fold["fold"] for fold in row.folds if fold["seed"] == seed)
        for seed in row.seeds
    }
    if len(set(per_seed.values())) == 1:
        return f"folds {next(iter(per_seed.values()))} of {len(names)}"
    parts = (f"seed {seed}: folds {have}" for seed, have in per_seed.items())
    return f"{'; '.join(parts)} of {len(names)}"


def _incomplete(row: Row, metric: str, escape: Escape) -> list[str]:
    protocol = row.data["protocol"]
    values = ", ".join(f"{100 * fold['metrics'][metric]:.2f}" for fold in row.folds)
    title = f"{protocol['name']}, version {protocol['version']}, {protocol['hash'][:12]}"
    upstream, name = escape(_upstream(row)), escape(row.data["name"])
    method = escape(row.data["method"]["spec"])
    return [escape(title), method, upstream, name, escape(there(row)), values]


def incomplete_grid(board: Board, style: str, escape: Escape) -> str:
    """The incomplete runs, fold by fold, never averaged."""
    return tabulate(
        [_incomplete(row, board.metric, escape) for row in board.incomplete],
        headers=["protocol", "method", "upstream", "run", "there", f"{TITLES[board.metric]} each"],
        tablefmt=style,
        disable_numparse=True,
    )


def markdown(board: Board) -> str:
    """The whole page."""
    parts = [
        "# Leaderboard",
        "All numbers are counted again from each run's predictions. WA (accuracy), UAR and macro-F1"
        " are means ± sample standard deviations over folds, the seeds of a fold averaged first."
        f" Rows are ordered by {TITLES[board.metric].removesuffix(' %')}; equal ones share a rank."
        " Rows of different protocol hashes cannot be compared and never share a table.",
        *(f"**Warning:** {cell(warning, 1000)}" for warning in board.warnings),
    ]
    if not board.tables:
        parts.append("No finished run.")
    for table in board.tables:
        ranks = table.ranks(board.metric)
        commands = []
        for row, rank in zip(table.rows, ranks, strict=True):
            commands += [f"# {rank}: {row.data['name']}", row.data["command"]]
        parts += [
            f"## {_heading(table, cell)}",
            grid(table, board.metric, "pipe", cell),
            "\n".join(f"- {line}" for line in _caption(table, lambda text: cell(text, 500))),
            "Each row again:",
            fenced(commands),
        ]
    if board.incomplete:
        commands = []
        for row in board.incomplete:
            commands += [f"# {row.data['name']}", row.data["command"]]
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
        parts.append(f"{_heading(table, plain)}\n{grid(table, board.metric, 'simple', plain)}")
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
        kept = ("name", "identity", "task", "created", "command", "upstream", "method", "head")
        return {
            "place": row.place,
            **{key: data[key] for key in kept},
            "seeds": row.seeds,
            "folds": row.folds,
            "parameters": data["parameters"] | {"share": row.share},
            "seconds": row.seconds,
            "cost": data["cost"],
            "device": data["device"],
        }

    tables = [
        {
            "protocol": table.protocol,
            "corpus": table.corpus,
            "rows": [
                {"rank": rank, "summary": row.summary, **entry(row)}
                for row, rank in zip(table.rows, table.ranks(board.metric), strict=True)
            ],
        }
        for table in board.tables
    ]
    return {
        "schema": 1,
        "sort": board.metric,
        "tables": tables,
        "incomplete": [{"protocol": r.data["protocol"], **entry(r)} for r in board.incomplete],
        "refused": [{"place": place, "reason": why} for place, why in board.refused],
        "replaced": [{"place": place, "reason": why} for place, why in board.replaced],
        "warnings": board.warnings,
    }
