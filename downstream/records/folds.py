"""A fold's folder: written whole, read with suspicion.

::

    RUN/fold1_seed0/examples.csv         the plan's rows of this fold, see data/plan.py
    RUN/fold1_seed0/predictions.csv      all its tests, one row per example, see predictions.py
    RUN/fold1_seed0/dev.csv              the same on dev, at the step that was kept
    RUN/fold1_seed0/fold.json            `FoldFacts`; written last: when it is there, all is there

A failed fold has examples.csv and fold.json with the reason. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.plan import (
    CLEAN,
    Plan,
    PlanRow,
    fold_audio_hash_of,
    fold_hash_of,
    read_rows,
    write_rows,
)
from emopeft.downstream.records.predictions import (
    DEV,
    Prediction,
    not_finite,
    read_predictions,
    table_of,
    write_predictions,
)
from emopeft.downstream.records.schema import FoldFacts, without_nan
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.files import digest, read_json, writing
from emopeft.validation import validated

FACTS, TESTED, DEVELOPED, EXAMPLES = "fold.json", "predictions.csv", "dev.csv", "examples.csv"
LARGEST = 256 << 20  # bytes of a fold.json


@dataclasses.dataclass(frozen=True)
class FoldResult:
    """A fold as its folder holds it: facts, predictions of its tests and of dev, plan rows."""

    facts: FoldFacts
    task: Task
    tests: list[Prediction]
    dev: list[Prediction]
    examples: list[PlanRow]

    @property
    def finished(self) -> bool:
        """Whether it was trained and tested; else it failed, with a reason."""
        return self.facts.status == "finished"


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
) -> FoldFacts:
    """Write a fold that ended to ``fold_folder(run, fold, seed)``, fold.json last.

    Args:
        facts: see `FoldFacts`; a number that is NaN or infinite is written as null.
        examples: the plan's rows of the fold.
        tests: the predictions of all its tests, in the plan's order.
        dev: those of the last stage's dev.

    Returns:
        what was written. Outputs that are not finite make it a failed fold, with that reason.

    Raises:
        UserError: facts that do not fit the schema or are not those of the predictions.
    """
    path = folder / FACTS
    data = facts.to_json() if isinstance(facts, FoldFacts) else without_nan(dict(facts))
    task = task_of(data.get("task"))
    if data.get("status") == "finished":
        diverged = not_finite(tests, task) or not_finite(dev, task)
        if diverged:
            data = data | {"status": "failed", "reason": diverged, "metrics": {}}
    made = validated(str(path), FoldFacts, data)
    if made.status == "failed":
        tests, dev = (), ()
    problems = fold_problems(FoldResult(made, task, list(tests), list(dev), list(examples)))
    if problems:
        raise UserError(f"{path} is not written: {problems[0]}")
    text = json.dumps(made.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    with writing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
        path.unlink(missing_ok=True)  # no moment shows it beside predictions not its own
        write_rows(folder / EXAMPLES, examples, task.target_names)
        for name, rows in ((TESTED, tests), (DEVELOPED, dev)):
            if made.status == "finished":
                with writing(folder / name) as table:
                    write_predictions(table, rows, task)
            else:
                (folder / name).unlink(missing_ok=True)
    return made


def read_facts(folder: Path) -> FoldFacts | None:
    """fold.json alone, or None where the fold did not end; raises UserError when damaged."""
    path = folder / FACTS
    if not path.exists():
        return None
    return validated(str(path), FoldFacts, read_json(path, LARGEST))


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
    result = FoldResult(facts, task, tests, dev, examples)
    problems = fold_problems(result)
    if problems:
        raise UserError(
            f"{folder / FACTS}: {problems[0]}; delete {folder} and run the fold again"
        )
    return result


def fold_problems(result: FoldResult) -> list[str]:
    """Where the parts of a fold disagree, one sentence each."""
    facts, task = result.facts, result.task
    where = f"fold {facts.fold}, seed {facts.seed}"
    problems = _plan_problems(result)
    if not result.finished:
        return [f"{where}: {problem}" for problem in problems]
    for name, rows in ((TESTED, result.tests), (DEVELOPED, result.dev)):
        if any((row.fold, row.seed) != (facts.fold, facts.seed) for row in rows):
            problems.append(f"its {name} holds rows of another fold or seed")
    tests = by_test(result.tests)
    for unknown_test in sorted(set(tests) - set(facts.plan.tests)):
        problems.append(f"its {TESTED} holds the test {unknown_test[:60]!r}, which is not planned")
    last = facts.stages[-1]
    sides = [(name, tests.get(name, []), ("test", name)) for name in facts.plan.tests]
    sides.append((DEV, result.dev, ("dev", last.name)))
    for name, rows, side in sides:
        planned = [row for row in result.examples if (row.part, row.set) == side]
        problems += _rows_problems(task, name, rows, planned)
    if not problems:
        for name, rows in tests.items():
            problems += measure_problems(task, name, facts.metrics[name], rows)
        assert last.result is not None
        problems += measure_problems(task, DEV, last.result.dev, result.dev)
    return [f"{where}: {problem}" for problem in problems]


def by_test(rows: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """The rows of each test, in the order of the first ones."""
    tests: dict[str, list[Prediction]] = {}
    for row in rows:
        tests.setdefault(row.test, []).append(row)
    return tests


def _plan_problems(result: FoldResult) -> list[str]:
    """Where the fold's rows are not those of its plan."""
    facts, problems = result.facts, []
    recorded = facts.plan.folds[facts.fold]
    heads = [stage.model_dump(exclude={"result"}) for stage in facts.stages]
    if fold_hash_of(heads, result.examples) != recorded.hash:
        problems.append(f"its {EXAMPLES} is not what the plan's hash says")
    if fold_audio_hash_of(result.examples) != recorded.audio:
        problems.append(f"its {EXAMPLES} does not name the audio that the plan's audio hash says")
    hashes = {name: fold.hash for name, fold in facts.plan.folds.items()}
    if Plan.hash_of(result.task, hashes) != facts.plan.hash:
        problems.append("plan.hash is not that of its folds")
    audio = {name: fold.audio for name, fold in facts.plan.folds.items()}
    if Plan.audio_hash_of(audio) != facts.plan.audio_hash:
        problems.append("plan.audio_hash is not that of its folds")
    counts = facts.utterances
    for part, recorded_count in (("train", counts.train), ("dev", counts.dev)):
        found = sum(row.part == part for row in result.examples)
        if found != recorded_count:
            problems.append(f"utterances.{part} is {recorded_count}, but {EXAMPLES} holds {found}")
    tests = {name: 0 for name in facts.plan.tests}
    for row in result.examples:
        if row.part == "test":
            tests[row.set] = tests.get(row.set, 0) + 1
    if tests != counts.tests:
        problems.append(f"utterances.tests is {counts.tests}, but {EXAMPLES} holds {tests}")
    return problems


def _rows_problems(
    task: Task, name: str, rows: Sequence[Prediction], planned: Sequence[PlanRow]
) -> list[str]:
    """Where predictions are not of the planned examples, in their order, with their truths."""
    if not rows:
        return [f"there are no predictions of {name}"]
    for row, plan in zip(rows, planned, strict=False):
        if row.id != key_of(plan):
            return [f"{name} predicts '{row.id}' where the plan has '{key_of(plan)}'"]
        if not truth_fits(task, plan.target, row.values):
            return [f"the truth of '{row.id}' is not the plan's"]
        if row.speaker != plan.speaker:
            return [f"the speaker of '{row.id}' is not the plan's"]
    if len(rows) != len(planned):
        return [f"{name} predicts {len(rows)} examples where the plan has {len(planned)}"]
    return []


def key_of(row: PlanRow) -> str:
    """The key of the example, as `Example.key`."""
    return row.id if row.view == CLEAN else f"{row.id}@{row.view}"


def truth_fits(task: Task, target: Sequence[float], values: Mapping[str, Any]) -> bool:
    """Whether the truth columns of a row are what the plan's target says.

    One column of classes: the class with the most weight. Numbers, as many as the target has: these
    within the rounding of single precision. Of anything else nothing can be said without the task.
    """
    truths = [column for column in task.columns if column.role == "truth"]
    if len(truths) == 1 and truths[0].classes is not None:
        classes = truths[0].classes
        if len(classes) != len(target):
            return True
        return target[classes.index(values[truths[0].name])] >= max(target)
    if len(truths) != len(target) or any(column.classes is not None for column in truths):
        return True
    return all(
        (math.isnan(wanted) and math.isnan(values[column.name]))
        or math.isclose(wanted, values[column.name], rel_tol=1e-6, abs_tol=1e-6)
        for column, wanted in zip(truths, target, strict=True)
    )


def measure_problems(
    task: Task, test: str, recorded: Mapping[str, Any], rows: Sequence[Prediction]
) -> list[str]:
    """Where the measures of a test are not those of its predictions."""
    counted = without_nan(task.measure(table_of(rows, task)))
    problems = []
    for name in sorted({*recorded, *counted}):
        if name not in recorded or name not in counted:
            problems.append(f"{test}: '{name}' is recorded or counted, but not both")
        elif not same(recorded[name], counted[name]):
            told, made = short(recorded[name]), short(counted[name])
            problems.append(
                f"{test}: {name} is recorded as {told}, but the predictions give {made}"
            )
    return problems


def same(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal JSON values, numbers within the tolerance (absolute)."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= tolerance
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def short(value: Any) -> str:
    """A value for a message."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
