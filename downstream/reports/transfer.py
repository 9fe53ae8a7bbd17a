"""A transfer for people: what was done with its stages, and both tests at three moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from emopeft.downstream.data.transfer import BEFORE, BETWEEN, SOURCE, TARGET
from emopeft.downstream.measures.columns import NONE, Metric
from emopeft.downstream.records.transfer import AFTER, FORGETTING, GAIN, moments_of
from emopeft.downstream.reports.numbers import statistic, value
from emopeft.downstream.tasks.base import Task
from emopeft.text import plain

COLUMNS = [(test, moment) for test in (TARGET, SOURCE) for moment in (BEFORE, BETWEEN, AFTER)]
ALONE = {"source": "source only", "target": "target only", "joint": "joint"}


def strategy_name(record: Mapping[str, Any]) -> str:
    """What was done with the stages, of the first fold that says so; "" where there were none."""
    facts = next((fold["transfer"] for fold in record["folds"] if fold.get("transfer")), None)
    if facts is None:
        return ""
    words = [ALONE.get(facts["strategy"], facts["strategy"])]
    if facts["origin"]:
        words = [f"from {facts['origin']['run']}"]
    if facts["strategy"] == "average":
        words.append(f"share {facts['share']:g}")
    if facts["penalty"] != "none":
        words.append(f"{facts['penalty']} {facts['strength']:g}")
    if facts["rehearsal"]:
        words.append(f"{facts['rehearsal']} rehearsed")
    if facts["freeze"]:
        words.append(f"{', '.join(facts['freeze'])} frozen")
    for stage in (SOURCE, TARGET):
        if facts[stage]:
            keys = ", ".join(f"{name}={of}" for name, of in facts[stage].items())
            words.append(f"{stage} {keys}")
    return plain(", ".join(words), 200)


def moments_table(record: Mapping[str, Any], task: Task) -> list[str]:
    """Both tests before, between and after, gain and forgetting, per fold and in the mean; nothing
    of a record without such stages."""
    summary = record.get("transfer")
    if not summary:
        return []
    metric = task.metric(task.main)
    rows = []
    for fold in record["folds"]:
        if fold["status"] != "finished":
            continue
        moments = moments_of(fold)
        cells = [moments.get(moment, {}).get(test, {}).get(metric.name) for test, moment in COLUMNS]
        cells += [fold["transfer"][name][metric.name] for name in (GAIN, FORGETTING)]
        rows.append([plain(fold["fold"]), fold["seed"], *(value(metric, cell) for cell in cells)])
    if rows:
        means = [summary["moments"].get(moment, {}).get(test, {}) for test, moment in COLUMNS]
        means += [summary[name] for name in (GAIN, FORGETTING)]
        name = "mean" if record["status"] == "finished" else "incomplete"
        rows.append([name, "", *(_mean(metric, of) for of in means)])
    headers = ["fold", "seed", *(f"{test} {moment}" for test, moment in COLUMNS), GAIN, FORGETTING]
    return [
        f"{metric.title} of both tests at the start, between the stages and at the end "
        f"({strategy_name(record)})",
        tabulate(rows, headers, tablefmt="simple", disable_numparse=True),
    ]


def _mean(metric: Metric, means: Mapping[str, Any]) -> str:
    return statistic(metric, means[metric.name]) if metric.name in means else NONE
