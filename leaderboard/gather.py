"""Find the records under a folder, make them again, and sort them into tables.

A table holds rows that can be compared: one plan hash, computed again from the folds' own rows, and
one named test of it. Nothing that a record says of itself is believed where it can be computed, and
nothing in one record can harm or displace another.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.records.checks import same
from emopeft.downstream.records.record import Checked, examine
from emopeft.downstream.records.values import parse_moment
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class Row:
    """One run: ``data`` is its record as made again from its folds (`RecordFacts`).

    ``place`` is its folder relative to the one searched, ``folder`` where it lies.
    """

    place: str
    task: Task
    data: dict[str, Any]
    warnings: list[str]
    folder: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether it may be ranked."""
        return self.data["status"] == "finished"

    @property
    def folds(self) -> list[dict[str, Any]]:
        """Its folds that were trained and tested."""
        return [fold for fold in self.data["folds"] if fold["status"] == "finished"]

    @property
    def seeds(self) -> list[int]:
        """The seeds it was run with, in order."""
        return sorted({fold["seed"] for fold in self.folds})

    @property
    def seconds(self) -> float:
        """Wall time of all its phases, the frozen part, probes and source's stages that it started
        from as long as they took when they were computed."""
        seconds = self.data["cost"]["seconds"]
        before = ("probe_seconds", "source_seconds")
        probes = sum(self.data["cost"].get(name) or 0.0 for name in before)
        frozen = max(seconds["features"], self.data["cost"]["frozen_seconds"] or 0.0)
        return frozen + probes + sum(seconds[name] for name in ("load", "tune", "train", "test"))

    @property
    def peak(self) -> int | None:
        """Peak memory in bytes: the device's where it was measured, else the host's."""
        peak = self.data["cost"]["peak_memory_bytes"]
        return peak["host"] if peak["device"] is None else peak["device"]

    @property
    def share(self) -> float:
        """Trainable / total parameters, 0 ... 1."""
        return self.data["parameters"]["trainable"] / self.data["parameters"]["total"]

    @property
    def names(self) -> tuple[str, str, str]:
        """Upstream, method and name: what orders rows of equal metric."""
        return self.data["upstream"]["name"], self.data["method"]["spec"], self.data["name"]

    def mean(self, test: str, metric: str) -> float:
        """The mean of a metric over the folds; NaN where it is none."""
        mean = self.data["summary"][test][metric]["mean"]
        return float("nan") if mean is None else mean


@dataclasses.dataclass(frozen=True)
class Table:
    """Comparable rows, best first by ``metric``: those of one plan, on one of its tests."""

    test: str
    metric: Metric
    rows: list[Row]

    @property
    def task(self) -> Task:
        """The task that all rows share."""
        return self.rows[0].task

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that all rows share, as the first of them describes it."""
        return self.rows[0].data["plan"]

    @property
    def corpora(self) -> list[dict[str, Any]]:
        """The corpora that all rows share, as the first of them describes them."""
        return self.rows[0].data["corpora"]

    def ranks(self) -> list[int]:
        """1 for the best; equal metrics share a rank, and what is no number comes last."""
        orders = [self.metric.order(row.mean(self.test, self.metric.name)) for row in self.rows]
        return [1 + sum(other < order for other in orders) for order in orders]


@dataclasses.dataclass(frozen=True)
class Board:
    """What is published. ``refused`` and ``replaced``: (place, reason)."""

    metric: str | None
    tables: list[Table]
    incomplete: list[Row]
    refused: list[tuple[str, str]]
    replaced: list[tuple[str, str]]
    warnings: list[str]

    def sorted_by(self, task: Task) -> Metric:
        """The metric that orders the rows of a task: the one asked for, or the task's own."""
        return next((m for m in task.metrics if m.name == self.metric), task.metric(task.main))


def gather(root: Path, metric: str | None = None) -> Board:
    """All records at any depth under ``root``, ranked by the mean of ``metric``.

    A record that cannot be read, or says what its folds do not, is refused with the reason. Of
    several records of one run (equal identity) see `_one_each`.

    Args:
        metric: None: of each table its task's main one.

    Raises:
        UserError: ``root`` is not a folder or holds no record at all, or no task here has the
            metric.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; name the one that holds the runs")
    rows, refused = [], []
    for folder in _folders(root):
        place = folder.relative_to(root).as_posix()
        try:
            rows.append(_row(examine(folder), place))
        except UserError as error:
            refused.append((place, _without(folder, str(error))))
        except (Exception, RecursionError) as error:  # one record never takes the board down
            what = f"{type(error).__name__}: {error}"[:300]
            refused.append((place, _without(folder, f"it cannot be read ({what})")))
    if not rows and not refused:
        raise UserError(f"no result.json under {root}; run_downstream.py writes one per run")
    known = {m.name for row in rows for m in row.task.metrics}
    if metric is not None and rows and metric not in known:
        raise unknown("metric", metric, known)
    rows, replaced, warnings = _one_each(rows)
    board = Board(metric, [], [], refused, replaced, warnings)
    board.tables.extend(_tables(board, [row for row in rows if row.finished]))
    board.incomplete.extend(row for row in rows if not row.finished)
    board.incomplete.sort(key=lambda row: (_title(row), row.names, row.place))
    board.warnings.extend(_warnings(board.tables))
    board.warnings.extend(f"{row.place}: {words}" for row in rows for words in row.warnings)
    return board


def _folders(root: Path) -> list[Path]:
    """Every folder with a result.json, in a stable order; links are not followed."""
    folders = [Path(place) for place, _, files in os.walk(root) if "result.json" in files]
    return sorted(folders, key=lambda path: path.parts)


def _without(folder: Path, message: str) -> str:
    """A message without the place of the folder on this machine."""
    return message.replace(f"{folder}{os.sep}", "").replace(str(folder), "it")


def _row(record: Checked, place: str) -> Row:
    """A record that holds; raises UserError when it does not."""
    if record.problems:
        count = len(record.problems) - 1
        more = f" (and {count} more)" if count else ""
        raise UserError(f"it is not what its folds give: {record.problems[0]}{more}")
    return Row(place, record.task, record.data, record.warnings, record.folder)


# ---- several records of one run -------------------------------------------------------------


def _one_each(
    rows: Iterable[Row],
) -> tuple[list[Row], list[tuple[str, str]], list[str]]:
    """The rows to show, what was left out for which, and warnings.

    Of records with one identity the finished one is shown, of several of these the one that was
    created first: a copy with another date displaces nothing. Where two give different numbers for
    a fold they are not copies, one of them is not what it says, and all of them are shown.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.data["plan"]["hash"], row.data["id"]), []).append(row)
    shown_rows, replaced, warnings = [], [], []
    for group in groups.values():
        group.sort(key=lambda row: (not row.finished, -len(row.folds), _created(row), row.place))
        shown: list[Row] = []
        for row in group:
            like = next((other for other in shown if _agree(row, other)), None)
            if like is None:
                shown.append(row)
            elif like.finished and not row.finished:
                replaced.append((row.place, f"{like.place} is the same run, finished"))
            else:
                replaced.append((row.place, f"{like.place} is the same run, created before"))
        if len(shown) > 1:
            warnings.append(
                f"{', '.join(row.place for row in shown)} have one identity and different numbers: "
                "not the same machine, or not what they say; all are shown"
            )
        shown_rows += shown
    return shown_rows, replaced, warnings


def _created(row: Row) -> Any:
    return parse_moment(row.data["created"])


def _agree(one: Row, other: Row) -> bool:
    """Whether two records of one identity give the same numbers for each fold that both have."""
    numbers = {(fold["fold"], fold["seed"]): fold["metrics"] for fold in one.folds}
    pairs = [
        (numbers[fold["fold"], fold["seed"]], fold["metrics"])
        for fold in other.folds
        if (fold["fold"], fold["seed"]) in numbers
    ]
    return all(same(left, right) for left, right in pairs)


# ---- tables ---------------------------------------------------------------------------------


def _title(row: Row) -> tuple[str, int, str]:
    plan = row.data["plan"]
    return plan["protocol"], plan["version"], plan["hash"]


def _tables(board: Board, rows: Sequence[Row]) -> list[Table]:
    plans: dict[str, list[Row]] = {}
    for row in rows:
        plans.setdefault(row.data["plan"]["hash"], []).append(row)
    tables = []
    for group in sorted(plans.values(), key=lambda group: min(map(_title, group))):
        metric = board.sorted_by(group[0].task)
        for test in group[0].data["plan"]["tests"]:
            ranked = sorted(
                group,
                key=lambda row: (
                    metric.order(row.mean(test, metric.name)),
                    row.names,
                    row.place,
                ),
            )
            tables.append(Table(test, metric, ranked))
    return tables


def _warnings(tables: Sequence[Table]) -> list[str]:
    """Where a reader might take two tables for one, or rows for comparable that are not."""
    hashes: dict[tuple[str, int], set[str]] = {}
    warnings = []
    for table in tables:
        for name, version, content in map(_title, table.rows):
            hashes.setdefault((name, version), set()).add(content)
        if table.test != table.plan["tests"][0]:
            continue
        short = table.plan["hash"][:12]
        names = sorted({row.data["plan"]["protocol"] for row in table.rows})
        if len(names) > 1:
            warnings.append(f"plan {short} goes under several names: {', '.join(names)}")
        if len({row.data["plan"]["audio_hash"] for row in table.rows}) > 1:
            warnings.append(
                f"rows of plan {short} were made on different audio under the same names "
                "(resampled or converted files, for instance)"
            )
    for (name, version), contents in hashes.items():
        if len(contents) > 1:
            warnings.append(
                f"protocol {name} version {version} comes with {len(contents)} hashes "
                f"({', '.join(sorted(c[:12] for c in contents))}): different folds, labels or "
                "utterances under one name; their tables must not be compared"
            )
    return warnings
