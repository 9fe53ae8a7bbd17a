"""Pictures of reports, drawn by matplotlib without a screen: .svg, .png or .pdf, as the name ends.

The same numbers give the same file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.errors import UserError
from emopeft.files import writing

# What a picture may end in, and what would make the same one another file.
UNDATED = {".svg": {"Date": None}, ".png": {"Software": None}, ".pdf": {"CreationDate": None}}
MARKERS = "osD^vPX*<>hd"
# Text stays text in an .svg, and what has a name at random gets the same one each time.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "emopeft",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.bbox": "tight",
    "figure.dpi": 150,
}


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """A panel: values (rows, columns), NaN where there is none, and what is written on each."""

    title: str
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A point, with its label and the intervals (low, high) that it may lie in."""

    x: float
    y: float
    label: str = ""
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


def heat_maps(
    path: Path,
    panels: Sequence[HeatMap],
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    axes: tuple[str, str],
    scale: str,
    around: float | None = None,
) -> None:
    """Draw panels of the same rows and columns side by side, on one scale of colours.

    Args:
        axes: what rows and columns are. scale: what the colours are, with its unit.
        around: a value that has no colour, with others on both sides of it; None: light to dark.

    Raises:
        UserError: matplotlib is not installed, or the file's name ends in something else.
    """
    numbers = [v for p in panels for row in p.values for v in row if not math.isnan(v)]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    colours = "Blues"
    if around is not None:
        far = max(high - around, around - low) or 1.0
        low, high, colours = around - far, around + far, "RdBu"
    width = max(2.0, 1.25 * len(columns)) + 0.4
    with picture(path, 1.6 + width * len(panels), 1.6 + 0.75 * len(rows)) as figure:
        figure.suptitle(title, fontsize=11)
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, place in zip(panels, places, strict=True):
            image = place.imshow(panel.values, cmap=colours, vmin=low, vmax=high, aspect="auto")
            place.set_title(panel.title, fontsize=10)
            place.set_xticks(range(len(columns)), columns)
            place.set_yticks(range(len(rows)), rows if place is places[0] else [""] * len(rows))
            place.set_xlabel(axes[1])
            place.tick_params(length=0)
            place.spines[:].set_visible(False)
            for i, row in enumerate(panel.texts):
                for j, text in enumerate(row):
                    colour = "w" if _dark(image, panel.values[i][j]) else "k"
                    place.text(j, i, text, ha="center", va="center", color=colour)
        places[0].set_ylabel(axes[0])
        figure.colorbar(image, ax=figure.axes, label=scale, shrink=0.9)


def _dark(image: Any, value: float) -> bool:
    """Whether light text is read better on the colour of a value (its luma, Rec. 601)."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return not math.isnan(value) and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5


def interval_rows(
    path: Path,
    rows: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, tuple[float, float] | None] | None]],
    *,
    title: str,
    axis: str,
    line: float | None = None,
) -> None:
    """Draw a row for each name, and in it a dot of each series with its interval.

    Args:
        rows: names, from above. series: name in the legend -> value and interval (low, high) in
            each row, None where there is none; one without any only keeps its colour from others.
        axis: what the values are. line: one that is marked.

    Raises:
        UserError: matplotlib is not installed, or the file's name ends in something else.
    """
    shown = [name for name, dots in series.items() if any(dots)]
    step = 0.7 / max(1, len(shown))
    with picture(path, 6.4, 1.4 + len(rows) * (0.25 + 0.2 * len(shown))) as figure:
        place = figure.subplots()
        place.set_title(title, fontsize=11)
        place.set_xlabel(axis)
        place.set_yticks(range(len(rows)), rows)
        place.set_ylim(len(rows) - 0.5, -0.5)
        place.grid(axis="x", color="0.93")
        place.set_axisbelow(True)
        for border in range(1, len(rows)):
            place.axhline(border - 0.5, color="0.9", linewidth=0.8, zorder=0)
        for number, (name, dots) in enumerate(series.items()):
            if name not in shown:
                continue
            shift = (shown.index(name) - (len(shown) - 1) / 2) * step
            known = [(row + shift, *dot) for row, dot in enumerate(dots) if dot is not None]
            colour, marker = f"C{number % 10}", MARKERS[number % len(MARKERS)]
            place.plot([value for _, value, _ in known], [y for y, _, _ in known],
                       linestyle="", marker=marker, color=colour, label=name)  # fmt: skip
            for y, _, interval in known:
                if interval is not None:
                    place.plot(interval, (y, y), color=colour, linewidth=1.2)
        if line is not None:
            place.axvline(line, color="0.4", linewidth=0.8, zorder=1)
        place.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def scatter(
    path: Path,
    groups: Mapping[str, Sequence[Point]],
    *,
    title: str,
    axes: tuple[str, str],
    lines: bool = False,
) -> None:
    """Draw groups of points, each with its colour and marker; 0 is a line where it is in sight.

    Args:
        groups: name in the legend ("" for none) -> its points. axes: what x and y are.
        lines: whether the points of a group are joined in their order.

    Raises:
        UserError: matplotlib is not installed, or the file's name ends in something else.
    """
    with picture(path, 6.4, 4.6) as figure:
        place = figure.subplots()
        place.set_title(title, fontsize=11)
        place.set_xlabel(axes[0])
        place.set_ylabel(axes[1])
        place.grid(color="0.93")
        place.set_axisbelow(True)
        for number, (name, points) in enumerate(groups.items()):
            place.errorbar(
                [p.x for p in points],
                [p.y for p in points],
                xerr=_errors([(p.x, p.x_interval) for p in points]),
                yerr=_errors([(p.y, p.y_interval) for p in points]),
                fmt=MARKERS[number % len(MARKERS)] + ("-" if lines else ""),
                color=f"C{number % 10}",
                elinewidth=0.8,
                label=name or None,
            )
            for p in points:
                place.annotate(
                    p.label, (p.x, p.y), xytext=(5, 4), textcoords="offset points", fontsize=8
                )
        place.margins(0.12)
        for limits, line in ((place.get_xlim(), place.axvline), (place.get_ylim(), place.axhline)):
            if limits[0] < 0 < limits[1]:
                line(0, color="0.6", linewidth=0.8, zorder=0)
        if any(groups):
            place.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def _errors(values: Sequence[tuple[float, tuple[float, float] | None]]) -> Any:
    """How far each interval reaches down and up, (2, points); None where none has one."""
    if all(interval is None for _, interval in values):
        return None
    ends = [(v, v) if interval is None else interval for v, interval in values]
    down = [max(0.0, v - low) for (v, _), (low, _) in zip(values, ends, strict=True)]
    return [down, [max(0.0, high - v) for (v, _), (_, high) in zip(values, ends, strict=True)]]


@contextlib.contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of so many inches, written to ``path`` at the end of the block; raises UserError."""
    kind = path.suffix.lower()
    if kind not in UNDATED:
        raise UserError(f"{path} is no picture: its name must end in {', '.join(UNDATED)}")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure  # which needs no screen
    except ImportError:
        raise UserError(
            "pictures need matplotlib, which is not installed: pip install 'emopeft[plots]'"
        ) from None
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with writing(path) as temporary:
            figure.savefig(temporary, format=kind[1:], metadata=UNDATED[kind])
