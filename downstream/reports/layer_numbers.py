"""Probes on each state of an encoder and on their sum, read from their records and compared."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.measures.resampling import Interval, Statistic, speaker_intervals
from emopeft.downstream.records.folds import fold_folder
from emopeft.downstream.records.making import TABLE
from emopeft.downstream.records.predictions import Prediction, read_predictions, table_of
from emopeft.downstream.records.record import examine
from emopeft.downstream.reports.tallies import counting_of, statistic_of
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError
from emopeft.text import plain

Key = tuple[str, int]  # fold and seed
SUM, CHOSEN, BESIDE = "weighted sum", "chosen on dev", "this run"


@dataclasses.dataclass(frozen=True)
class Probe:
    """What one probe, or run, says of the main test.

    Attributes:
        name: as it is shown. rows: of each finished fold and seed. dev: its metrics there.
        weights: what its checkpoints hold of the weighted sum: per fold and seed the shares.
    """

    name: str
    data: Mapping[str, Any]
    task: Task
    rows: Mapping[Key, Sequence[Prediction]]
    dev: Mapping[Key, Mapping[str, Any]]
    weights: Mapping[Key, Sequence[float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Number:
    """A metric of a probe, and how it differs from the weighted sum's; intervals of 95 %, None
    where there is none."""

    value: float
    interval: Interval | None
    difference: float
    difference_interval: Interval | None


@dataclasses.dataclass(frozen=True)
class Layers:
    """Probes of one plan on the folds and seeds that all of them have.

    Attributes:
        states: the probe of state 0, 1, ... others: the weighted sum, the state chosen on dev, and
            the run that was asked about where it is another one.
        numbers: by probe's name and metric. chosen: the states chosen on dev, per fold and seed.
        speakers: whose clips were tested; 0 where some are unknown.
    """

    states: Sequence[Probe]
    others: Sequence[Probe]
    folds: Sequence[Key]
    numbers: Mapping[tuple[str, str], Number]
    chosen: Mapping[Key, int]
    speakers: int

    @property
    def task(self) -> Task:
        return self.states[0].task

    @property
    def plan(self) -> Mapping[str, Any]:
        return self.states[0].data["plan"]

    @property
    def upstream(self) -> str:
        return plain(self.states[0].data["upstream"]["name"])


# ---- reading ------------------------------------------------------------------------------------


def read_probe(place: Path, name: str) -> Probe:
    """A run as the board reads it; raises UserError where it is not believed."""
    checked = examine(place)
    if checked.problems:
        raise UserError(f"{place} is not what its folds give: {checked.problems[0]}")
    test = checked.data["plan"]["tests"][0]
    rows: dict[Key, list[Prediction]] = {}
    for row in read_predictions(place / TABLE, checked.task):
        if row.test == test:
            rows.setdefault((row.fold, row.seed), []).append(row)
    dev: dict[Key, Mapping[str, Any]] = {}
    weights: dict[Key, Sequence[float]] = {}
    for fold in checked.data["folds"]:
        key = fold["fold"], fold["seed"]
        if fold["status"] == "finished":
            dev[key] = fold["stages"][-1]["result"]["dev"]
            shares = _shares(fold_folder(place, *key), checked.data["head"]["layers"])
            weights |= {} if shares is None else {key: shares}
    return Probe(name, checked.data, checked.task, rows, dev, weights)


def _shares(folder: Path, layers: str) -> list[float] | None:
    """The learned shares of a checkpoint's states, first of all; None where it has no sum."""
    import torch

    from emopeft.downstream.models.checkpoint import read_adapter

    tensors, config = read_adapter(folder)
    found = tensors.get("head.featurizer.weights")
    if found is None:
        return None
    shares = torch.softmax(found.double().flatten(), 0).tolist()
    return [0.0] * (config["head"]["states"] - len(shares)) + shares


def read_layers_in(place: Path, run: Path, base: Path | None) -> Layers:
    """What ``emopeft layers`` left in a folder, with a run beside it.

    Args:
        base: the run of the weighted sum, where the folder has none of its own; None: ``run``.

    Raises:
        UserError: no such folder, or as `read_layers`.
    """
    states = [place / f"layer{i}" for i in range(len(list(place.glob("layer*"))))]
    if len(states) < 2 or not all(state.is_dir() for state in states):
        raise UserError(f"{place} is no folder of emopeft layers; run it, or leave --layers out")
    own = place / SUM.replace(" ", "_")
    return read_layers(states, own if own.is_dir() else base or run, run)


def read_layers(states: Sequence[Path], summed: Path, run: Path | None = None) -> Layers:
    """Probes of every state, of their weighted sum, and a run beside them, compared.

    Raises:
        UserError: one that is not believed, or of another plan or audio; no fold that all have.
    """
    probes = [read_probe(place, f"state {i}") for i, place in enumerate(states)]
    others = [read_probe(summed, SUM)]
    if run is not None and run != summed:
        other = read_probe(run, plain(run.name))
        others.append(dataclasses.replace(other, name=f"{BESIDE} ({_method(other)})"))
    for place, probe in zip([*states, summed, run], [*probes, *others], strict=False):
        for what in ("hash", "audio_hash"):
            if probe.data["plan"][what] != probes[0].data["plan"][what]:
                raise UserError(
                    f"{place} is of other folds or audio than {states[0]} (plan.{what} differs): "
                    "the corpus has changed since; run the older ones again"
                )
    keys = [key for key in probes[0].rows if all(key in p.rows for p in (*probes, *others))]
    if not keys:
        raise UserError("no fold and seed is finished in all of the runs; see the failures above")
    chosen = {key: _best_on_dev(probes, key) for key in keys}
    picked = {key: probes[state].rows[key] for key, state in chosen.items()}
    others.append(Probe(CHOSEN, probes[0].data, probes[0].task, picked, {}))
    numbers, speakers = _numbers([*probes, *others], keys)
    return Layers(probes, others, keys, numbers, chosen, speakers)


def _method(probe: Probe) -> str:
    return plain(str(probe.data["method"]["asked"] or probe.data["method"]["spec"]))


def _best_on_dev(probes: Sequence[Probe], key: Key) -> int:
    """The state with the best dev metric of a fold and seed, of equals the lowest."""
    task = probes[0].task
    metric = task.metric(probes[0].data["train"].get("select") or task.main)
    values = [p.dev[key].get(metric.name) for p in probes]
    orders = [metric.order(math.nan if v is None else v) for v in values]
    return orders.index(min(orders))


def _numbers(
    probes: Sequence[Probe], keys: Sequence[Key]
) -> tuple[dict[tuple[str, str], Number], int]:
    """Every metric of every probe, all on the same draws of speakers; and how many they are."""
    task = probes[0].task
    rows = {p.name: [row for key in keys for row in p.rows[key]] for p in probes}
    names = sorted({row.speaker for row in rows[SUM]})
    found: dict[tuple[str, str], Number] = {}
    for metric in task.shown:
        counting = counting_of(task, metric.name)
        if counting is None:
            means = {p.name: _plain_mean(p, metric, keys) for p in probes}
            for name, mean in means.items():
                found[name, metric.name] = Number(mean, None, mean - means[SUM], None)
            continue
        each = [statistic_of(counting, rows[p.name], names) for p in probes]
        both = functools.partial(_with_differences, each, [p.name for p in probes].index(SUM))
        values = both(np.ones((1, len(names))))[:, 0].tolist()
        size = len(probes) * len(names) * len(counting.sums(rows[SUM][0].values))
        known = None if "" in names else speaker_intervals(both, len(names), size)
        intervals = [_known(i) for i in known] if known else [None] * len(values)
        for i, probe in enumerate(probes):
            j = len(probes) + i
            found[probe.name, metric.name] = Number(
                values[i], intervals[i], values[j], intervals[j]
            )
    return found, 0 if "" in names else len(names)


def _with_differences(each: Sequence[Statistic], base: int, times: np.ndarray) -> np.ndarray:
    """Of draws (draws, speakers) the values of all, then each minus that of the base."""
    values = np.stack([statistic(times) for statistic in each])
    return np.concatenate([values, values - values[base]])


def _known(interval: Interval) -> Interval | None:
    return None if any(map(math.isnan, interval)) else interval


def _plain_mean(probe: Probe, metric: Metric, keys: Sequence[Key]) -> float:
    """The mean over folds of a metric that is not counted from sums; seeds are averaged first."""
    folds: dict[str, list[float]] = {}
    for key in keys:
        measured = probe.task.measure(table_of(probe.rows[key], probe.task))[metric.name]
        folds.setdefault(key[0], []).append(math.nan if measured is None else measured)
    return statistics.fmean(statistics.fmean(values) for values in folds.values())
