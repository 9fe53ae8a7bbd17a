"""Which states of a frozen encoder tell of the task: a probe on each, beside the learned sum."""

from __future__ import annotations

import csv
import functools
import io
import math
import statistics
from collections import Counter
from pathlib import Path

from emopeft.downstream.measures.columns import NONE, Metric
from emopeft.downstream.measures.resampling import Interval
from emopeft.downstream.reports.layer_numbers import BESIDE, CHOSEN, SUM, Layers, Probe
from emopeft.downstream.reports.numbers import value
from emopeft.downstream.reports.profile import Bars, Level, profile
from emopeft.downstream.reports.sections import Grid, Picture, Section
from emopeft.downstream.runs.layers import shown_metric
from emopeft.files import write_text
from emopeft.text import plain


def layers_sections(layers: Layers, metric: str | None = None) -> list[Section]:
    """A table, a picture and what follows from them.

    Args:
        metric: that is drawn; None: the task's main one.

    Raises UserError where the task has no such metric.
    """
    task = layers.task
    main = shown_metric(task, metric)
    plan = layers.plan
    title = f"Layers of {layers.upstream}, {plain(plan['protocol'])} (hash {plan['hash'][:12]})"
    alt = (
        f"{main.title} of a probe on each of {len(layers.states)} states with 95 % intervals, the "
        "weighted sum as a band, and its learned shares as bars below"
    )
    name = f"layers-{main.name.replace('.', '-')}"
    picture = Picture(name, alt, functools.partial(draw_layers, layers, main))
    return [
        Section(title, [_about(layers, main), _grid(layers, main), picture, *_said(layers, main)])
    ]


def _about(layers: Layers, main: Metric) -> str:
    folds = dict.fromkeys(fold for fold, _ in layers.folds)
    seeds = sorted({seed for _, seed in layers.folds})
    planned, tests = layers.plan["folds"], layers.plan["tests"]
    some = "" if len(folds) == len(planned) else f" of {len(planned)}: {plain(', '.join(folds))}"
    on = f" on test {plain(tests[0])}" if len(tests) > 1 else ""
    drawn = (
        f"95 % intervals by drawing the {layers.speakers} speakers"
        if layers.speakers > 1
        else "no intervals: they need two known speakers"
    )
    shared = layers.others[0].weights
    return (
        f"{main.title}{on}, mean over folds ({len(folds)}{some}; seeds "
        f"{', '.join(map(str, seeds))}); {drawn}; the difference to the weighted sum on the same "
        "draws. State 0 enters the first block, state n leaves block n."
        + (" Learned share: mean ± deviation over folds and seeds." if shared else "")
    )


def _grid(layers: Layers, main: Metric) -> Grid:
    rest = [metric for metric in layers.task.shown if metric != main]
    summed = layers.others[0]
    headers = ["probe on", main.title, "95 %", "vs weighted sum", "95 %"]
    headers += [metric.title for metric in rest]
    headers += ["learned share"] if summed.weights else []
    rows = []
    for i, probe in enumerate([*layers.states, *layers.others]):
        number = layers.numbers[probe.name, main.name]
        cells = [probe.name, value(main, number.value), _shown(main, number.interval)]
        same = probe is summed
        cells.append("" if same else _signed(main, number.difference))
        cells.append("" if same else _shown(main, number.difference_interval, signed=True))
        cells += [value(m, layers.numbers[probe.name, m.name].value) for m in rest]
        if summed.weights:
            cells.append(_share(summed, i) if i < len(layers.states) else "")
        rows.append(cells)
    return Grid(headers, rows)


def _signed(metric: Metric, number: float) -> str:
    text = value(metric, number)
    return f"+{text}" if number >= 0 and text != NONE else text.replace("-", "−")


def _shown(metric: Metric, interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return NONE
    low, high = (_signed(metric, x) if signed else value(metric, x) for x in interval)
    return f"{low} to {high}"


def shares_of(probe: Probe) -> list[tuple[float, float | None]]:
    """Mean and standard deviation of the learned share of each state, over folds and seeds."""
    columns = zip(*probe.weights.values(), strict=True)
    return [(statistics.fmean(c), statistics.stdev(c) if len(c) > 1 else None) for c in columns]


def _share(probe: Probe, state: int) -> str:
    mean, spread = shares_of(probe)[state]
    return f"{mean:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _said(layers: Layers, main: Metric) -> list[str]:
    """What follows, in sentences."""
    if len(layers.states) == 1:
        return [f"{layers.upstream} has one state: there are no layers to compare."]
    numbers = {p.name: layers.numbers[p.name, main.name] for p in (*layers.states, *layers.others)}
    best = min(layers.states, key=lambda p: main.order(numbers[p.name].value)).name
    picked = sorted(Counter(layers.chosen.values()).items())
    which = ", ".join(f"{n} × state {s}" for s, n in picked)
    said = [
        f"Best on the tests: {best}, {value(main, numbers[best].value)}; picked after the fact, so "
        f"that it flatters. Chosen on dev in each fold ({which}): "
        f"{value(main, numbers[CHOSEN].value)}, which is "
        f"{_signed(main, numbers[CHOSEN].difference)} "
        f"({_shown(main, numbers[CHOSEN].difference_interval, signed=True)}) against the weighted "
        "sum."
    ]
    if any(p.name.startswith(BESIDE) for p in layers.others):
        said.append(
            "The probes read the frozen encoder. What the run's method makes of its states differs "
            "from fold to fold, and is not probed."
        )
    summed = layers.others[0]
    if summed.weights and not summed.data["head"]["standardise"]:
        said.append(
            "A learned share says what a state is multiplied by, not what it gives: states of "
            "larger norm get by with smaller shares, and shares move little from 1 / "
            f"{len(layers.states)} where training is short."
        )
    return said


def draw_layers(layers: Layers, metric: Metric, path: Path) -> None:
    """Draw the metric by state; raises UserError where matplotlib is missing."""
    factor = 100 if metric.percent else 1

    def scaled(name: str) -> Level:
        number = layers.numbers[name, metric.name]
        ends = number.interval and (factor * number.interval[0], factor * number.interval[1])
        return Level(name, factor * number.value, ends)

    bars = [
        Bars(f"share in the {p.name}" if p.name == SUM else f"share in {p.name}", shares_of(p))
        for p in layers.others
        if p.weights
    ]
    profile(
        path,
        [scaled(p.name) for p in layers.states],
        [scaled(p.name) for p in layers.others],
        bars,
        title=f"{layers.upstream} on {plain(layers.plan['protocol'])}, frozen: a probe per state",
        axes=("state (0: into the first block)", f"{metric.title}, mean of folds, 95 %"),
    )


def write_csv(path: Path, layers: Layers) -> None:
    """Every number of every probe, with every digit: a row per probe and metric."""
    summed = layers.others[0]
    shares = shares_of(summed) if summed.weights else []
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    names = ("value", "low", "high", "difference", "difference_low", "difference_high")
    out.writerow(["probe", "metric", *names, "share", "share_sd"])
    for i, probe in enumerate([*layers.states, *layers.others]):
        share = shares[i] if i < len(layers.states) and shares else (None, None)
        for metric in layers.task.shown:
            number = layers.numbers[probe.name, metric.name]
            cells = [number.value, *(number.interval or (None, None)), number.difference]
            cells += [*(number.difference_interval or (None, None)), *share]
            out.writerow([probe.name, metric.name, *(_cell(x) for x in cells)])
    write_text(path, text.getvalue())


def _cell(number: float | None) -> str:
    return "" if number is None or math.isnan(number) else repr(float(number))
