"""Training a fold with the trainer, stage by stage; whatever is done of it is kept on the way."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.fold import Fold, Stage
from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.models.build import standardise_on
from emopeft.downstream.models.checkpoint import read_progress, write_progress
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.session import Session, stage_keys
from emopeft.downstream.runs.work import Outcome, StageOutcome, Start, Work
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


def train_fold(session: Session, work: Work, start: Start | None = None) -> Outcome:
    """Train a fold, its first stage's head from ``start`` where given; raises Diverged."""
    peak_memory(reset=True)
    done: list[StageOutcome] = []
    trainer: Trainer | None = None
    for stage in work.fold.stages:
        before = done[-1].state if done else start
        last = stage is work.fold.stages[-1]
        outcome, trainer = _train_stage(session, work, stage, before, last)
        done.append(outcome)
    assert trainer is not None
    started = time.monotonic()
    tests, unscored = (
        {name: trainer.outputs(session.indices(examples)) for name, examples in of.items()}
        for of in (work.fold.tests, work.fold.unscored)
    )
    tested = time.monotonic() - started
    dev = trainer.outputs(session.indices(work.fold.stages[-1].dev))
    probe = None if start is None else start.result
    return Outcome(done, tests, dev, tested, peak_memory(), probe, unscored)


def check_stages(session: Session, folds: Sequence[Fold]) -> None:
    """Try how the stages follow each other, before anything is trained.

    Raises UserError for a key, a part to freeze or a method that does not fit.
    """
    for fold in {digest(fold.heads()): fold for fold in folds}.values():
        before: dict[str, Tensor] | None = None
        for stage in fold.stages:
            if stage.keys:
                stage_keys(session.recipe, stage.keys)
            if len(fold.stages) == 1 and not stage.freeze:
                break
            setup = session.setups[stage.method or session.recipe.method]
            model = setup.model(session.recipe.seeds[0])
            if before is not None:
                _carry(model, before, stage)
            _freeze(model, stage)
            before = model.kept_state()


def _train_stage(
    session: Session, work: Work, stage: Stage, before: Before, last: bool
) -> tuple[StageOutcome, Trainer]:
    """A stage, from where the one before it ended; its trainer holds the state that is kept."""
    keys = stage_keys(session.recipe, stage.keys) if stage.keys else session.recipe.train
    place = work.progress(stage)

    def trainer(rate: float, path: Any) -> Trainer:
        return _trainer(session, work, stage, before, keys, rate, path)

    if not last and (earlier := _kept(place)) is not None:  # a later stage was interrupted
        return earlier, trainer(earlier.lr, None)
    outcome, ready = _search(session, work, stage, keys, trainer)
    if not last:
        _keep(session, place, outcome)
    return outcome, ready


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
    return Trainer(
        model, setup.examples, session.task, train, session.indices(stage.dev), weights, keys,
        rate, work.seed, session.accelerator, checkpoint=path, label=label,
        curves=None if path is None else curves, starts_trained=probe is not None,
        chances=sampling_chances(
            session.task, keys, setup.examples.targets[train], stage.corpora
        ),
    )  # fmt: skip


def _carry(model: AdaptedModel, before: dict[str, Tensor], stage: Stage) -> None:
    """Start where the stage before ended; all that it trained must have a place."""
    lost = model.carry(before)
    if lost:
        raise UserError(
            f"stage {stage.name} has no place for {lost[0]}, which the stage before it trained; "
            "its method must contain that of the stage before"
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
