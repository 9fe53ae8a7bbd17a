"""A finished run's own tests again, in other conditions than it was tested in: noise, rooms, ...

Each fold's checkpoint is tested on its own tests. The frozen part of a clip in a view is kept in
the cache under a name of its own, for all folds, seeds and methods that share it; what is there is
not computed again, neither there nor in conditions.csv.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from emopeft import __version__
from emopeft.downstream.data.fold import Example, Fold
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.feature_cache.acting import check_views
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.feature_cache.excerpts import Row, rows_of
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.conditions import (
    Condition,
    ConditionFacts,
    checkpoint_digest,
    over,
    read_conditions,
    rows_digest,
    write_conditions,
)
from emopeft.downstream.records.folds import read_fold
from emopeft.downstream.records.predictions import Prediction, not_finite, predictions_of
from emopeft.downstream.records.values import without_nan
from emopeft.downstream.runs.checkpoints import best_device, fold_folders
from emopeft.downstream.runs.evaluate import check_plan, plan_of_run, recipe_of_run
from emopeft.downstream.runs.provenance import code_version, device_facts, package_versions
from emopeft.downstream.runs.rows import crowd_among
from emopeft.downstream.runs.session import make_accelerator
from emopeft.downstream.training.evaluating import outputs_of
from emopeft.downstream.views.base import Clip, Crowd, Drawing, View
from emopeft.errors import UserError
from emopeft.files import Busy, cache_root, locked
from emopeft.numerics import Numerics
from emopeft.validation import validated

logger = logging.getLogger(__name__)
LOCK = ".conditions.lock"


@dataclasses.dataclass(frozen=True)
class Tested:
    """A fold in the conditions that were asked for, in their order.

    Attributes:
        fold: as its folder holds it, with the clean predictions. computed: how many of
            ``conditions`` were not there yet. seconds: what they took.
    """

    fold: FoldResult
    conditions: list[Condition]
    computed: int
    seconds: float


def test_conditions(
    run: Path,
    views: Sequence[View],
    fold: str = "all",
    upstream_path: str | None = None,
    data: Sequence[str] | None = None,
    seed: int | None = None,
) -> tuple[list[Tested], list[str]]:
    """Test each trained fold in each view, and write what was not there yet to its folder.

    Args:
        data: as in `evaluate`.

    Returns:
        the folds, and notes: which are left out, and why.

    Raises:
        UserError: no trained fold, other folds or audio than it was trained on, a view that cannot
            act on its upstream, or a fold whose files are damaged.
    """
    folders = fold_folders(run, fold, seed)
    recipe, plan = recipe_of_run(run), plan_of_run(run, data)
    found: list[Tested] = []
    notes: list[str] = []
    for folder in folders:
        recorded = read_fold(folder)
        if recorded is None or not recorded.finished:
            notes.append(f"{folder.name} is left out: it is not finished; run it again")
            continue
        if recorded.unscored:
            tests = ", ".join(recorded.facts.unscored or ())
            notes.append(f"{folder.name}: {tests} is unscored, and left out")
        with _alone(folder):
            found.append(_Tester(folder, recorded, recipe, plan, upstream_path).test(views))
    if not found:
        raise UserError(f"{run} holds no finished fold that could be tested; {notes[0]}")
    return found, list(dict.fromkeys(notes))


test_conditions.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The right to test a fold in conditions; waits, and says so."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK, wait=1))
        except Busy:
            logger.warning("waiting for another process that tests %s", folder)
            stack.enter_context(locked(folder / LOCK, wait=math.inf))
        yield


@dataclasses.dataclass
class _Tester:
    """A fold that is tested in conditions."""

    folder: Path
    recorded: FoldResult
    recipe: Recipe
    plan: Plan
    upstream_path: str | None
    _model: tuple[AdaptedModel, Mapping[str, Any]] | None = None

    def test(self, views: Sequence[View]) -> Tested:
        """The conditions of these views, those that are not there computed and written."""
        started, checkpoint = time.monotonic(), checkpoint_digest(self.folder)
        assert checkpoint is not None
        all_ = {c.facts.view: c for c in read_conditions(self.folder, self.recorded)}
        planned = self.plan.fold(self.recorded.facts.fold)
        own = crowd_among(self.plan, [e for stage in planned.stages for e in stage.train])
        todo = []
        for view in views:
            crowd = own if view.crowded else None
            known = all_.get(view.spelling)
            asked = {"transforms": view.described, "crowd": crowd and crowd.digest}
            if known and known.facts.checkpoint == checkpoint and known.facts.said() == asked:
                continue
            todo.append((view, crowd))
        label = f"{self.folder.name} in conditions"
        for view, crowd in tqdm(todo, label, unit="view", disable=None, leave=False):
            all_[view.spelling] = self.measured(planned, view, crowd, checkpoint)
            write_conditions(self.folder, self.plan.task, list(all_.values()))
        chosen = [all_[view.spelling] for view in views]
        return Tested(self.recorded, chosen, len(todo), time.monotonic() - started)

    @property
    def model(self) -> tuple[AdaptedModel, Mapping[str, Any]]:
        """The fold's model and adapter.json, read once and where it is needed only."""
        if self._model is None:
            model, config = restore(self.folder, self.upstream_path, best_device())
            check_plan(self.folder, config, self.plan)
            self._model = model, config
        return self._model

    def measured(
        self, planned: Fold, view: View, crowd: Crowd | None, checkpoint: str
    ) -> Condition:
        """A fold's tests in a view."""
        rows, made = self.predicted(planned, view, crowd)
        facts = {
            "view": view.spelling,
            "transforms": view.described,
            "crowd": None if crowd is None else crowd.digest,
            "checkpoint": checkpoint,
            "predictions": rows_digest(rows, self.plan.task),
            "clips": {test: len(examples) for test, examples in planned.tests.items()},
            **made,
        }
        name = f"{view.spelling} of {self.folder}"
        return Condition(validated(name, ConditionFacts, without_nan(facts)), rows)

    @torch.inference_mode()
    def predicted(
        self, planned: Fold, view: View, crowd: Crowd | None
    ) -> tuple[list[Prediction], dict[str, Any]]:
        """The rows of all tests in a view, and how they were made; the frozen part is kept as in a
        run. Of the clean view they are those of the run."""
        model, config = self.model
        plan, began = self.plan, time.monotonic()
        numerics, clips = Numerics.of(config["numerics"]), ClipKeys(**config["clips"])
        numerics.apply()
        tested = [e for examples in planned.tests.values() for e in examples]
        rows = [_row(plan, clips, e, over(e.view, view), crowd) for e in tested]
        check_views(model.upstream, [excerpt for row in rows for excerpt in row], numerics)
        targets = torch.tensor([plan.target(e) for e in tested])
        examples = Examples.prepare(
            model.upstream, model.start, model.head.pooled, rows, targets,
            cache_root(self.recipe.cache.dir), self.recipe.cache, numerics,
            self.recipe.cache.batch_seconds,
        )  # fmt: skip
        prepared = time.monotonic()
        accelerator = make_accelerator(numerics.precision)
        with numerics.training(next(model.parameters()).device):
            outputs = outputs_of(model, examples, range(len(rows)), self.recipe.train, accelerator)
        found = _predictions(plan, planned, self.recorded, view, outputs, targets)
        if (diverged := not_finite(found, plan.task)) is not None:
            raise UserError(f"{self.folder}, {view.spelling}: {diverged}")
        seconds = {"features": prepared - began, "test": time.monotonic() - prepared}
        made = {"cache": examples.facts(), "seconds": seconds}
        return found, made | _made_here(numerics, accelerator)


def _row(plan: Plan, clips: ClipKeys, e: Example, view: View, crowd: Crowd | None) -> Row:
    """What is taken of an example in a view; of the clean one as the run took it."""
    audio, seconds = plan.audio[e.uid], plan.seconds[e.uid]
    clip = Clip(audio, e.utterance.speaker_uid, crowd)
    drawing = Drawing(view, clip) if view.transforms else None
    return rows_of(clips, e.utterance.path, audio, seconds, drawing=drawing)[0]


def _predictions(
    plan: Plan, planned: Fold, of: FoldResult, view: View, outputs: Tensor, targets: Tensor
) -> list[Prediction]:
    """The rows of all tests, of outputs (examples of all tests, outputs)."""
    found: list[Prediction] = []
    first = 0
    for test, examples in planned.tests.items():
        own = slice(first, first := first + len(examples))
        table = plan.task.table(outputs[own], targets[own])
        seen = [dataclasses.replace(e, view=over(e.view, view).spelling) for e in examples]
        found += predictions_of(seen, table, of.facts.fold, of.facts.seed, test)
    return found


def _made_here(numerics: Numerics, accelerator: Accelerator) -> dict[str, Any]:
    """When, with what and on what."""
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "emopeft": __version__,
        "code": code_version(),
        "numerics": numerics.describe(accelerator.device) | {"threads": torch.get_num_threads()},
        "device": device_facts(accelerator),
        "packages": package_versions(),
    }
