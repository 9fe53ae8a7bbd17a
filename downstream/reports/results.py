"""The tables at the end of a run and of an evaluation, for any task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from emopeft.downstream.data.augment import augment_name
from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.records.corpora_apart import Part, of_each_corpus
from emopeft.downstream.records.folds import TESTED, fold_folder
from emopeft.downstream.records.making import UNSCORED_TABLE
from emopeft.downstream.records.predictions import read_predictions, table_of
from emopeft.downstream.reports.numbers import statistic, value
from emopeft.downstream.reports.per_corpus import per_corpus
from emopeft.downstream.reports.transfer import moments_table, strategy_name
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.text import plain
from emopeft.units import duration, percent, size


def result(record: Mapping[str, Any], out: Path) -> str:
    """The tables of a run, one per named test.

    Args:
        record: as `write_record` returns it. out: the folder that holds the run's.
    """
    task = task_of(record["task"])
    lines = [_title(record)]
    for test in record["plan"]["tests"]:
        if len(record["plan"]["tests"]) > 1:
            lines.append(f"test {test_name(record['plan'], test)}")
        lines.append(_table(record, task, test))
        lines += per_corpus(record.get("by_corpus", {}).get(test, {}), task)
        lines += _speakers(record, task, test)
        lines += task.remarks([f["metrics"][test] for f in record["folds"] if f["metrics"]])
        lines += _chance(record, task, test, out)
    lines += moments_table(record, task)
    lines += [f"unscored: {plain(one)}, in {UNSCORED_TABLE}" for one in unscored(record["folds"])]
    for fold in record["folds"]:
        if fold["status"] == "failed":
            name = f"fold {plain(fold['fold'])}, seed {fold['seed']}"
            lines.append(f"{name} failed: {plain(fold['reason'], 500)}")
    lines += _clips(record)
    lines += [plain(f"warning: {warning}", 500) for warning in record["plan"]["warnings"]]
    lines.append(_cost(record))
    lines.append(f"record: {out / record['name'] / 'result.json'}")
    return "\n".join(lines)


def test_name(plan: Mapping[str, Any], test: str) -> str:
    """A test's name, with which is the main one where there are several."""
    main = len(plan["tests"]) > 1 and test == plan["tests"][0]
    return plain(f"{test} (main)" if main else test)


def unscored(folds: Sequence[Mapping[str, Any]]) -> list[str]:
    """``test3 (2,347 clips)`` of each test that was predicted and not measured; where folds have
    different ones, of the fewest and the most."""
    counts: dict[str, list[int]] = {}
    for fold in folds:
        for test, number in (fold.get("unscored") or {}).items():
            counts.setdefault(test, []).append(number)
    ends = {test: dict.fromkeys((min(n), max(n))) for test, n in counts.items()}
    return [f"{test} ({' to '.join(f'{n:,}' for n in of)} clips)" for test, of in ends.items()]


def upstream_name(upstream: Mapping[str, Any]) -> str:
    """What was really run: the name asked for, its note, and weights that are not the name's."""
    notes = [upstream["note"]] if upstream["note"] else []
    if upstream["local"]:
        weights = (upstream["weights"] or "none")[:8]
        notes.append(f"{upstream['source'] or 'local'}, weights {weights}")
    return f"{upstream['name']} ({'; '.join(notes)})" if notes else upstream["name"]


def method_name(record: Mapping[str, Any]) -> str:
    """The canonical spelling, what the user asked for where it names a paper's preset, where its
    head started, what was done with two stages, the views of training clips, and how long clips
    were taken."""
    identity = record.get("identity") or {}
    method, head, clips = record["method"], identity.get("head"), identity.get("clips")
    spelling = method["asked"]
    name = f"{method['spec']} ({spelling})" if "@" in spelling else method["spec"]
    from_probe = isinstance(head, dict) and head.get("init") == "probe"
    name += ", from the probe" if from_probe else ""
    stages = strategy_name(record)
    name += f", {stages}" if stages else ""
    augment = identity.get("augment")
    name += f", {augment_name(augment)}" if isinstance(augment, dict) else ""
    return f"{name}, {clip_length(clips)}" if isinstance(clips, dict) else name


def clip_length(clips: Mapping[str, Any]) -> str:
    """``first 12 s``, ``6 s crops``, ``4 s segments``."""
    seconds = f"{float(clips['seconds']):g} s"
    if clips["mode"] == "segments":
        return f"{seconds} segments"
    return f"first {seconds}" if clips["starts"] == 1 else f"{seconds} crops"


def _title(record: Mapping[str, Any]) -> str:
    plan, corpora = record["plan"], " + ".join(corpus["name"] for corpus in record["corpora"])
    recipes = [r["name"] or r["file"] for r in record["recipes"] if r["name"] or r["file"]]
    recipe = f"; recipe {', '.join(recipes)}" if recipes else ""
    return plain(
        f"{upstream_name(record['upstream'])} + {method_name(record)} on {corpora}, "
        f"{plan['protocol']} (hash {plan['hash'][:12]}){recipe}",
        400,
    )


def _table(record: Mapping[str, Any], task: Task, test: str) -> str:
    rows = []
    for fold in record["folds"]:
        if fold["status"] == "finished":
            measures = fold["metrics"][test]
            cells = [value(metric, measures[metric.name]) for metric in task.shown]
        else:
            cells = ["failed", *[""] * (len(task.shown) - 1)]
        stages = [stage["result"] for stage in fold["stages"] if stage["result"]]
        rows.append(
            [
                plain(fold["fold"]), fold["seed"], *cells,
                ", ".join(f"{stage['lr']:g}" for stage in stages),
                ", ".join(f"{stage['best_step']}/{stage['steps']}" for stage in stages),
                duration(fold["seconds"]["train"]),
            ]
        )  # fmt: skip
    complete = record["status"] == "finished"
    means = record["summary"].get(test)
    if means:
        cells = [statistic(metric, means[metric.name]) for metric in task.shown]
        rows.append(["mean" if complete else "incomplete", "", *cells, "", "", ""])
    together = record.get("pooled", {}).get(test)
    if together and means and means[task.main]["n"] > 1:
        cells = [value(metric, together[metric.name]) for metric in task.shown]
        rows.append(["pooled", "", *cells, "", "", ""])
    titles = [metric.title for metric in task.shown]
    headers = ["fold", "seed", *titles, "lr", "best/steps", "training"]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)


def _speakers(record: Mapping[str, Any], task: Task, test: str) -> list[str]:
    """How far speakers lie apart in the main metric."""
    speakers = record.get("speakers", {}).get(test, {})
    numbers = [s["value"] for s in speakers.values() if s["value"] is not None]
    if len(numbers) < 2:
        return []
    metric = task.metric(task.main)
    lowest, highest = (metric.show(end(numbers)) for end in (min, max))
    without = len(speakers) - len(numbers)
    return [
        f"per speaker: {metric.title} {metric.show(statistics.fmean(numbers))} ± "
        f"{metric.show(statistics.stdev(numbers))}, {lowest} to {highest}, {len(numbers)} speakers"
        + (f" ({without} more have none)" if without else "")
    ]


def _clips(record: Mapping[str, Any]) -> list[str]:
    """How many clips were not taken whole, of the fold with the most."""
    cut = [(f["clips"], f["utterances"]) for f in record["folds"] if f.get("clips")]
    if not cut:
        return []

    def share(side: str) -> str:
        pairs = [(clips["cut"][side], all_[side]) for clips, all_ in cut]
        if side == "tests":
            pairs = [(sum(some.values()), sum(whole.values())) for some, whole in pairs]
        return "{} of {}".format(*max(pairs))

    clips = cut[0][0]
    return [
        f"longer than {clips['seconds']:g} s ({clip_length(clips)} taken), of the fold with the "
        f"most: {share('train')} training clips, {share('dev')} of dev, {share('tests')} tested"
    ]


def _chance(record: Mapping[str, Any], task: Task, test: str, out: Path) -> list[str]:
    """What guessing reaches, from the truths of the tests: a range where folds differ."""
    reached: dict[str, list[float]] = {}
    for fold in record["folds"]:
        if fold["status"] != "finished":
            continue
        place = fold_folder(out / record["name"], fold["fold"], fold["seed"])
        try:
            rows = [row for row in read_predictions(place / TESTED, task) if row.test == test]
        except UserError:  # the record stands without it
            continue
        for name, number in task.chance(table_of(rows, task)).items():
            reached.setdefault(name, []).append(number)
    shown = []
    for name, numbers in reached.items():
        metric = task.metric(name)
        ends = dict.fromkeys((metric.show(min(numbers)), metric.show(max(numbers))))
        shown.append(f"{metric.title} {' to '.join(ends)}")
    return [f"chance: {', '.join(shown)}"] if shown else []


def _cost(record: Mapping[str, Any]) -> str:
    parameters, cost = record["parameters"], record["cost"]
    peak, seconds = cost["peak_memory_bytes"], cost["seconds"]
    parts = [f"{size(number)} {name}" for name, number in peak.items() if number is not None]
    frozen = max(seconds["features"], cost["frozen_seconds"] or 0)
    search = f", search {duration(seconds['tune'])}" if seconds["tune"] else ""
    probes = cost.get("probe_seconds")
    start = "" if probes is None else f"probes to start from {duration(probes)}, "
    stored = cost["cache"].get("bytes")
    on_disk = f", kept on disk {size(stored)}" if isinstance(stored, (int, float)) else ""
    return (
        f"trained {parameters['trainable']:,} of {parameters['total']:,} parameters "
        f"({percent(parameters['share'])}); frozen part {duration(frozen)}, {start}training "
        f"{duration(seconds['train'])}{search}; peak memory {', '.join(parts) or NONE}{on_disk}"
    )


def evaluation(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of an evaluation.

    Args:
        results: of `runs.evaluate`: per fold, seed and test its "metrics" (None: unscored),
            "clips", "task", and "difference", the largest change of a predicted number, None where
            none was recorded, and "corpora", the columns of each corpus.
    """
    if not results:
        return "nothing was tested"
    task: Task = results[0]["task"]
    several = len({one["test"] for one in results}) > 1
    rows = []
    for one in results:
        cells = ["unscored", *[""] * (len(task.shown) - 1)]
        if one["metrics"] is not None:
            cells = [value(metric, one["metrics"][metric.name]) for metric in task.shown]
        change = one["difference"]
        unknown = change is None or math.isnan(change)
        named = [plain(one["test"])] if several else []
        rows.append(
            [
                plain(one["fold"]), one["seed"], *named, one["clips"], *cells,
                "not recorded" if unknown else f"{change:.1e}",
            ]
        )  # fmt: skip
    titles = [metric.title for metric in task.shown]
    headers = ["fold", "seed", *(["test"] if several else []), "clips", *titles, "largest change"]
    lines = [tabulate(rows, headers, tablefmt="simple", disable_numparse=True)]
    for test in dict.fromkeys(one["test"] for one in results):
        parts = [
            Part(one["fold"], one["seed"], corpus, table)
            for one in results
            if one["test"] == test
            for corpus, table in one.get("corpora", {}).items()
        ]
        if table := per_corpus(of_each_corpus(parts, task), task):
            lines += ["", *([f"test {plain(test)}"] if several else []), *table]
    return "\n".join(lines)
