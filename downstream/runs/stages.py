"""Training a fold with the trainer, stage by stage; whatever is done of it is kept on the way."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.fold import Example, Fold, Stage
from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.data.resolve import stage_keys
from emopeft.downstream.data.transfer import BEFORE, BETWEEN, SOURCE, TARGET, has_domains
from emopeft.downstream.models.build import standardise_on
from emopeft.downstream.models.checkpoint import read_progress, write_progress
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.origin import origin_facts, origin_of
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.shared_stage import shared_stage
from emopeft.downstream.runs.strategies import (
    Ends,
    check_strategy,
    hold_near,
    is_shared,
    stages_of,
    strategy_of,
)
from emopeft.downstream.runs.work import Outcome, StageOutcome, Start, Transferred, Work
from emopeft.downstream.training.selection import (
    Diverged,
    Fit,
    best_of,
    sampling_chances,
    selected,
    utterance_weights,
)
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError
from emopeft.files import digest
from emopeft.numerics import peak_memory

logger = logging.getLogger(__name__)

# What a stage goes on from: the state that the one before it kept, a probe, or nothing.
Before = dict[str, Tensor] | Start | None
START = "start"


def train_fold(session: Session, work: Work, start: Start | None = None) -> Outcome:
    """Train a fold, its first stage's head from ``start`` where given; raises Diverged."""
    peak_memory(reset=True)
    recipe, fold = session.recipe, work.fold
    strategy = strategy_of(recipe.transfer, fold)
    todo = stages_of(recipe.transfer, fold, session.task, work.seed)
    domains, moments = has_domains([fold]), {}
    ends: dict[str, dict[str, Tensor]] = {}
    if domains:
        new = _beginning(session, work, todo[0], start)
        moments[BEFORE] = _outputs(session, new, fold.tests)
        ends[START] = new.plain.kept_state()
    done: dict[str, StageOutcome] = {}
    origin = origin_of(session, work)
    before: Before = start
    if origin is not None:
        before = ends[SOURCE] = origin.state
        if domains:
            old = _beginning(session, work, todo[0], before)
            moments[BETWEEN] = _outputs(session, old, fold.tests)
    for stage in todo:
        last = stage is todo[-1]
        outcome, trainer = _train_stage(session, work, stage, before, last)
        done[stage.name] = outcome
        ends[stage.name] = outcome.state
        if domains and not last:
            moments[BETWEEN] = _outputs(session, trainer, fold.tests)
        before = outcome.state if strategy.follows else start
    if strategy.end is not None:
        found = Ends(ends[START], ends[SOURCE], ends[TARGET])
        trainer, done[TARGET] = _ended(session, work, todo[-1], strategy.end, found, done[TARGET])
    started = time.monotonic()
    tests, unscored = (_outputs(session, trainer, of) for of in (fold.tests, fold.unscored))
    tested = time.monotonic() - started
    dev = trainer.outputs(session.indices(todo[-1].dev))
    probe = None if start is None else start.result
    transferred = Transferred(moments) if domains else None
    return Outcome(done, tests, dev, tested, peak_memory(), probe, unscored, transferred)


def _ended(
    session: Session, work: Work, stage: Stage, end: Any, ends: Ends, outcome: StageOutcome
) -> tuple[Trainer, StageOutcome]:
    """A trainer that holds what both ends were made into, and the last stage's outcome with it."""
    method, state = end(session, ends)
    one = _beginning(session, work, dataclasses.replace(stage, method=method), None)
    one.plain.load_kept_state(state, later_stage=True)
    return one, dataclasses.replace(outcome, state=state, method=method)


def _beginning(session: Session, work: Work, stage: Stage, before: Before) -> Trainer:
    """A trainer that stands where a stage begins."""
    keys = keys_of(session, work.fold, stage)
    whole = dataclasses.replace(stage, freeze=())
    return _trainer(session, work, whole, before, keys, keys.lr, None)


def check_stages(session: Session, todo: Sequence[Work]) -> None:
    """Try how the stages follow each other, before anything is trained.

    Raises UserError for a key, a part to freeze or a method that does not fit, and for a checkpoint
    that a fold may not go on from.
    """
    recipe = session.recipe
    for work in todo:
        origin_facts(session, work)
    for work in {digest(work.fold.heads()): work for work in todo}.values():
        fold, origin = work.fold, origin_of(session, work)
        check_strategy(session, fold)
        before = None if origin is None else origin.state
        stages = stages_of(recipe.transfer, fold, session.task, recipe.seeds[0])
        for stage in stages:
            keys_of(session, fold, stage)
            if len(stages) == 1 and not stage.freeze and origin is None:
                break
            setup = session.setups[stage.method or recipe.method]
            model = setup.model(recipe.seeds[0])
            if before is not None:
                _carry(model, before, stage)
            _freeze(model, stage)
            before = _as_trained(model)


def _as_trained(model: AdaptedModel) -> dict[str, Tensor]:
    """A kept state as training would leave it: nothing that trains is zero throughout, nor equal
    throughout, which a layer norm behind it would hide."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad and not bool(parameter.any()):
            drawn = torch.randn(parameter.shape, generator=generator) * 1e-3
            parameter.data = drawn.to(parameter)
    return model.kept_state()


def _outputs(
    session: Session, trainer: Trainer, tests: Mapping[str, tuple[Example, ...]]
) -> dict[str, Tensor]:
    """Per test the head's outputs (utterances, outputs)."""
    return {name: trainer.outputs(session.indices(examples)) for name, examples in tests.items()}


def keys_of(session: Session, fold: Fold, stage: Stage) -> TrainKeys:
    """How a stage is trained; raises UserError for keys that do not fit."""
    if not stage.keys:
        return session.recipe.train
    later = stage.name != fold.stages[0].name
    return stage_keys(session.recipe, stage.keys, f"stage {stage.name}", later)


def _train_stage(
    session: Session, work: Work, stage: Stage, before: Before, last: bool
) -> tuple[StageOutcome, Trainer]:
    """A stage, from where the one before it ended; its trainer holds the state that is kept."""
    keys = keys_of(session, work.fold, stage)
    place = work.progress(stage)
    shared = is_shared(work.fold, stage)
    ready: list[Trainer] = []

    def trainer(rate: float, path: Path | None) -> Trainer:
        return _trainer(session, work, stage, before, keys, rate, path)

    def train() -> StageOutcome:
        outcome, one = _search(session, work, stage, keys, trainer)
        ready.append(one)
        return outcome

    if shared or not last:
        outcome = _kept(place)  # a later stage was interrupted
        if outcome is None and shared:
            assert before is None or isinstance(before, Start)
            outcome = shared_stage(session, work, stage, before, keys, train)
            _keep(session, place, outcome)
        elif outcome is None:
            outcome = train()
            _keep(session, place, outcome)
    else:
        outcome = train()
    if ready:
        return outcome, ready[0]
    one = trainer(outcome.lr, None)
    one.plain.load_kept_state(outcome.state)
    return outcome, one


def _search(
    session: Session, work: Work, stage: Stage, keys: TrainKeys, trainer: Any
) -> tuple[StageOutcome, Trainer]:
    """One training, or one for each rate of a search: the best on this fold's dev is kept."""
    if keys.tune != "lr":
        one = trainer(keys.lr, work.progress(stage))
        fit = one.fit()
        return StageOutcome(fit, keys.lr, {}, 0.0, one.plain.kept_state()), one
    done: dict[str, StageOutcome] = {}
    failure: Diverged | None = None
    worst = selected(session.task, keys).worst
    reached: dict[str, float] = {}
    spent: dict[str, float] = {}
    for rate in keys.lr_grid:
        name, place = f"{rate:g}", work.progress(stage, rate)
        started = time.monotonic()
        outcome = _kept(place)
        if outcome is None:
            try:
                one = trainer(rate, place)
                fit = one.fit()
                outcome = StageOutcome(fit, rate, {}, 0.0, one.plain.kept_state())
                _keep(session, place, outcome)
            except Diverged as error:
                failure, reached[name] = error, worst
                spent[name] = time.monotonic() - started
                continue
            session.accelerator.free_memory()
        done[name], spent[name] = outcome, outcome.fit.seconds
        reached[name] = outcome.fit.best[selected(session.task, keys).name]
    if failure is not None and not done:
        raise failure
    chosen = best_of(session.task, keys, {n: reached[n] for n in done})
    best = done[chosen]
    tuning = sum(s for n, s in spent.items() if n != chosen)
    one = trainer(best.lr, None)
    one.plain.load_kept_state(best.state)
    return dataclasses.replace(best, tried=reached, tuning=tuning), one


def _trainer(
    session: Session,
    work: Work,
    stage: Stage,
    before: Before,
    keys: TrainKeys,
    rate: float,
    path: Any,
) -> Trainer:
    """A trainer of a new model, which takes over what an earlier stage or a probe gave."""
    setup = session.setups[stage.method or session.recipe.method]
    probe = before.state if isinstance(before, Start) else None
    model = setup.model(work.seed, probe)
    train = session.indices(stage.train)
    ready = setup.examples.preloaded
    if before is None:
        standardise_on(model, None if ready is None else ready[train])
    elif not isinstance(before, Start):
        _carry(model, before, stage)
    _freeze(model, stage)
    weights = utterance_weights(
        session.task, keys, setup.examples.targets[train],
        torch.tensor([e.weight for e in stage.train], dtype=torch.float32),
    )  # fmt: skip
    label, curves = work.label, work.place / "curves"
    if len(work.fold.stages) > 1:
        label, curves = f"{label} {stage.name}", curves / stage.name
    if keys.tune == "lr":
        label, curves = f"{label} lr {rate:g}", curves / f"lr{rate:g}"
    trainer = Trainer(
        model, setup.examples, session.task, train, session.indices(stage.dev), weights, keys,
        rate, work.seed, session.accelerator, checkpoint=path, label=label,
        curves=None if path is None else curves, starts_trained=probe is not None,
        chances=sampling_chances(
            session.task, keys, setup.examples.targets[train], stage.corpora
        ),
        crowd=session.crowd(stage),
    )  # fmt: skip
    if isinstance(before, dict) and stage.name == work.fold.stages[-1].name:
        hold_near(session, work, trainer, before)
    return trainer


def _carry(model: AdaptedModel, before: dict[str, Tensor], stage: Stage) -> None:
    """Start where the stage before ended; all that it trained must have a place."""
    lost = model.carry(before)
    if lost:
        raise UserError(
            f"stage {stage.name} has no place for {lost[0]}, which the stage before it trained; "
            "its method must contain that of the stage before (of --init-from: of that run)"
        )


def _freeze(model: AdaptedModel, stage: Stage) -> None:
    model.freeze(stage.freeze)
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"stage {stage.name} freezes all that trains; leave something out")


# ---- what is kept of a finished training until its fold is written -----------------------------


def _keep(session: Session, place: Any, outcome: StageOutcome) -> None:
    if session.accelerator.is_main_process:
        values = vars(outcome) | {"fit": vars(outcome.fit)}
        write_progress(place, {"finished": values})


def _kept(place: Any) -> StageOutcome | None:
    """A finished training, where it was kept; raises UserError when the file is damaged."""
    if not place.exists():
        return None
    values = read_progress(place).get("finished")
    if values is None:
        return None
    try:
        return StageOutcome(**values | {"fit": Fit(**values["fit"])})
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{place} is not the progress of this training ({error}); delete it to train this "
            "fold from its start"
        ) from None
