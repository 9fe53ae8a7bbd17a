"""A picture of a metric along an encoder's states: a line with intervals, levels, bars below."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.reports.pictures import picture


@dataclasses.dataclass(frozen=True)
class Level:
    """A value with its interval (low, high), and a name in the legend."""

    name: str
    value: float
    interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Bars:
    """A bar per state: its height, and the deviation drawn on it, None for none."""

    name: str
    heights: Sequence[tuple[float, float | None]]


def profile(
    path: Path,
    points: Sequence[Level],
    levels: Sequence[Level],
    bars: Sequence[Bars],
    *,
    title: str,
    axes: tuple[str, str],
) -> None:
    """Draw points 0, 1, ... joined by a line, and levels across them: the first with a band for its
    interval, the others dashed; with ``bars`` a second panel below, with the equal share dotted.

    Args:
        axes: what the points are numbered by, and what they are.

    Raises:
        UserError: matplotlib is not installed, or the file's name ends in something else.
    """
    places = range(len(points))
    with picture(path, max(6.0, 2.2 + 0.32 * len(points)), 5.0 if bars else 3.6) as figure:
        ratios = {"height_ratios": [2.6, 1]} if bars else {}
        above, *below = figure.subplots(
            1 + bool(bars), 1, sharex=True, squeeze=False, gridspec_kw=ratios
        )[:, 0]
        above.set_title(title, fontsize=11)
        above.set_ylabel(axes[1])
        above.grid(axis="y", color="0.93")
        above.set_axisbelow(True)
        for number, level in enumerate(levels):
            colour = f"C{number + 1}"
            if number == 0 and level.interval is not None:
                above.axhspan(*level.interval, color=colour, alpha=0.15, linewidth=0)
            style = "-" if number == 0 else "--"
            above.axhline(level.value, color=colour, linestyle=style, label=level.name)
        above.plot(places, [p.value for p in points], "o-", color="C0", label="one state")
        for place, point in enumerate(points):
            if point.interval is not None:
                above.plot((place, place), point.interval, color="C0", linewidth=0.9)
        above.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
        last = above
        for place in below:
            _bars(place, bars, len(points))
            last = place
        every = -(-len(points) // 26)  # that their numbers do not touch
        last.set_xticks(places[::every])
        last.set_xlabel(axes[0])


def _bars(place: Any, bars: Sequence[Bars], states: int) -> None:
    width = 0.7 / len(bars)
    for number, one in enumerate(bars):
        shift = (number - (len(bars) - 1) / 2) * width
        deviations = [deviation or 0.0 for _, deviation in one.heights]
        place.bar(
            [i + shift for i in range(len(one.heights))], [h for h, _ in one.heights], width,
            yerr=deviations if any(deviations) else None, color=f"C{number + 1}", alpha=0.75,
            error_kw={"elinewidth": 0.9}, label=one.name,
        )  # fmt: skip
    place.axhline(1 / states, color="0.4", linewidth=0.9, linestyle=":", label="equal shares")
    place.set_ylabel("learned share")
    place.set_ylim(bottom=0)
    place.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
