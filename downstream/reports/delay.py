"""How fast checkpoints are: delay by clip length, as sections, JSON and CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopeft.downstream.measures.delays import Delay
from emopeft.downstream.reports.numbers import NONE
from emopeft.downstream.reports.pictures import Point, scatter
from emopeft.downstream.reports.sections import Grid, Picture, Section
from emopeft.files import write_json, write_text
from emopeft.text import plain
from emopeft.units import size

if TYPE_CHECKING:
    from emopeft.downstream.runs.delay import Measured

UNREST = 0.2  # a spread of rounds above which a table warns


def delay_of(place: Path, upstream_path: str | None = None) -> list[Section]:
    """The sections of one checkpoint, timed in seconds: for pages that say more about it.

    Raises:
        UserError: as `downstream.runs.delay.measure`.
    """
    from emopeft.downstream.runs.delay import QUICK, measure

    return delay_sections(measure([place], QUICK, upstream_path))


def delay_sections(found: Measured) -> list[Section]:
    """Tables and a picture of what was timed."""
    parts: list[str | Grid | Picture] = [_how(found), _table(found)]
    for name, error in found.differences.items():
        parts.append(f"{plain(name)}: merged gives the same outputs within {error:.1e}.")
    parts += [f"{plain(n)}: not merged: {plain(why, 300)}." for n, why in found.not_merged.items()]
    if restless := [d.spread for d in found.delays.values() if (d.spread or 0) > UNREST]:
        parts.append(
            f"Rounds of the same work differ by up to {100 * max(s or 0 for s in restless):.0f} %: "
            "something else is running on this machine, and small differences mean nothing."
        )
    if found.decoding is not None:
        parts.append(_file_table(found))
    if len(found.settings.seconds) > 1:
        parts.append(
            Picture("delay", "delay against the length of a clip", lambda path: draw(path, found))
        )
    return [Section("Delay", parts)]


def _how(found: Measured) -> str:
    machine, settings = found.machine, found.settings
    one_per = f"{settings.rounds} rounds of {settings.repeats} repetitions in turns"
    text = (
        f"One clip at a time, from 16 kHz samples in memory to outputs (front end, encoder, head), "
        f"on {plain(str(machine['device']))}, {_threads(machine)}, "
        f"torch {machine['torch']}; {one_per} after {settings.warm_up} that are not counted. "
        f"Peak memory of the process: {size(machine['peak memory'])}, all of the table in it"
    )
    if machine.get("peak memory of the GPU"):
        text += f"; of the GPU: {size(machine['peak memory of the GPU'])}"
    if machine["load"] is not None:
        text += f". Load of the machine before: {machine['load']} on {machine['cores']} cores"
    return text + "."


def _threads(machine: dict[str, Any]) -> str:
    return f"{machine['threads']} thread{'s' if machine['threads'] != 1 else ''}"


def _table(found: Measured) -> Grid:
    headers = ["checkpoint", "way", "precision", "clip s", "least ms", "p50 ms", "p95 ms",
               "real-time factor", "audio s per s", "rounds differ"]  # fmt: skip
    rows = []
    for i, way in enumerate(found.ways):
        for seconds in found.settings.seconds:
            cells = _cells(found.delays[i, seconds])
            rows.append([plain(way.checkpoint), way.name, way.precision, *cells])
        if way.name == "as trained" and way.checkpoint in found.not_merged:
            rows.append([plain(way.checkpoint), "merged", *[NONE] * 8])
    return Grid(
        headers,
        rows,
        "delay of one clip; rounds differ: the slowest round's median from the fastest's",
    )


def _cells(delay: Delay) -> list[str]:
    spread = NONE if delay.spread is None else f"{100 * delay.spread:.0f} %"
    return [
        f"{delay.audio:g}", *map(milliseconds, (delay.least, delay.p50, delay.p95)),
        f"{delay.real_time_factor:.4f}", f"{delay.audio_per_second:.1f}", spread,
    ]  # fmt: skip


def milliseconds(seconds: float) -> str:
    """Three digits of them."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _file_table(found: Measured) -> Grid:
    assert found.decoding is not None
    reading = found.decoding.p50
    rows = [
        [plain(way.checkpoint), way.name, milliseconds(reading), milliseconds(delay.p50),
         f"{100 * reading / (reading + delay.p50):.0f} %"]
        for i, way in enumerate(found.ways) if (delay := found.of_file.get(i)) is not None
    ]  # fmt: skip
    headers = ["checkpoint", "way", "decoding ms", "model ms", "decoding's share"]
    return Grid(headers, rows, f"from a file ({plain(str(found.file))}): p50 of both")


def draw(path: Path, found: Measured) -> None:
    """Delay against the length of a clip: p50, bars up to p95."""
    groups = {}
    for i, way in enumerate(found.ways):
        delays = [found.delays[i, seconds] for seconds in sorted(found.settings.seconds)]
        groups[f"{plain(way.checkpoint)}, {way.name}"] = [
            Point(d.audio, 1000 * d.p50, y_interval=(1000 * d.p50, 1000 * d.p95)) for d in delays
        ]
    machine = found.machine
    scatter(
        path, groups, lines=True,
        title=f"{plain(str(machine['device']))}, {_threads(machine)}; bars: up to p95",
        axes=("length of the clip (s)", "delay of one clip (ms)"),
    )  # fmt: skip


# ---- for programs ---------------------------------------------------------------------------


def rows_of(found: Measured) -> list[dict[str, Any]]:
    """A row per way and length; times in seconds."""
    rows = []
    for i, way in enumerate(found.ways):
        about = {"checkpoint": way.checkpoint, "way": way.name, "precision": way.precision}
        for seconds in found.settings.seconds:
            rows.append(about | _numbers(found.delays[i, seconds]))
    return rows


def _numbers(delay: Delay) -> dict[str, Any]:
    return {
        "audio_seconds": delay.audio, "count": delay.count, "least": delay.least,
        "p50": delay.p50, "p95": delay.p95,
        "real_time_factor": delay.real_time_factor, "audio_per_second": delay.audio_per_second,
        "spread": delay.spread,
    }  # fmt: skip


def write_numbers(folder: Path, found: Measured) -> list[Path]:
    """delay.json, with every single time, and delay.csv; returns both."""
    rows = rows_of(found)
    every = [
        {"way": i, "audio_seconds": seconds, "rounds": [list(times) for times in delay.rounds]}
        for (i, seconds), delay in found.delays.items()
    ]
    data = {
        "schema": 1, "machine": found.machine, "rows": rows, "times": every,
        "not_merged": found.not_merged, "merged_differs_by": found.differences,
    }  # fmt: skip
    if found.decoding is not None:
        models = [_numbers(found.of_file[i]) for i in range(len(found.ways))]
        data["file"] = {
            "name": found.file, "decoding": _numbers(found.decoding), "models": models,
        }  # fmt: skip
    write_json(folder / "delay.json", data)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "delay.csv", buffer.getvalue())
    return [folder / "delay.json", folder / "delay.csv"]
