"""A fold's folder: written whole, read with suspicion.

::

    RUN/fold1_seed0/examples.csv         the plan's rows of this fold, see data/plan.py
    RUN/fold1_seed0/predictions.csv      all its tests, one row per example, see predictions.py
    RUN/fold1_seed0/dev.csv              the same on dev, at the step that was kept
    RUN/fold1_seed0/unscored.csv         the same of its unscored tests, without truths; where it
                                         has any
    RUN/fold1_seed0/before.csv           the tests of a transfer plan at its start, and
    RUN/fold1_seed0/between.csv          between its stages, where there are two
    RUN/fold1_seed0/fold.json            `FoldFacts`; written last: when it is there, all is there

A failed fold has examples.csv and fold.json with the reason. Imports no torch.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.plan import PlanRow, read_rows, write_rows
from emopeft.downstream.data.transfer import BEFORE, BETWEEN
from emopeft.downstream.records.checks import FoldResult, by_test, fold_problems
from emopeft.downstream.records.predictions import (
    Prediction,
    not_finite,
    predictions_text,
    read_predictions,
)
from emopeft.downstream.records.schema import FoldFacts
from emopeft.downstream.records.values import without_nan
from emopeft.downstream.tasks.base import task_of
from emopeft.errors import UserError
from emopeft.files import digest, read_json, write_text, writing
from emopeft.validation import validated

__all__ = [
    "FoldFacts", "FoldResult", "by_test", "fold_folder", "fold_folders", "read_facts", "read_fold",
    "write_fold",
]  # fmt: skip

FACTS, TESTED, DEVELOPED, EXAMPLES = "fold.json", "predictions.csv", "dev.csv", "examples.csv"
BLIND = "unscored.csv"
MOMENTS = (BEFORE, BETWEEN)


def fold_folder(run: Path, fold: str, seed: int) -> Path:
    """Where a fold of a run lies; a manifest's fold names may hold slashes or be very long."""
    name = urllib.parse.quote(fold, safe=" ")
    if len(name) > 100:
        name = f"{name[:60]}~{digest(fold)[:16]}"
    return run / f"fold{name}_seed{seed}"


def fold_folders(run: Path) -> list[Path]:
    """The folders of all folds of a run that ended, finished or failed, sorted by name."""
    try:
        places = sorted(run.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {run}: {error.strerror or error}") from error
    shape = re.compile(r"fold.*_seed\d+")
    return [p for p in places if shape.fullmatch(p.name) and (p / FACTS).exists()]


def write_fold(
    folder: Path,
    facts: Mapping[str, Any] | FoldFacts,
    examples: Sequence[PlanRow],
    tests: Sequence[Prediction] = (),
    dev: Sequence[Prediction] = (),
    unscored: Sequence[Prediction] = (),
    moments: Mapping[str, Sequence[Prediction]] | None = None,
) -> FoldFacts:
    """Write a fold that ended to ``fold_folder(run, fold, seed)``, fold.json last.

    Args:
        facts: see `FoldFacts`; a number that is NaN or infinite is written as null.
        examples: the plan's rows of the fold.
        tests: the predictions of all its tests, in the plan's order.
        dev: those of the last stage's dev. unscored: of its unscored tests.
        moments: of the tests before a transfer and between its stages.

    Returns:
        what was written. Outputs that are not finite make it a failed fold, with that reason.

    Raises:
        UserError: facts that do not fit the schema or are not those of the predictions.
    """
    path = folder / FACTS
    data = facts.to_json() if isinstance(facts, FoldFacts) else without_nan(dict(facts))
    task = task_of(data.get("task"))
    moments = dict(moments or {})
    if data.get("status") == "finished":
        other = [row for rows in moments.values() for row in rows]
        diverged = not_finite([*tests, *dev, *unscored, *other], task)
        if diverged:
            data = data | {"status": "failed", "reason": diverged, "metrics": {}}
            if data.get("transfer"):
                data["transfer"] = data["transfer"] | {"moments": {}}
    fold = validated(str(path), FoldFacts, data)
    if fold.status == "failed":
        tests, dev, unscored, moments = (), (), (), {}
    lists = {moment: list(rows) for moment, rows in moments.items()}
    problems = fold_problems(
        FoldResult(fold, task, list(tests), list(dev), list(examples), list(unscored), lists)
    )
    if problems:
        raise UserError(f"{path} is not written: {problems[0]}")
    text = json.dumps(fold.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    with writing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
        path.unlink(missing_ok=True)  # no moment shows it beside predictions not its own
        write_rows(folder / EXAMPLES, examples, task.target_names)
        more = [(f"{moment}.csv", moments.get(moment, ())) for moment in MOMENTS]
        for name, rows in ((TESTED, tests), (DEVELOPED, dev), (BLIND, unscored), *more):
            if fold.status == "finished" and (rows or name in (TESTED, DEVELOPED)):
                write_text(folder / name, predictions_text(rows, task, truths=name != BLIND))
            else:
                (folder / name).unlink(missing_ok=True)
    return fold


def read_facts(folder: Path) -> FoldFacts | None:
    """fold.json alone, or None where the fold did not end; raises UserError when damaged."""
    path = folder / FACTS
    if not path.exists():
        return None
    return validated(str(path), FoldFacts, read_json(path))


def read_fold(folder: Path) -> FoldResult | None:
    """A fold that ended, or None where it did not.

    Raises UserError when its files are damaged or disagree with each other.
    """
    facts = read_facts(folder)
    if facts is None:
        return None
    try:
        task = task_of(facts.task)
    except UserError as error:
        raise UserError(f"{folder / FACTS}: {error}") from error
    examples = read_rows(folder / EXAMPLES)
    tests, dev = (
        read_predictions(folder / name, task) if facts.status == "finished" else []
        for name in (TESTED, DEVELOPED)
    )
    unscored = []
    if facts.status == "finished" and facts.unscored:
        unscored = read_predictions(folder / BLIND, task, truths=False)
    moments: dict[str, list[Prediction]] = {
        moment: read_predictions(folder / f"{moment}.csv", task)
        for moment in (facts.transfer.moments if facts.transfer else ())
    }
    result = FoldResult(facts, task, tests, dev, examples, unscored, moments)
    problems = fold_problems(result)
    if problems:
        raise UserError(f"{folder / FACTS}: {problems[0]}; delete {folder} and run the fold again")
    return result
