"""What the folds of a run share: plan, model blueprints, frozen parts, and the run's folder."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor

from emopeft.downstream.data.fold import Example, Stage
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.prepare import Data, prepare
from emopeft.downstream.data.recipe import Recipe, parse_method
from emopeft.downstream.data.transfer import check_folds
from emopeft.downstream.feature_cache.acting import check_views
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.models.build import Blueprint, upstream_of
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.records.submissions import files_of
from emopeft.downstream.runs.identity import claim, folder_of, identity_of
from emopeft.downstream.runs.rows import all_rows, crowd_of
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.probes import probes_can_train
from emopeft.errors import UserError
from emopeft.files import cache_root
from emopeft.numerics import Numerics
from emopeft.peft_modules.apply import Adaptation
from emopeft.peft_modules.base import FROZEN, kind_of
from emopeft.upstream.base import Upstream

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Setup:
    """What one method needs: as a rule a run has one, a plan with stages may have several."""

    blueprint: Blueprint
    adaptation: Adaptation  # of the first seed: the frozen part is the same for all
    examples: Examples

    @property
    def trains_upstream(self) -> bool:
        """Whether anything but the head trains."""
        return any(self.adaptation.upstream.trainable())

    def model(self, seed: int, start: Mapping[str, Tensor] | None = None) -> AdaptedModel:
        """A newly initialised model, its head as ``start`` where given; what trains nothing is
        shared."""
        adaptation = None if self.trains_upstream else self.adaptation
        return self.blueprint.model(seed, adaptation, start)


@dataclasses.dataclass
class Session:
    """Everything that the folds of a run share."""

    recipe: Recipe
    command: str
    recipe_file: Path | None
    data: Data
    accelerator: Accelerator
    numerics: Numerics
    upstream: Upstream
    setups: dict[str, Setup]  # by the method as it is written; the run's own first
    frozen: Setup | None  # of the probes that heads start from; None where they start at random
    places: dict[str, int]  # an example's key -> its place in the examples
    folder: Path
    identity: dict[str, Any]
    seconds: dict[str, float]

    @property
    def plan(self) -> Plan:
        return self.data.plan

    @property
    def task(self) -> Task:
        return self.data.plan.task

    @property
    def setup(self) -> Setup:
        """Of the run's own method."""
        return next(iter(self.setups.values()))

    @property
    def examples(self) -> Examples:
        """All examples of the chosen folds, for the run's own method."""
        return self.setup.examples

    @property
    def is_probe(self) -> bool:
        """Whether all that trains is a head on kept time means, in one stage."""
        begins = self.recipe.transfer.init_from is None
        return begins and _is_probe(self.setup, self.plan, self.recipe.seeds[0])

    def crowd(self, stage: Stage) -> str:
        """Who babbles behind the training clips of a stage, as `Examples.ways_of` asks it."""
        return crowd_of(self.plan, stage).digest if self.examples.crowded else ""

    def indices(self, examples: tuple[Example, ...]) -> list[int]:
        """The examples' places."""
        return [self.places[e.key] for e in examples]


def open_session(recipe: Recipe, command: str, recipe_file: Path | None = None) -> Session:
    """Read, check, load and keep what is frozen. Raises UserError for wrong input."""
    started = time.monotonic()
    data = prepare(recipe)
    plan = data.plan
    for warning in plan.warnings:
        logger.warning("%s", warning)
    _check_start(recipe, plan)
    check_folds(recipe.transfer, plan.folds, plan.protocol.name)
    files_of(plan.protocol.submission, plan.task)
    if recipe.train.select is not None:
        plan.task.metric(recipe.train.select)
    numerics = numerics_of(recipe)
    numerics.apply()
    accelerator = make_accelerator(numerics.precision)
    upstream = upstream_of(recipe.upstream).to(accelerator.device)
    methods = _methods(recipe, plan)
    blueprints = {
        method: Blueprint.of(
            upstream, dataclasses.replace(recipe, method=method), plan.task.output_groups
        )
        for method in methods
    }
    adaptations = {m: b.adapt(recipe.seeds[0]) for m, b in blueprints.items()}
    first = blueprints[methods[0]], adaptations[methods[0]]
    # A frozen probe trains in float32, whatever the recipe says, and is recorded so.
    if numerics.precision != "fp32" and _probe_ahead(recipe, plan, *first):
        numerics = dataclasses.replace(numerics, precision="fp32")
        accelerator = make_accelerator(numerics.precision)
    identity = identity_of(recipe, plan, upstream, blueprints, adaptations, numerics, accelerator)
    folder = folder_of(recipe, plan, first[1].spec, identity)
    if accelerator.is_main_process:
        claim(folder, identity, recipe)
    loaded = time.monotonic()
    setups = {}
    for method in methods:
        head = blueprints[method].model(recipe.seeds[0], adaptations[method]).head
        examples = examples_of(recipe, plan, adaptations[method], head.pooled, numerics)
        setups[method] = Setup(blueprints[method], adaptations[method], examples)
    frozen = None
    if recipe.head.init == "probe":
        frozen = _frozen(recipe, plan, blueprints[methods[0]], numerics)
    seconds = {"load": loaded - started, "features": time.monotonic() - loaded}
    places = {e.key: i for i, e in enumerate(chosen_examples(recipe, plan))}
    return Session(
        recipe, command, recipe_file, data, accelerator, numerics, upstream, setups, frozen, places,
        folder, identity, seconds,
    )  # fmt: skip


def _frozen(recipe: Recipe, plan: Plan, blueprint: Blueprint, numerics: Numerics) -> Setup:
    """What the probes need that heads start from: the upstream as it is, all of it kept."""
    probe = Blueprint(blueprint.upstream, "none", blueprint.head)
    adaptation = probe.adapt(recipe.seeds[0])
    pooled = probe.model(recipe.seeds[0], adaptation).head.pooled
    # On clean clips, so that it is the probe of every augmentation.
    examples = examples_of(recipe, plan, adaptation, pooled, numerics, augmented=False)
    return Setup(probe, adaptation, examples)


def examples_of(
    recipe: Recipe,
    plan: Plan,
    adaptation: Adaptation,
    pooled: bool,
    numerics: Numerics,
    augmented: bool = True,
) -> Examples:
    """The chosen folds' examples with their frozen part, in the order of `chosen_examples`.

    Args:
        augmented: see `all_rows`.
    """
    chosen = chosen_examples(recipe, plan)
    made = all_rows(recipe, plan, chosen, augmented)
    check_views(adaptation.upstream, [e for row in made.rows for e in row], numerics)
    targets = torch.tensor([plan.target(e) for e in chosen])
    examples = Examples.prepare(
        adaptation.upstream, adaptation.start, pooled, made.rows, targets[made.owners],
        cache_root(recipe.cache.dir), recipe.cache, numerics, recipe.cache.batch_seconds,
        [*made.ways, *([i] for i in range(len(chosen), len(made.rows)))],
    )  # fmt: skip
    examples.crowded, examples.in_turn = made.crowded, made.in_turn
    return examples


def chosen_examples(recipe: Recipe, plan: Plan) -> list[Example]:
    """All distinct examples of the chosen folds, by key."""
    by_key = {e.key: e for fold in plan.choose(recipe.folds) for e in fold.examples()}
    return [by_key[key] for key in sorted(by_key)]


def numerics_of(recipe: Recipe) -> Numerics:
    """The recipe's precisions and switches."""
    train = recipe.train
    return Numerics(train.precision, recipe.cache.precision, train.tf32, train.deterministic)


def make_accelerator(precision: str) -> Accelerator:
    """The device and precision; raises UserError where they do not go together."""
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("train.precision=fp16 needs a GPU; take bf16 or fp32 on a CPU")
    # A process may run several recipes; accelerate would keep the first one's precision.
    AcceleratorState._reset_state()
    # Processes may run different numbers of micro-batches; no buffer changes while training.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision, kwargs_handlers=[parallel]
    )


def _methods(recipe: Recipe, plan: Plan) -> list[str]:
    """The run's method, then those that stages of the plan name, each once."""
    named = [s.method for fold in plan.folds for s in fold.stages if s.method]
    return list(dict.fromkeys([recipe.method, *named]))


def _check_start(recipe: Recipe, plan: Plan) -> None:
    """That a first stage does not train the head alone where it starts from the probe."""
    for stage in (fold.stages[0] for fold in plan.folds):
        method = stage.method or recipe.method
        if recipe.head.init == "probe" and kind_of(parse_method(method)) == FROZEN:
            raise UserError(
                f"stage {stage.name} of {plan.protocol.name} trains the head alone ({method}), and "
                "head.init=probe would train it twice: set head.init=random"
            )


def _is_probe(setup: Setup, plan: Plan, seed: int) -> bool:
    staged = any(len(fold.stages) > 1 for fold in plan.folds)
    if staged or setup.trains_upstream:
        return False
    return probes_can_train(setup.model(seed).head, setup.examples.preloaded)


def _probe_ahead(recipe: Recipe, plan: Plan, blueprint: Blueprint, adaptation: Adaptation) -> bool:
    """Whether the run will be a probe, before anything is kept."""
    if not recipe.cache.enabled or any(len(fold.stages) > 1 for fold in plan.folds):
        return False
    if any(adaptation.upstream.trainable()) or recipe.transfer.init_from is not None:
        return False
    head = blueprint.model(recipe.seeds[0], adaptation).head
    return head.pooled and probes_can_train(head, torch.empty(0))
