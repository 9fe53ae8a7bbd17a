"""A paper beside the runs at hand: of each experiment what the paper reports, what was measured
here, how far apart they are and how sure that is, and what has not been run.

Numbers of ours are those that `gather` counts again from predictions; a record that does not hold
gives none. What records do not have (`DETAILS`, such as EER) is counted from the same predictions.
A metric is compared with the same metric and with no other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.papers import Experiment, Paper, experiments
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.measures.detection import DETAILS
from emopeft.downstream.records.details import details_over_folds
from emopeft.downstream.records.making import read_run
from emopeft.downstream.records.predictions import DEV
from emopeft.downstream.records.together import summarise
from emopeft.errors import UserError
from emopeft.leaderboard.gather import Board, Row
from emopeft.leaderboard.matching import Difference, alike, differences

SURE = 0.95
Expected = Callable[[Recipe], "str | float"]  # what is lacking, or seconds on this machine


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A number of the paper beside ours, or either alone.

    Attributes:
        test: its name, or "dev". metric: by its name in records.
        known: the metric, where a run has it. paper, ours: as result.json has them.
        half: half the width of the interval of ours, None: of fewer than two folds.
        reason: why there is no number of ours although there is a run.
    """

    test: str
    metric: str
    known: Metric | None
    paper: float | None
    ours: float | None
    half: float | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is known of an experiment.

    Attributes:
        waits: why it cannot be run at all, "" where it can.
        runs: finished ones that are the experiment. unfinished: those that will be.
        near: of those that are none, the one that differs least, and in what.
        expected: where nothing was run: what is lacking, or the seconds that it would take here;
            None: nobody asked.
    """

    experiment: Experiment
    waits: str = ""
    runs: Sequence[Row] = ()
    unfinished: Sequence[Row] = ()
    near: tuple[Row, list[Difference]] | None = None
    expected: str | float | None = None


def outcomes(
    folder: Path, paper: Paper, board: Board, expected: Expected | None = None
) -> list[Outcome]:
    """Of all experiments of a paper, in their order.

    Args:
        expected: asked of each that has not been run; None: nobody is asked.
    """
    rows = [row for table in board.tables for row in table.rows]
    rows = list({id(row): row for row in rows}.values()) + board.incomplete
    return [_outcome(e, rows, expected) for e in experiments(folder, paper)]


def _outcome(experiment: Experiment, rows: Sequence[Row], expected: Expected | None) -> Outcome:
    try:
        recipe = experiment.recipe()
    except UserError as error:
        return Outcome(experiment, waits=experiment.table.waits or str(error))
    found = [(row, differences(experiment, recipe, row)) for row in rows if alike(recipe, row)]
    same = [row for row, differing in found if not differing]
    finished = [row for row in same if row.finished]
    near = min(
        ((row, differing) for row, differing in found if differing),
        key=lambda pair: (len(pair[1]), not pair[0].finished, pair[0].place),
        default=None,
    )
    return Outcome(
        experiment,
        runs=finished,
        unfinished=[row for row in same if not row.finished],
        near=None if same else near,
        expected=expected(recipe) if expected is not None and not finished else None,
    )


def matched(found: Sequence[Outcome]) -> set[str]:
    """The places of all runs that are an experiment of the paper."""
    return {row.place for one in found for row in (*one.runs, *one.unfinished)}


def comparisons(experiment: Experiment, row: Row | None) -> Iterator[Comparison]:
    """The paper's numbers of an experiment, each beside that of a run; where the paper has none,
    the run's main metric on its tests."""
    numbers = experiment.row.paper
    for test, metrics in numbers.items():
        for name, number in metrics.items():
            yield _compared(test, name, number, row)
    if not numbers and row is not None:
        for test in row.data["plan"]["tests"]:
            yield _compared(test, row.task.main, None, row)


def _compared(test: str, name: str, paper: float | None, row: Row | None) -> Comparison:
    if row is None:
        return Comparison(test, name, None, paper, None)
    metric = next((m for m in (*row.task.metrics, *DETAILS) if m.name == name), None)
    if metric is None:
        return Comparison(test, name, None, paper, None, reason="no such metric here")
    try:
        known = row.task.metrics
        found = _summary(row) if metric in known else {test: _details(row, test)}
    except UserError as error:
        return Comparison(test, name, metric, paper, None, reason=str(error))
    statistic = found.get(test, {}).get(name)
    if statistic is None:
        unscored = any(test in (fold.get("unscored") or {}) for fold in row.folds)
        reason = "predicted, its labels are hidden" if unscored else "no such test here"
        return Comparison(test, name, metric, paper, None, reason=reason)
    if statistic["mean"] is None:
        return Comparison(test, name, metric, paper, None, reason="it is none in some fold")
    return Comparison(test, name, metric, paper, statistic["mean"], half_width(statistic))


def _summary(row: Row) -> dict[str, dict[str, Any]]:
    """The summary of a run's tests, and that of dev, in the same way."""
    dev = [
        {"fold": f["fold"], "seed": f["seed"], "metrics": {DEV: f["stages"][-1]["result"]["dev"]}}
        for f in row.folds
    ]
    return row.data["summary"] | summarise(dev, row.task, [DEV])


def _details(row: Row, test: str) -> dict[str, dict[str, Any]]:
    """What no record has, of a run that was found to hold, from its folds' predictions; raises
    UserError where they do not have it."""
    if row.folder is None or row.data.get("schema") == 1:
        raise UserError("a record of schema 1 does not tell")
    return details_over_folds(read_run(row.folder).folds, row.task, test)


def half_width(statistic: Mapping[str, Any]) -> float | None:
    """Half the 95 % interval of a mean over folds (Student's t, n - 1 degrees of freedom).

    Folds share training clips, so that it is somewhat too narrow (Bengio & Grandvalet 2004).
    """
    n, std = statistic["n"], statistic["std"]
    if std is None or n < 2:
        return None
    from scipy.stats import t

    return float(t.ppf((1 + SURE) / 2, n - 1)) * float(std) / math.sqrt(n)


def parameters(experiment: Experiment, row: Row | None) -> dict[str, tuple[int, int | None]]:
    """Of each count that the paper's definitions give: that, and the run's."""
    ours = row.data["parameters"] if row else {}
    return {name: (count, ours.get(name)) for name, count in experiment.row.parameters.items()}


def relative(one: Outcome, others: Sequence[Outcome]) -> dict[str, tuple[float, float | None, str]]:
    """Of ``speed`` and ``trainable``: the paper's ratio to another experiment, ours (None: not
    both were run, or not alike), and why there is none."""
    against = one.experiment.row.relative
    if against is None:
        return {}
    table = one.experiment.table
    of_table = (o for o in others if o.experiment.table is table)
    other = next(o for o in of_table if o.experiment.row.name == against.to)
    wanted = {"speed": against.speed, "trainable": against.trainable}
    found: dict[str, tuple[float, float | None, str]] = {}
    for name, number in wanted.items():
        if number is None:
            continue
        if not one.runs or not other.runs:
            found[name] = number, None, "" if not one.runs else f"{against.to} was not run"
            continue
        mine, theirs = one.runs[0].data, other.runs[0].data
        if name == "trainable":
            ratio = mine["parameters"]["trainable"] / theirs["parameters"]["trainable"]
            found[name] = number, ratio, ""
        elif (mine["devices"], len(mine["folds"])) != (theirs["devices"], len(theirs["folds"])):
            found[name] = number, None, f"{against.to} ran elsewhere, or with other seeds"
        else:
            times = [data["cost"]["seconds"]["train"] for data in (theirs, mine)]
            found[name] = number, times[0] / times[1] if times[1] else None, ""
    return found
