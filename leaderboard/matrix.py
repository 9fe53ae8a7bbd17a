"""Cross-corpus: runs that were trained on one corpus each and tested on all, as one matrix.

Who was trained on, and what a test holds, is read from the folds' own rows, not from names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.making import RESULT, read_run
from emopeft.downstream.records.record import examine
from emopeft.downstream.reports.frozen_base import ENCODER
from emopeft.downstream.reports.results import method_name, upstream_name
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from emopeft.leaderboard.paired import uar_interval

BASE = "none"  # the frozen probe, which all other methods are compared with
Key = tuple[str, str, str]  # trained on, tested on, method


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run on one corpus. ``tests``: corpus -> the test that holds it."""

    place: Path
    home: str
    method: str
    record: dict[str, Any]
    folds: list[FoldResult]
    tests: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Gain:
    """A method's mean minus the frozen probe's, and its 95 % interval, where there is one."""

    value: float
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Matrix:
    """What a cell is, and the cells; ``left_out``: (run, why it has no part in it).

    ``cells`` are the record's ``{"mean", "std", "n", "seed_std"}`` of the metric.
    """

    task: Task
    upstream: str
    homes: list[str]
    tested: list[str]
    methods: list[str]
    cells: dict[Key, dict[str, Any]]
    gains: dict[Key, Gain]
    runs: list[Trained]
    left_out: list[tuple[str, str]]

    @property
    def metric(self) -> Metric:
        """The metric of all cells."""
        return self.task.metric(self.task.main)


def gather_matrix(places: Iterable[Path]) -> Matrix:
    """The matrix of finished runs.

    Args:
        places: runs' folders, or folders that hold some at any depth.

    Raises:
        UserError: no run of this kind, or runs that cannot stand in one matrix: of several
            encoders, class sets, plans of one home, or trainings under one name.
    """
    runs: list[Trained] = []
    left_out: list[tuple[str, str]] = []
    for place in _folders(places):
        try:
            runs.append(_trained(place))
        except UserError as error:
            left_out.append((place.name, str(error)))
    if not runs:
        why = f"; {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"no finished run that was tested on corpora other than its own{why}")
    _check_alike(runs)
    by_key = {(run.home, run.method): run for run in runs}
    homes = sorted({run.home for run in runs})
    tested = sorted({corpus for run in runs for corpus in run.tests})
    sizes = {run.method: run.record["parameters"]["trainable"] for run in runs}
    methods = sorted(sizes, key=lambda name: (name != BASE, sizes[name], name))
    task = runs[0].folds[0].task
    cells = {
        (run.home, corpus, run.method): run.record["summary"][test][task.main]
        for run in runs
        for corpus, test in run.tests.items()
    }
    gains = {
        (run.home, corpus, run.method): _gain(run, by_key[run.home, BASE], test, task)
        for run in runs
        if run.method != BASE and (run.home, BASE) in by_key
        for corpus, test in run.tests.items()
    }
    runs.sort(key=lambda run: (run.home, methods.index(run.method)))
    upstream = upstream_name(runs[0].record["upstream"])
    return Matrix(task, upstream, homes, tested, methods, cells, gains, runs, left_out)


def _folders(places: Iterable[Path]) -> list[Path]:
    """Every run's folder, in a stable order."""
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place} is not a folder; name runs, or a folder that holds them")
        found |= dict.fromkeys(sorted(path.parent for path in place.rglob(RESULT)))
    return list(found)


def _trained(place: Path) -> Trained:
    """A run that fits; raises UserError saying why it does not."""
    checked = examine(place)
    if checked.problems:
        raise UserError(f"it is not what its folds give: {checked.problems[0]}")
    record = checked.data
    if record["status"] != "finished":
        raise UserError(f"it lacks {len(record['missing'])} folds; run it again to finish it")
    if not isinstance(checked.task, EmotionTask):
        raise UserError(f"its task is {checked.task.name}, and a matrix is of emotion")
    folds, names = read_run(place).folds, [corpus["name"] for corpus in record["corpora"]]
    trained = {_corpus(r.id, names) for f in folds for r in f.examples if r.part == "train"}
    if len(trained) > 1:
        raise UserError(f"it was trained on {' and '.join(sorted(trained))}, and not on one corpus")
    tests: dict[str, str] = {}
    for test in record["plan"]["tests"]:
        held = {_corpus(r.id, names) for f in folds for r in f.tests if r.test == test}
        if len(held) == 1:
            tests.setdefault(held.pop(), test)  # of several tests of one corpus the first
    (home,) = trained
    if not tests.keys() - {home}:
        raise UserError(f"it was tested on no corpus but {home}; take the protocol away")
    return Trained(place, home, method_name(record), record, folds, tests)


def _corpus(uid: str, names: Sequence[str]) -> str:
    """The corpus of corpus/id."""
    fits = [name for name in names if uid.startswith(f"{name}/")]
    return max(fits, key=len, default=uid.partition("/")[0])


def _check_alike(runs: Sequence[Trained]) -> None:
    """That the runs differ in home and method alone; raises UserError naming two that do not."""
    first: dict[Any, tuple[Any, Trained]] = {}
    for run in runs:
        home, record = run.home, run.record
        encoder = [record["identity"]["upstream"][name] for name in ENCODER]
        for what, value, words in (
            ("encoder", encoder, "are of two encoders"),
            ("task", record["task"], "have other classes each"),
            (("plan", home), record["plan"]["hash"],
             f"were both trained on {home}, but on other folds or tests (their plans differ)"),
            ((home, run.method), run.place, f"are both {run.method} on {home}"),
        ):  # fmt: skip
            known, other = first.setdefault(what, (value, run))
            if known != value:
                raise UserError(
                    f"{other.place} and {run.place} {words}; name the runs that belong together"
                )


def _gain(run: Trained, base: Trained, test: str, task: Task) -> Gain:
    means = [r.record["summary"][test][task.main]["mean"] for r in (run, base)]
    return Gain(means[0] - means[1], uar_interval(run.folds, base.folds, test, task.classes))
