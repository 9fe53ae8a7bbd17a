"""conditions.csv and conditions.json: a fold's tests again, in noise, over a telephone, cut, ...

::

    RUN/fold1_seed0/conditions.csv       its tests in each condition, rows as in predictions.csv,
                                         ``id`` corpus/id@view
    RUN/fold1_seed0/conditions.json      `ConditionsFacts`; only what it holds is there

They are no part of the record: a run is the same with them and without. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field, model_validator

from emopeft.downstream.data.plan import PlanRow
from emopeft.downstream.records.checks import FoldResult, rows_problems
from emopeft.downstream.records.predictions import Prediction, predictions_text, read_predictions
from emopeft.downstream.records.schema import CodeFacts, DeviceFacts, NumericsFacts, TransformFacts
from emopeft.downstream.records.values import (
    Count,
    Hash,
    Moment,
    Name,
    Object,
    Seconds,
    Seed,
    Text,
    no_truth_value,
)
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.views.base import View, parse_view
from emopeft.errors import UserError
from emopeft.files import digest, file_digest, read_json, write_json, write_text
from emopeft.validation import Strict, validated

FACTS, ROWS = "conditions.json", "conditions.csv"
CHECKPOINT = ("adapter.json", "adapter.safetensors")


class AppliedFacts(TransformFacts):
    """A transformation, and the version of each library that computed it."""

    library: Annotated[dict[Name, Text], Field(max_length=20)]


class ConditionSeconds(Strict):
    """Wall time: ``features`` the frozen part, as far as it was not found, ``test`` the rest."""

    features: Seconds
    test: Seconds


class ConditionFacts(Strict):
    """A fold's tests in one condition.

    Attributes:
        view: as it is written. transforms: what it is, in order.
        crowd: digest of the voices that babble; null where nobody does.
        checkpoint: digest of what was tested, see `checkpoint_digest`.
        predictions: SHA-256 of its rows, written by themselves. clips: how many of each test.
        cache: how the frozen part was kept.
    """

    view: Name
    transforms: Annotated[list[AppliedFacts], Field(min_length=1, max_length=100)]
    crowd: Hash | None
    checkpoint: Hash
    predictions: Hash
    clips: Annotated[dict[Name, Count], Field(min_length=1, max_length=100)]
    created: Moment
    emopeft: Name
    code: CodeFacts
    numerics: NumericsFacts
    device: DeviceFacts
    packages: Annotated[dict[Name, Name], Field(max_length=1000)]
    cache: Object
    seconds: ConditionSeconds

    def said(self) -> dict[str, Any]:
        """What decides its rows beside clips and model."""
        return {"transforms": [t.model_dump() for t in self.transforms], "crowd": self.crowd}


class ConditionsFacts(Strict):
    """conditions.json: what each condition of a fold's conditions.csv is, and how it was made."""

    model_config = pydantic.ConfigDict(title="EmoPEFT tests under conditions (conditions.json)")

    schema_version: Annotated[Literal[1], BeforeValidator(no_truth_value)] = Field(alias="schema")
    fold: Name
    seed: Seed
    conditions: Annotated[list[ConditionFacts], Field(max_length=1000)]

    @model_validator(mode="after")
    def _each_once(self) -> ConditionsFacts:
        views = [condition.view for condition in self.conditions]
        if twice := next((view for view in views if views.count(view) > 1), None):
            raise ValueError(f"'conditions' holds {twice[:60]!r} twice")
        return self


@dataclasses.dataclass(frozen=True)
class Condition:
    """A fold's tests in one condition: facts, and the rows of all tests in the plan's order."""

    facts: ConditionFacts
    rows: Sequence[Prediction]


def over(own: str, view: View) -> View:
    """A view over the one that an example has by its plan."""
    return View((*parse_view(own).transforms, *view.transforms))


def checkpoint_digest(folder: Path) -> str | None:
    """Digest of a fold's checkpoint, wherever its base weights lie; None where it has none.

    Raises UserError where a file of it cannot be read.
    """
    config, tensors = (folder / name for name in CHECKPOINT)
    if not (config.exists() and tensors.exists()):
        return None
    said = read_json(config)
    if isinstance(said, dict) and isinstance(said.get("upstream"), dict):
        said = said | {"upstream": {k: v for k, v in said["upstream"].items() if k != "path"}}
    return digest([said, file_digest(tensors)])


def rows_digest(rows: Iterable[Prediction], task: Task) -> str:
    """SHA-256 (64 hex digits) of rows as they are written by themselves."""
    return hashlib.sha256(predictions_text(list(rows), task).encode()).hexdigest()


# ---- writing ----------------------------------------------------------------------------------


def write_conditions(folder: Path, task: Task, conditions: Sequence[Condition]) -> None:
    """Write all conditions of a fold, those that it had before among them.

    Whenever it is stopped, each condition that conditions.json holds has its rows in the table: one
    whose rows change is taken out first.
    """
    path = folder / FACTS
    if path.exists():
        before = validated(str(path), ConditionsFacts, read_json(path))
        same = {c.facts.view: c.facts.predictions for c in conditions}
        left = [c for c in before.conditions if same.get(c.view) == c.predictions]
        if len(left) < len(before.conditions):
            _write_facts(path, before.model_copy(update={"conditions": left}))
    rows = [row for condition in conditions for row in condition.rows]
    write_text(folder / ROWS, predictions_text(rows, task))
    first = conditions[0].rows[0]
    data = {
        "schema": 1, "fold": first.fold, "seed": first.seed,
        "conditions": [c.facts.model_dump(mode="json") for c in conditions],
    }  # fmt: skip
    _write_facts(path, validated(str(path), ConditionsFacts, data))


def _write_facts(path: Path, facts: ConditionsFacts) -> None:
    write_json(path, facts.model_dump(mode="json", by_alias=True))


# ---- reading ----------------------------------------------------------------------------------


def read_conditions(folder: Path, fold: FoldResult) -> list[Condition]:
    """The conditions in which a finished fold was tested, as untrusted data; [] where in none.

    Args:
        fold: what the folder holds beside.

    Raises:
        UserError: naming the file that is damaged, or holds rows of other examples, truths or
            speakers than the fold's tests have, or other rows than conditions.json says.
    """
    path = folder / FACTS
    if not path.exists():
        return []
    facts = validated(str(path), ConditionsFacts, read_json(path))
    try:
        if (facts.fold, facts.seed) != (fold.facts.fold, fold.facts.seed):
            raise _Wrong(f"it is of fold {facts.fold[:60]}, seed {facts.seed}")
        rows = _by_key(read_predictions(folder / ROWS, fold.task)) if facts.conditions else {}
        return [Condition(of, _rows_of(of, fold, rows)) for of in facts.conditions]
    except _Wrong as error:
        raise UserError(
            f"{path}: {error}; delete it and {ROWS} beside it, and test the fold again with "
            "emopeft evaluate RUN --conditions"
        ) from None


class _Wrong(ValueError):
    """Something in the two files that does not go together."""


def _by_key(rows: Iterable[Prediction]) -> dict[tuple[str, str], Prediction]:
    """Rows by test and id; raises _Wrong where one stands twice."""
    found: dict[tuple[str, str], Prediction] = {}
    for row in rows:
        if found.setdefault((row.test, row.id), row) is not row:
            raise _Wrong(f"'{row.id[:80]}' of test {row.test[:60]} stands twice in {ROWS}")
    return found


def _rows_of(
    facts: ConditionFacts, fold: FoldResult, rows: dict[tuple[str, str], Prediction]
) -> list[Prediction]:
    """The rows of a condition, checked; raises _Wrong."""
    try:
        view = parse_view(facts.view)
        seen = {own: over(own, view).spelling for own in {r.view for r in fold.examples}}
    except UserError as error:
        raise _Wrong(f"the view {facts.view[:60]!r}: {error}") from None
    tests = {
        test: _of_test(
            facts, fold, test,
            [
                row._replace(view=seen[row.view])
                for row in fold.examples
                if (row.part, row.set) == ("test", test)
            ],
            rows,
        )
        for test in fold.facts.plan.tests
    }  # fmt: skip
    if {test: len(own) for test, own in tests.items()} != facts.clips:
        raise _Wrong(f"{facts.view[:60]}: 'clips' are not those of its tests")
    found = [row for own in tests.values() for row in own]
    if any((r.fold, r.seed) != (fold.facts.fold, fold.facts.seed) for r in found):
        raise _Wrong(f"{ROWS} holds rows of another fold or seed")
    if rows_digest(found, fold.task) != facts.predictions:
        raise _Wrong(f"the rows of {facts.view[:60]} in {ROWS} are not those that it was made with")
    return found


def _of_test(
    facts: ConditionFacts,
    fold: FoldResult,
    test: str,
    planned: Sequence[PlanRow],
    rows: dict[tuple[str, str], Prediction],
) -> list[Prediction]:
    """The rows of a test in a condition, in the plan's order; raises _Wrong."""
    own = [
        row for plan in planned if (row := rows.get((test, f"{plan.id}@{plan.view}"))) is not None
    ]
    if problems := rows_problems(fold.task, test, own, planned):
        raise _Wrong(f"{facts.view[:60]}: {problems[0]}")
    return own
