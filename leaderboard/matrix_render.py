"""A cross-corpus matrix for the terminal, as markdown, as JSON, and as heat maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from emopeft.downstream.reports.pictures import HeatMap, heat_maps
from emopeft.downstream.reports.results import NONE, statistic
from emopeft.files import write_json, write_text
from emopeft.leaderboard.matrix import BASE, Key, Matrix
from emopeft.text import cell, plain

PAGE, DATA, PICTURE, GAINS = "matrix.md", "matrix.json", "matrix.svg", "matrix-gain.svg"
TRAINED, TESTED = "trained on", "tested on"


def write_matrix(matrix: Matrix, out: Path) -> list[Path]:
    """Write page, data and pictures to a folder; returns what was written.

    Raises UserError, once page and data are there, where pictures cannot be drawn.
    """
    pictures = [PICTURE, *([GAINS] if matrix.gains else [])]
    write_text(out / PAGE, page(matrix, pictures))
    write_json(out / DATA, as_json(matrix))
    _draw_values(matrix, out / PICTURE)
    if matrix.gains:
        _draw_gains(matrix, out / GAINS)
    return [out / name for name in (PAGE, DATA, *pictures)]


# ---- texts --------------------------------------------------------------------------------------


def terminal(matrix: Matrix) -> str:
    """Both tables, and what was left out."""
    lines = [_title(matrix), _values(matrix, "simple", plain), ""]
    if matrix.gains:
        lines += [_gains_title(matrix), _gains(matrix, "simple", plain), ""]
    lines += [_reading(matrix)]
    lines += [plain(f"left out: {place}: {why}", 500) for place, why in matrix.left_out]
    return "\n".join(lines)


def page(matrix: Matrix, pictures: list[str]) -> str:
    """The same as markdown, with the pictures."""
    lines = [
        "# Cross-corpus", "", cell(_title(matrix), 500), "", _values(matrix, "pipe", cell), "",
        f"![{matrix.metric.title} at home and away]({pictures[0]})", "",
    ]  # fmt: skip
    if matrix.gains:
        lines += [cell(_gains_title(matrix), 500), "", _gains(matrix, "pipe", cell), ""]
        lines += [f"![{matrix.metric.title} against the frozen probe]({pictures[1]})", ""]
    lines += [cell(_reading(matrix), 1000), "", "Runs:", ""]
    lines += [
        f"- {cell(run.record['name'])}: plan {run.record['plan']['hash'][:12]}"
        for run in matrix.runs
    ]
    if matrix.left_out:
        lines += ["", "Left out:", ""]
        lines += [f"- {cell(place)}: {cell(why, 500)}" for place, why in matrix.left_out]
    return "\n".join(lines) + "\n"


def as_json(matrix: Matrix) -> dict[str, Any]:
    """Every number, with every digit."""

    def entry(key: Key) -> dict[str, Any]:
        home, corpus, method = key
        found: dict[str, Any] = {TRAINED: home, TESTED: corpus, "method": method}
        found |= matrix.cells[key]
        if (gain := matrix.gains.get(key)) is not None:
            interval = None if gain.interval is None else list(gain.interval)
            found |= {"gain": gain.value, "gain_interval": interval}
        return found

    return {
        "metric": matrix.metric.name,
        "classes": list(matrix.task.classes),
        "upstream": matrix.upstream,
        "plans": {run.home: run.record["plan"]["hash"] for run in matrix.runs},
        "cells": [entry(key) for key in _keys(matrix)],
    }


def _keys(matrix: Matrix) -> list[Key]:
    return [
        (home, corpus, method)
        for home in matrix.homes
        for method in matrix.methods
        for corpus in matrix.tested
        if (home, corpus, method) in matrix.cells
    ]


def _title(matrix: Matrix) -> str:
    folds = [f"{home} ({_folds(matrix, home)} folds)" for home in matrix.homes]
    return (
        f"{matrix.metric.title} of {matrix.upstream}, {len(matrix.task.classes)} classes "
        f"({', '.join(matrix.task.classes)}), mean ± deviation over the folds of the corpus that "
        f"was trained on: {', '.join(folds)}"
    )


def _folds(matrix: Matrix, home: str) -> int:
    return next(len(r.record["plan"]["folds"]) for r in matrix.runs if r.home == home)


def _gains_title(matrix: Matrix) -> str:
    return (
        f"{matrix.metric.title} minus that of the frozen probe ({BASE}) in the same cell, with its "
        "95 % interval (paired bootstrap over the speakers of the corpus that was tested on)"
    )


def _reading(matrix: Matrix) -> str:
    return (
        "At home (in brackets) the corpus' own protocol holds: each fold tests its own speakers. "
        "Away each fold is tested on all of the other corpus, none of which was trained on or "
        "chosen by."
    )


def _values(matrix: Matrix, style: str, escape: Callable[[str], str]) -> str:
    rows = []
    for home in matrix.homes:
        for method in matrix.methods:
            cells = []
            for corpus in matrix.tested:
                summary = matrix.cells.get((home, corpus, method))
                text = NONE if summary is None else statistic(matrix.metric, summary)
                cells.append(f"[{text}]" if corpus == home and summary else text)
            if set(cells) != {NONE}:
                rows.append([escape(home), escape(method), *cells])
    return _grid(matrix, rows, style, escape)


def _gains(matrix: Matrix, style: str, escape: Callable[[str], str]) -> str:
    rows = []
    for home in matrix.homes:
        for method in matrix.methods:
            cells = [_gain(matrix, (home, corpus, method), " ") for corpus in matrix.tested]
            if set(cells) != {NONE}:
                rows.append([escape(home), escape(method), *cells])
    return _grid(matrix, rows, style, escape)


def _grid(matrix: Matrix, rows: Any, style: str, escape: Callable[[str], str]) -> str:
    headers = [TRAINED, "method", *(escape(f"on {corpus}") for corpus in matrix.tested)]
    return tabulate(rows, headers, tablefmt=style, disable_numparse=True)


def _gain(matrix: Matrix, key: Key, between: str) -> str:
    """``+3.10 (-1.00 to 7.20)``."""
    gain = matrix.gains.get(key)
    if gain is None:
        return NONE
    text = _signed(matrix, gain.value)
    if gain.interval is None:
        return text
    low, high = (_signed(matrix, end) for end in gain.interval)
    return f"{text}{between}({low} to {high})"


def _signed(matrix: Matrix, number: float) -> str:
    return f"{'+' if number > 0 else ''}{matrix.metric.show(number)}"


# ---- pictures -----------------------------------------------------------------------------------


def _draw_values(matrix: Matrix, path: Path) -> None:
    def text(key: Key) -> str:
        summary = matrix.cells.get(key)
        if summary is None:
            return NONE
        mean = matrix.metric.show(summary["mean"])
        deviation = summary["std"]
        return mean if deviation is None else f"{mean}\n± {matrix.metric.show(deviation)}"

    values = {key: summary["mean"] for key, summary in matrix.cells.items()}
    _draw(matrix, path, matrix.methods, values, text, "at home and away", None)


def _draw_gains(matrix: Matrix, path: Path) -> None:
    values = {key: gain.value for key, gain in matrix.gains.items()}
    methods = [m for m in matrix.methods if any(key[2] == m for key in values)]
    what = "minus the frozen probe's"
    _draw(matrix, path, methods, values, lambda key: _gain(matrix, key, "\n"), what, 0.0)


def _draw(
    matrix: Matrix,
    path: Path,
    methods: list[str],
    values: dict[Key, float],
    text: Callable[[Key], str],
    what: str,
    around: float | None,
) -> None:
    """A panel per method."""
    factor = 100.0 if matrix.metric.percent else 1.0
    homes, tested = matrix.homes, matrix.tested

    def of(home: str, method: str) -> list[float]:
        return [factor * values.get((home, corpus, method), float("nan")) for corpus in tested]

    panels = [
        HeatMap(
            plain(method, 40),
            [of(home, method) for home in homes],
            [[text((home, corpus, method)) for corpus in tested] for home in homes],
        )
        for method in methods
    ]
    name = matrix.runs[0].record["upstream"]["name"]
    scale = matrix.metric.title if around is None else f"{matrix.metric.title}, difference"
    heat_maps(
        path, panels, title=f"{matrix.metric.title} {what}\n{plain(name, 40)}",
        rows=[plain(h, 40) for h in homes], columns=[plain(c, 40) for c in tested],
        axes=(TRAINED, TESTED), scale=scale, around=around,
    )  # fmt: skip
