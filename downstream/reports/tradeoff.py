"""What runs of one transfer plan gain in the target, and what they forget of the source for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from emopeft.downstream.data.transfer import BETWEEN, SOURCE, TARGET
from emopeft.downstream.measures.classes import mean_std
from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.records.record import examine
from emopeft.downstream.records.transfer import AFTER, FORGETTING, GAIN, difference, moments_of
from emopeft.downstream.reports.numbers import value
from emopeft.downstream.reports.pictures import Point, scatter
from emopeft.downstream.reports.transfer import strategy_name
from emopeft.errors import UserError
from emopeft.files import digest
from emopeft.text import plain

Key = tuple[str, int]  # fold and seed


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of one plan that differ in nothing but what was done with its stages.

    Attributes:
        name: encoder and method. records: of the runs, by what was done.
    """

    name: str
    records: dict[str, dict[str, Any]]

    def between(self, metric: Metric) -> dict[Key, dict[str, Any]]:
        """Per fold and seed both tests at the source's end; that of the run of the source alone,
        where there is one."""
        found: dict[Key, dict[str, Any]] = {}
        alone = {name: r for name, r in self.records.items() if _strategy(r) == SOURCE}
        for record in (alone | self.records).values():
            for key, moments in _folds(record).items():
                if BETWEEN in moments:
                    found.setdefault(key, _main(moments[BETWEEN], metric))
        return found


@dataclasses.dataclass(frozen=True)
class Change:
    """A run's gain and forgetting over folds: mean and standard error (None of one fold)."""

    name: str
    gain: float
    forgetting: float
    errors: dict[str, float | None]
    folds: int


def changes(runs: Runs, metric: Metric) -> list[Change]:
    """Gain and forgetting of each run, against the source's end of the same fold and seed: where a
    run has none of its own (target only, joint), against that of the others.

    The seeds of a fold are averaged first. A run whose folds have no source's end to be compared
    with is left out.
    """
    between = runs.between(metric)
    found = []
    for name, record in runs.records.items():
        per_fold: dict[str, dict[str, list[float]]] = {GAIN: {}, FORGETTING: {}}
        for key, moments in _folds(record).items():
            own = BETWEEN in moments
            before = _main(moments[BETWEEN], metric) if own else between.get(key, {})
            after = _main(moments[AFTER], metric)
            for what, test in ((GAIN, TARGET), (FORGETTING, SOURCE)):
                better = difference(metric, after[test], before.get(test))
                if better is not None:
                    signed = better if what == GAIN else -better
                    per_fold[what].setdefault(key[0], []).append(signed)
        means = {
            what: [math.fsum(v) / len(v) for v in of.values()] for what, of in per_fold.items()
        }
        if not means[GAIN] or not means[FORGETTING]:
            continue
        both = {what: mean_std(values) for what, values in means.items()}
        errors = {
            what: None if of["std"] is None else of["std"] / math.sqrt(of["n"])
            for what, of in both.items()
        }
        found.append(
            Change(name, both[GAIN]["mean"], both[FORGETTING]["mean"], errors, len(means[GAIN]))
        )
    return found


def tradeoff(places: Sequence[Path], output: Path | None) -> str:
    """A table of gain and forgetting of finished runs, and with ``output`` a picture of it.

    Raises:
        UserError: a run that is not believed, has no two stages, or is of another plan than the
            others; no matplotlib for the picture.
    """
    checked = [examine(place) for place in places]
    for place, one in zip(places, checked, strict=True):
        if one.problems:
            raise UserError(f"{place} is not what its folds give: {one.problems[0]}")
        if not one.data.get("transfer"):
            raise UserError(f"{place} has no stages source and target; see --protocol transfer")
        if one.data["plan"]["hash"] != checked[0].data["plan"]["hash"]:
            raise UserError(f"{place} is of another plan than {places[0]}: compare runs of one")
    task = checked[0].task
    metric = task.metric(task.main)
    groups = _grouped([one.data for one in checked])
    rows: list[list[Any]] = []
    points: dict[str, list[Point]] = {}
    for group in groups:
        for change in changes(group, metric):
            name = change.name if len(groups) == 1 else f"{group.name}: {change.name}"
            points[name] = [_point(metric, change)]
            cells = [
                value(metric, of) + ("" if error is None else f" ± {value(metric, error)}")
                for of, error in (
                    (change.gain, change.errors[GAIN]),
                    (change.forgetting, change.errors[FORGETTING]),
                )
            ]
            rows.append([group.name, change.name, *cells, change.folds])
    headers = ["encoder + method", "stages", GAIN, FORGETTING, "folds"]
    plan = checked[0].data["plan"]
    title = f"{plain(plan['protocol'])} (hash {plan['hash'][:12]}), {metric.title}"
    text = f"{title}, mean ± standard error over folds\n"
    text += tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
    if output is not None:
        scatter(
            output, points,
            title=f"{title}\n{' and '.join(g.name for g in groups)}; bars: standard error of folds",
            axes=(f"forgetting of the source ({metric.title})",
                  f"gain in the target ({metric.title})"),
        )  # fmt: skip
        text += f"\npicture: {output}"
    return text


def _point(metric: Metric, change: Change) -> Point:
    factor = 100 if metric.percent else 1

    def ends(of: float, error: float | None) -> tuple[float, float] | None:
        return None if error is None else (factor * (of - error), factor * (of + error))

    return Point(
        factor * change.forgetting, factor * change.gain, "",
        ends(change.forgetting, change.errors[FORGETTING]), ends(change.gain, change.errors[GAIN]),
    )  # fmt: skip


def _grouped(records: Sequence[dict[str, Any]]) -> list[Runs]:
    """Runs that differ only in what was done with the stages, together."""
    groups: dict[str, Runs] = {}
    for record in records:
        rest = {name: of for name, of in record["identity"].items() if name != "transfer"}
        name = plain(f"{record['upstream']['name']} + {record['method']['spec']}")
        group = groups.setdefault(digest(rest), Runs(name, {}))
        stages = strategy_name(record)
        again = sum(known.partition(" #")[0] == stages for known in group.records)
        group.records[f"{stages} #{again + 1}" if again else stages] = record
    return list(groups.values())


def _main(tests: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    """The metric of both tests at a moment."""
    return {test: tests[test][metric.name] for test in (TARGET, SOURCE)}


def _strategy(record: Mapping[str, Any]) -> str:
    return str(record["folds"][0]["transfer"]["strategy"])


def _folds(record: Mapping[str, Any]) -> dict[Key, dict[str, Any]]:
    """Per finished fold and seed its moments."""
    finished = (fold for fold in record["folds"] if fold["status"] == "finished")
    return {(fold["fold"], fold["seed"]): dict(moments_of(fold)) for fold in finished}
