"""A probe on each state of a frozen encoder, and one on their weighted sum: ordinary runs, one
folder each, whose probes train together on means that are loaded once.

Each is the run that ``emopeft run -p none -o head.layers=N`` gives, with its own record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.data.prepare import protocol_name
from emopeft.downstream.data.recipe import (
    Recipe,
    build,
    flatten,
    parse_method,
    probe_keys,
    validate,
)
from emopeft.downstream.heads.base import state_number
from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.models.build import head_arguments, layers_of
from emopeft.downstream.records.record import examine
from emopeft.downstream.runs.evaluate import places_now, recipe_of_run
from emopeft.downstream.runs.identity import claim, identity_of, plain_name
from emopeft.downstream.runs.probing import Job
from emopeft.downstream.runs.run import recorded, todo_of, trained, write_down
from emopeft.downstream.runs.session import Session, Setup, open_session
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.interruption import graceful
from emopeft.errors import UserError, unknown
from emopeft.peft_modules.base import FROZEN, kind_of
from emopeft.text import plain

SUM = "weighted_sum"  # the folder of the probe on it
STACK_BYTES = 1 << 28  # of heads' parameters that train at once; with Adam's four times as much


@dataclasses.dataclass(frozen=True)
class LayerRuns:
    """The runs' folders: of state 0, 1, ..., and of the weighted sum, which is another run where
    that was there before.

    Attributes:
        records: of those that were trained here, by their names, empty where there is none yet.
    """

    states: list[Path]
    summed: Path
    records: dict[str, dict[str, Any]]

    @property
    def complete(self) -> bool:
        """Whether each of them has a record."""
        return all(self.records.values())

    @property
    def failures(self) -> list[str]:
        """A sentence for each fold that failed."""
        return [
            f"{name}, fold {plain(fold['fold'])}, seed {fold['seed']}: {plain(fold['reason'], 500)}"
            for name, record in self.records.items()
            for fold in record.get("folds", [])
            if fold["status"] == "failed"
        ]


def recipe_like(
    run: Path,
    keys: Mapping[str, Any],
    data: Sequence[str] | None = None,
    upstream_path: str | None = None,
) -> tuple[Recipe, bool]:
    """The recipe of probes with the upstream, corpus, protocol and head of a finished run, on the
    folds and seeds that it has; and whether the run itself is such a probe on a weighted sum.

    Where the run's method trains the upstream, the probes train with the defaults for a frozen one.

    Args:
        keys: of the recipe, that replace the run's.
        data, upstream_path: where the corpora and the encoder lie now, as for `evaluate`.

    Raises:
        UserError: no finished run, or one that a probe cannot be compared with.
    """
    recipe: Recipe = build(flatten(recipe_of_run(run).to_dict(), str(run)) | dict(keys))
    checked = examine(run)
    if checked.problems:
        raise UserError(f"{run} is not what its folds give: {checked.problems[0]}")
    done = [fold for fold in checked.data["folds"] if fold["status"] == "finished"]
    if not done:
        raise UserError(f"{run} has no fold that is finished; run it first")
    folds = dict.fromkeys(fold["fold"] for fold in done)
    recipe.folds = "all" if len(folds) == len(checked.data["plan"]["folds"]) else ",".join(folds)
    recipe.seeds = sorted({fold["seed"] for fold in done})
    if data is not None:
        recipe.corpus.data = places_now(recipe, data)
    recipe.upstream.path = upstream_path or recipe.upstream.path
    if recipe.transfer.init_from is not None:
        raise UserError(
            f"{run} goes on from another run, which a probe of the encoder's states has no part "
            "in; give a run that does not, or -u, -d and --corpus"
        )
    methods = parse_method(recipe.method)
    frozen = kind_of(methods) == FROZEN
    layers = layers_of(recipe.head.layers, recipe.method)
    is_sum = frozen and layers in ("weighted_sum", "blocks")
    head = dataclasses.replace(recipe.head, init="random", layers=layers if is_sum else SUM)
    train = recipe.train if frozen else probe_keys(protocol_name(recipe), recipe.train)
    return dataclasses.replace(recipe, method="none", head=head, train=train), is_sum


def shown_metric(task: Task, name: str | None) -> Metric:
    """A metric that tables of a task show, by name; None: its main one. Raises UserError."""
    names = {metric.name: metric for metric in task.shown}
    if name is not None and name not in names:
        raise unknown(f"metric of task {task.name}", name, names)
    return names[name or task.main]


def run_layers(
    recipe: Recipe,
    command: str,
    recipe_file: Path | None = None,
    summed: Path | None = None,
    metric: str | None = None,
) -> LayerRuns:
    """Train what is not finished of the probes on every state, and of that on the weighted sum.

    Args:
        recipe: of the weighted sum; its ``out`` and ``name`` are the folder that holds the runs.
        command, recipe_file: are recorded, see `run`.
        summed: a run of the weighted sum; None: it is trained, too.
        metric: that is asked for later, see `shown_metric`.

    Raises:
        UserError: for whatever is wrong with the input, as `run`; a method or a protocol whose
            states are not those of one frozen encoder.
    """
    check_recipe(recipe)
    place = Path(recipe.out) / (recipe.name or default_name(recipe))
    recipes = {"layer0": one_state(recipe, 0)}
    with graceful():
        first = open_session(placed(recipes["layer0"], place, "layer0"), command, recipe_file)
        shown_metric(first.task, metric)
        if any(len(fold.stages) > 1 for fold in first.plan.folds):
            raise UserError(
                f"the folds of {first.plan.protocol.name} have several stages, and a probe has "
                "one; take another --protocol"
            )
        count = first.upstream.num_blocks + 1
        recipes |= {f"layer{i}": one_state(recipe, i) for i in range(count)}
        if summed is None:
            recipes[SUM] = recipe
        sessions = {name: beside(first, placed(r, place, name)) for name, r in recipes.items()}
        jobs = [(own, work) for own in sessions.values() for work in todo_of(own)]
        share = 1 / max(1, len(jobs))  # of what all folds of this call needed once
        for some in portions(jobs):
            for (own, work), outcome in trained(some):
                write_down(own, work, outcome, share)
        records = {name: recorded(own) for name, own in sessions.items()}
    states = [sessions[f"layer{i}"].folder for i in range(count)]
    return LayerRuns(states, sessions[SUM].folder if summed is None else summed, records)


def check_recipe(recipe: Recipe) -> None:
    """Raises UserError where a recipe is not of a weighted sum of a frozen encoder's states."""
    if kind_of(parse_method(recipe.method)) != FROZEN:
        raise UserError(
            f"-p {recipe.method} changes the encoder in each fold, and the states are those of the "
            "frozen one: leave method out; of a run that is there: emopeft layers RUN"
        )
    if recipe.head.layers == "last" or state_number(recipe.head.layers) is not None:
        raise UserError(
            f"head.layers={recipe.head.layers} is no weighted sum to compare the states with; "
            "leave it out, or take blocks"
        )
    if recipe.head.init != "random" or recipe.transfer.init_from is not None:
        raise UserError("probes of states start at random; leave head.init and --init-from out")


def default_name(recipe: Recipe) -> str:
    """The folder of a protocol's and an upstream's probes."""
    return plain_name(f"{protocol_name(recipe)}-{recipe.upstream.name}")


def one_state(recipe: Recipe, number: int) -> Recipe:
    """The recipe on one state. A weighted sum that was a method (ws) is none of its."""
    head = dataclasses.replace(recipe.head, layers=str(number))
    return dataclasses.replace(recipe, method="none", head=head)


def placed(recipe: Recipe, place: Path, name: str) -> Recipe:
    """The recipe as a run ``name`` in ``place``."""
    return validate(dataclasses.replace(recipe, out=str(place), name=name))


def beside(session: Session, recipe: Recipe) -> Session:
    """The session of a recipe that differs in its head alone: on the same data, encoder and frozen
    part. Raises UserError where its folder holds another run."""
    plan, setup = session.plan, session.setup
    head = head_arguments(recipe.head, session.upstream, recipe.method, plan.task.output_groups)
    blueprint = dataclasses.replace(setup.blueprint, method=recipe.method, head=head)
    adaptation = setup.adaptation
    if recipe.method != session.recipe.method:
        adaptation = blueprint.adapt(recipe.seeds[0])
    identity = identity_of(
        recipe, plan, session.upstream, {recipe.method: blueprint}, {recipe.method: adaptation},
        session.numerics, session.accelerator,
    )  # fmt: skip
    folder = Path(recipe.out) / str(recipe.name)
    if session.accelerator.is_main_process:
        claim(folder, identity, recipe)
    setups = {recipe.method: Setup(blueprint, adaptation, setup.examples)}
    return dataclasses.replace(
        session, recipe=recipe, setups=setups, folder=folder, identity=identity
    )


def portions(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Jobs in order, as many at a time as the bytes of their heads allow; one at least."""
    some: list[Job] = []
    used = 0
    for session, work in jobs:
        head = session.setup.model(work.seed).head
        rates = len(session.recipe.train.lr_grid) if session.recipe.train.tune == "lr" else 1
        size = rates * sum(p.numel() * p.element_size() for p in head.parameters())
        if some and used + size > STACK_BYTES:
            yield some
            some, used = [], 0
        some.append((session, work))
        used += size
    if some:
        yield some
