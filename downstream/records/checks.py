"""Where the parts of a fold disagree: facts, plan rows, predictions, identity.

Everything here computes again what can be computed from the fold's files alone, and says in a
sentence what does not come out. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from emopeft.downstream.data.fold import CLEAN
from emopeft.downstream.data.plan import UNSCORED, Plan, PlanRow, fold_audio_hash_of, fold_hash_of
from emopeft.downstream.records.identity_checks import identity_problems
from emopeft.downstream.records.predictions import DEV, Prediction, table_of
from emopeft.downstream.records.schema import FoldFacts, Utterances
from emopeft.downstream.records.values import without_nan
from emopeft.downstream.tasks.base import Task

TOLERANCE = 1e-9  # how far a recorded number may lie from the one counted again, absolute


@dataclasses.dataclass(frozen=True)
class FoldResult:
    """A fold as its folder holds it: facts, predictions of its tests and of dev, plan rows,
    predictions of its unscored tests, and those of its tests at other moments of a transfer."""

    facts: FoldFacts
    task: Task
    tests: list[Prediction]
    dev: list[Prediction]
    examples: list[PlanRow]
    unscored: list[Prediction] = dataclasses.field(default_factory=list)
    moments: dict[str, list[Prediction]] = dataclasses.field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it was trained and tested; else it failed, with a reason."""
        return self.facts.status == "finished"


def fold_problems(result: FoldResult) -> list[str]:
    """Where the parts of a fold disagree, one sentence each."""
    facts, task = result.facts, result.task
    where = f"fold {facts.fold}, seed {facts.seed}"
    problems = _plan_problems(result) + identity_problems(facts)
    if not result.finished:
        return [f"{where}: {problem}" for problem in problems]
    files = {
        "predictions.csv": result.tests, "dev.csv": result.dev, "unscored.csv": result.unscored,
        **{f"{moment}.csv": rows for moment, rows in result.moments.items()},
    }  # fmt: skip
    for name, rows in files.items():
        if any((row.fold, row.seed) != (facts.fold, facts.seed) for row in rows):
            problems.append(f"its {name} holds rows of another fold or seed")
    tests, unscored = by_test(result.tests), by_test(result.unscored)
    moments = {moment: by_test(rows) for moment, rows in result.moments.items()}
    planned_tests = [(of, facts.plan.tests) for of in (tests, *moments.values())]
    for found, known in (*planned_tests, (unscored, facts.unscored or ())):
        problems += [
            f"its predictions hold the test {name[:60]!r}, which is not planned"
            for name in sorted(set(found) - set(known))
        ]
    last = facts.trained[-1]
    sides = [(name, tests.get(name, []), ("test", name)) for name in facts.plan.tests]
    sides += [(name, unscored.get(name, []), (UNSCORED, name)) for name in facts.unscored or ()]
    sides.append((DEV, result.dev, ("dev", last.name)))
    for of in moments.values():
        sides += [(name, of.get(name, []), ("test", name)) for name in facts.plan.tests]
    for name, rows, side in sides:
        planned = [row for row in result.examples if (row.part, row.set) == side]
        problems += rows_problems(task, name, rows, planned)
    if not problems:
        for name, rows in tests.items():
            problems += measure_problems(task, name, facts.metrics[name], rows)
        for moment, of in moments.items():
            assert facts.transfer is not None
            for name, rows in of.items():
                recorded = facts.transfer.moments[moment][name]  # type: ignore[index]
                problems += measure_problems(task, f"{moment}, {name}", recorded, rows)
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
        problems.append("its examples.csv is not what the plan's hash says")
    if fold_audio_hash_of(result.examples) != recorded.audio:
        problems.append("its examples.csv does not name the audio of the plan's audio hash")
    hashes = {name: fold.hash for name, fold in facts.plan.folds.items()}
    if Plan.hash_of(result.task, hashes) != facts.plan.hash:
        problems.append("plan.hash is not that of its folds")
    audio = {name: fold.audio for name, fold in facts.plan.folds.items()}
    if Plan.audio_hash_of(audio) != facts.plan.audio_hash:
        problems.append("plan.audio_hash is not that of its folds")
    for corpus in facts.corpora:
        ids = {r.id for r in result.examples if r.id.startswith(f"{corpus.name}/")}
        if len(ids) > corpus.utterances:
            problems.append(
                f"corpus {corpus.name} is said to have {corpus.utterances} utterances, but "
                f"examples.csv holds {len(ids)}"
            )
    counts = facts.utterances
    for part, recorded_count in (("train", counts.train), ("dev", counts.dev)):
        count = sum(row.part == part for row in result.examples)
        if count != recorded_count:
            problems.append(
                f"utterances.{part} is {recorded_count}, but examples.csv holds {count}"
            )
    tests = dict.fromkeys(facts.plan.tests, 0) | _sizes(result.examples, "test")
    if tests != counts.tests:
        problems.append(f"utterances.tests is {counts.tests}, examples.csv holds {tests}")
    unscored = _sizes(result.examples, UNSCORED)
    if unscored != (facts.unscored or {}):
        problems.append(f"unscored is {facts.unscored or {}}, examples.csv holds {unscored}")
    blind = (row for row in result.examples if row.part == UNSCORED)
    if known := next((row for row in blind if not all(map(math.isnan, row.target))), None):
        problems.append(f"the unscored test {known.set[:60]!r} has a target ('{known.id[:60]}')")
    if facts.clips is not None and not _fewer(facts.clips.cut, counts):
        problems.append("clips.cut counts other examples than 'utterances' does, or more")
    return problems


def _sizes(rows: Sequence[PlanRow], part: str) -> dict[str, int]:
    """How many rows each set of a part has."""
    return dict(Counter(row.set for row in rows if row.part == part))


def _fewer(some: Utterances, whole: Utterances) -> bool:
    """Whether no side of a fold has more in the first count than in the second."""
    tests = some.tests.keys() == whole.tests.keys() and all(
        number <= whole.tests[name] for name, number in some.tests.items()
    )
    return tests and some.train <= whole.train and some.dev <= whole.dev


def rows_problems(
    task: Task, name: str, rows: Sequence[Prediction], planned: Sequence[PlanRow]
) -> list[str]:
    """Where predictions are not of the planned examples, in their order, with their truths."""
    if not rows:
        return [f"there are no predictions of {name}"]
    for row, plan in zip(rows, planned, strict=False):
        if row.id != key_of(plan):
            return [f"{name} predicts '{row.id}' where the plan has '{key_of(plan)}'"]
        if plan.part != UNSCORED and not truth_fits(task, plan.target, row.values):
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

    Numbers within the rounding of single precision.
    """
    if len(target) != len(task.target_names):
        return False
    return all(_alike(truth, values[name]) for name, truth in task.truths(target).items())


def _alike(truth: Any, written: Any) -> bool:
    if isinstance(truth, str):
        return truth == written
    both = math.isnan(truth) and math.isnan(written)
    return both or math.isclose(truth, written, rel_tol=1e-6, abs_tol=1e-6)


def measure_problems(
    task: Task, test: str, recorded: Mapping[str, Any], rows: Sequence[Prediction]
) -> list[str]:
    """Where the measures of a test are not those of its predictions."""
    try:
        counted = without_nan(task.measure(table_of(rows, task)))
    except (ArithmeticError, ValueError) as error:  # sums that overflow, for instance
        return [f"{test}: its predictions cannot be measured ({error})"]
    problems = []
    for metric in task.metrics:
        value = counted.get(metric.name)
        if value is not None and not metric.low - TOLERANCE <= value <= metric.high + TOLERANCE:
            problems.append(f"{test}: {metric.name} is {value}, outside what it can be")
    for name in sorted({*recorded, *counted}):
        if name not in recorded or name not in counted:
            problems.append(f"{test}: '{name}' is recorded or counted, but not both")
        elif not same(recorded[name], counted[name]):
            recorded_value, counted_value = short(recorded[name]), short(counted[name])
            problems.append(
                f"{test}: {name} is recorded as {recorded_value}, but the predictions give "
                f"{counted_value}"
            )
    return problems


def same(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """Equal JSON values, numbers within the tolerance (absolute)."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= tolerance
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def short(value: Any) -> str:
    """A value for a message."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
