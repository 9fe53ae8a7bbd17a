"""Pictures of curves: panels of shares, and curves with their intervals as bands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from emopeft.downstream.reports.pictures import MARKERS, Point, picture


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line through points; with markers where they are few, dashed where it is a variant."""

    xs: Sequence[float]
    ys: Sequence[float]
    marked: bool = False
    dashed: bool = False


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    title: str,
    axes: tuple[str, str],
    diagonal: bool = False,
) -> None:
    """Draw panels of curves of shares, in percent, three in a row on the same axes, one legend.

    Args:
        panels: title of each ("" for none) -> name in the legend -> curve. A dashed curve has the
            colour of the one before it.
        diagonal: whether x = y is drawn, and both axes are of one scale.

    Raises:
        UserError: matplotlib is not installed, or the file's name ends in something else.
    """
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    with picture(path, 1.0 + max(5.4, 3.4 * across), 1.6 + 4.2 * down) as figure:
        figure.get_layout_engine().set(h_pad=0.2)
        figure.suptitle(title, fontsize=11)
        places = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for place in places.flat[len(panels) :]:
            place.remove()
        for place, (name, of) in zip(places.flat, panels.items(), strict=False):
            place.set_title(name, fontsize=10)
            place.grid(color="0.93")
            place.set_axisbelow(True)
            colour = -1
            for number, (label, curve) in enumerate(of.items()):
                colour += number == 0 or not curve.dashed
                place.plot(
                    [100 * x for x in curve.xs], [100 * y for y in curve.ys], label=label,
                    color=f"C{colour % 10}", linestyle="--" if curve.dashed else "-",
                    marker=MARKERS[number % len(MARKERS)] if curve.marked else "", markersize=4,
                )  # fmt: skip
            if diagonal:
                place.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, zorder=0)
                place.set(xlim=(-4, 104), ylim=(-4, 104), box_aspect=1)
            place.set_xlabel(axes[0])
            place.tick_params(labelbottom=True)  # the panel below may not be there
        for place in places[:, 0]:
            place.set_ylabel(axes[1])
        handles, labels = places.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9
        )


@dataclasses.dataclass(frozen=True)
class Band:
    """Points that are joined, their intervals shaded; ``level``: what they are compared with, a
    dashed line of the same colour."""

    points: Sequence[Point]
    level: float | None = None


def bands(
    path: Path, series: Mapping[str, Band], *, title: str, axes: tuple[str, str], level: str
) -> None:
    """Draw curves with bands, each with its colour and marker.

    Args:
        series: name in the legend -> band. axes: what x and y are. level: what the dashed lines
            are, in the legend.

    Raises:
        UserError: matplotlib is not installed, or the file's name ends in something else.
    """
    with picture(path, 6.4, 4.2) as figure:
        place = figure.subplots()
        place.set_title(title, fontsize=11)
        place.set_xlabel(axes[0])
        place.set_ylabel(axes[1])
        place.grid(color="0.93")
        place.set_axisbelow(True)
        for number, (name, band) in enumerate(series.items()):
            colour, x = f"C{number % 10}", [p.x for p in band.points]
            place.plot(x, [p.y for p in band.points], MARKERS[number % len(MARKERS)] + "-",
                       color=colour, label=name, markersize=5)  # fmt: skip
            ends = [p.y_interval or (math.nan, math.nan) for p in band.points]
            low, high = zip(*ends, strict=True) if ends else ((), ())
            place.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            if band.level is not None:
                place.axhline(band.level, color=colour, linestyle="--", linewidth=0.9)
        if any(band.level is not None for band in series.values()):
            place.plot([], [], "--", color="0.4", linewidth=0.9, label=level)
        place.set_xticks(sorted({p.x for band in series.values() for p in band.points}))
        place.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
