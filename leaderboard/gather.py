"""Find the records under a folder, count them again, and sort them into tables.

A table holds rows that can be compared: one protocol hash, and, whatever a record claims beside
its hash, the same classes, the same folds and the same test utterances with the same truths.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emopeft.downstream.records.record import (
    Record,
    read_record,
    recount,
    recounted_folds,
    summarise,
)
from emopeft.downstream.records.schema import parse_moment
from emopeft.downstream.tasks.metrics import NAMES
from emopeft.errors import UserError
from emopeft.files import digest


@dataclasses.dataclass(frozen=True)
class Row:
    """One run: ``data`` is its checked result.json, ``folds`` and ``summary`` are recounted.

    ``summary`` averages whatever folds there are: it means something for finished runs only.
    ``place`` is its folder relative to the one searched.
    """

    place: str
    data: dict[str, Any]
    folds: list[dict[str, Any]]
    summary: dict[str, Any]
    tested: str  # digest of (fold, id, truth) of everything tested

    @property
    def seeds(self) -> list[int]:
        """The seeds it was run with, in order."""
        return sorted({fold["seed"] for fold in self.folds})

    @property
    def seconds(self) -> float:
        """Wall time of all its phases."""
        return sum(self.data["cost"]["seconds"].values())

    @property
    def share(self) -> float:
        """Trainable / total parameters, 0 ... 1."""
        return self.data["parameters"]["trainable"] / self.data["parameters"]["total"]

    @property
    def names(self) -> tuple[str, str, str]:
        """Upstream, method and name: what orders rows of equal metric."""
        return self.data["upstream"]["name"], self.data["method"]["spec"], self.data["name"]


@dataclasses.dataclass(frozen=True)
class Table:
    """Comparable rows, best first."""

    rows: list[Row]

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol that all rows share, as the first of them describes it."""
        return self.rows[0].data["protocol"]

    @property
    def corpus(self) -> dict[str, Any]:
        """The corpus that all rows share, as the first of them describes it."""
        return self.rows[0].data["corpus"]

    def ranks(self, metric: str) -> list[int]:
        """1 for the best; equal metrics share a rank."""
        means = [row.summary[metric]["mean"] for row in self.rows]
        return [1 + sum(other > mean for other in means) for mean in means]


@dataclasses.dataclass(frozen=True)
class Board:
    """What is published. ``refused`` and ``replaced``: (place, reason)."""

    metric: str
    tables: list[Table]
    incomplete: list[Row]
    refused: list[tuple[str, str]]
    replaced: list[tuple[str, str]]
    warnings: list[str]


def gather(root: Path, metric: str = "uar") -> Board:
    """All records at any depth under ``root``, ranked by the mean of ``metric``.

    A record that cannot be read, or says what its predictions do not, is refused with the reason.
    Of several records of one run (equal identity under one protocol) a finished one goes before
    an incomplete one, then the newest counts.

    Raises:
        UserError: ``root`` is not a folder or holds no record at all, or an unknown metric.
    """
    if metric not in NAMES:
        raise UserError(f"no metric '{metric}' to sort by: known: {', '.join(NAMES)}")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; name the one that holds the runs")
    rows, refused = [], []
    for folder in _folders(root):
        place = folder.relative_to(root).as_posix()
        try:
            rows.append(_row(read_record(folder), place))
        except UserError as error:
            refused.append((place, str(error).replace(f"{folder}{os.sep}", "")))
    if not rows and not refused:
        raise UserError(f"no result.json under {root}; run_downstream.py writes one per run")
    rows, replaced = _newest(rows)
    finished = [row for row in rows if row.data["status"] == "finished"]
    incomplete = [row for row in rows if row.data["status"] != "finished"]
    tables = _tables(finished, metric)
    incomplete.sort(key=lambda row: (_title(row), row.names, row.place))
    return Board(metric, tables, incomplete, refused, replaced, _warnings(tables))


def _folders(root: Path) -> list[Path]:
    """Every folder with a result.json, in a stable order; links are not followed."""
    found = [Path(place) for place, _, files in os.walk(root) if "result.json" in files]
    return sorted(found, key=lambda path: path.parts)


def _row(record: Record, place: str) -> Row:
    """Check a record against its predictions; raises UserError when they disagree."""
    problems = recount(record)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"its numbers are not those of its predictions: {problems[0]}{more}")
    folds = recounted_folds(record)
    tested = sorted({(row.fold, row.id, row.truth) for row in record.rows})
    return Row(place, record.data, folds, summarise(folds), digest(tested))


def _newest(rows: Iterable[Row]) -> tuple[list[Row], list[tuple[str, str]]]:
    """One row per identity, and what was left out for which."""
    kept: dict[tuple[str, str], Row] = {}
    replaced = []
    for row in rows:
        key = row.data["protocol"]["hash"], row.data["identity"]
        other = kept.setdefault(key, row)
        if other is row:
            continue
        old, new = sorted((other, row), key=_age)
        kept[key] = new
        why = "the same run, newer" if _age(old)[0] == _age(new)[0] else "the same run, finished"
        replaced.append((old.place, f"{new.place} is {why}"))
    return list(kept.values()), replaced


def _age(row: Row) -> tuple[Any, ...]:
    return row.data["status"] == "finished", parse_moment(row.data["created"])


def _title(row: Row) -> tuple[str, int, str]:
    protocol = row.data["protocol"]
    return protocol["name"], protocol["version"], protocol["hash"]


def _tables(rows: Iterable[Row], metric: str) -> list[Table]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        protocol = row.data["protocol"]
        named = tuple(protocol["classes"]), tuple(protocol["folds"])
        claims = row.data["corpus"]["name"], *named, row.tested
        groups.setdefault((_title(row), claims), []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: (-row.summary[metric]["mean"], row.names, row.place))
    return [Table(groups[key]) for key in sorted(groups)]


def _warnings(tables: list[Table]) -> list[str]:
    """Where a reader might take two tables for one."""
    hashes: dict[tuple[str, int], list[str]] = {}
    for table in tables:
        name, version, content = _title(table.rows[0])
        hashes.setdefault((name, version), []).append(content)
    found = []
    for (name, version), contents in hashes.items():
        if len(set(contents)) > 1:
            found.append(
                f"protocol {name} version {version} comes with {len(set(contents))} hashes "
                f"({', '.join(sorted({c[:12] for c in contents}))}): different folds or labels "
                "under one name; their tables must not be compared"
            )
        for content in sorted(set(contents)):
            if contents.count(content) > 1:
                found.append(
                    f"protocol {name} version {version} (hash {content[:12]}) was run on "
                    f"{contents.count(content)} different test sets: an incomplete or altered "
                    "corpus, or an altered record; their tables must not be compared"
                )
    return found
