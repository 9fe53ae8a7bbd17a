"""Frozen probes: all folds, seeds and learning rates of a run at once, on kept time means."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from emopeft.downstream.models.build import standardise_on
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.work import Outcome, StageOutcome, Work
from emopeft.downstream.training.curves import draw
from emopeft.downstream.training.probes import Probe
from emopeft.downstream.training.selection import (
    Diverged,
    sampling_chances,
    selected,
    utterance_weights,
)
from emopeft.downstream.training.side_by_side import train_probes
from emopeft.downstream.training.trials import choose
from emopeft.numerics import peak_memory


def train_folds(
    session: Session, todo: Sequence[Work]
) -> Iterator[tuple[Work, Outcome | Diverged]]:
    """Train the folds as probes; yields each as it is done, or why it failed.

    Raises UserError for whatever else is wrong with one of them.
    """
    peak_memory(reset=True)
    keys, task = session.recipe.train, session.task
    assert session.examples.preloaded is not None
    means = session.examples.preloaded.to(session.accelerator.device)  # once for all
    models = [session.setup.model(work.seed) for work in todo]
    probes = []
    for work, model in zip(todo, models, strict=True):
        (stage,) = work.fold.stages
        train, dev = session.indices(stage.train), session.indices(stage.dev)
        standardise_on(model, means[train])
        weights = utterance_weights(
            task, keys, session.examples.targets[train],
            torch.tensor([e.weight for e in stage.train], dtype=torch.float32),
        )  # fmt: skip
        probes.append(
            Probe(
                model.head, means, session.examples.targets, train, dev, weights, task, keys,
                keys.lr_grid if keys.tune == "lr" else [keys.lr], work.seed,
                session.accelerator.device, work.progress(stage), work.label,
                sampling_chances(task, keys, session.examples.targets[train], stage.corpora),
                session.examples.ways_of(train, session.crowd(stage)),
            )
        )  # fmt: skip
    # Every process computes the same; the first one writes.
    quiet = None if session.accelerator.is_main_process else True
    for number, clock in train_probes(probes, quiet):
        work, probe = todo[number], probes[number]
        if probe.error is not None:
            if not isinstance(probe.error, Diverged):
                raise probe.error
            yield work, probe.error
            continue
        try:
            chosen = choose(task, keys, probe.trials)
        except Diverged as error:
            yield work, error
            continue
        fit = probe.trials[chosen].fit()
        probe.install(chosen)
        started = time.monotonic()
        tests, unscored = (
            {n: probe.outputs(session.indices(e)) for n, e in of.items()}
            for of in (work.fold.tests, work.fold.unscored)
        )
        tested = time.monotonic() - started
        tried, tuning = {}, 0.0
        if keys.tune == "lr":
            select = selected(task, keys)
            tried = {
                f"{t.rate:g}": select.worst if t.failure else t.selection.best[select.name]
                for t in probe.trials
            }
            tuning = (sum(t.seconds for t in probe.trials) - fit.seconds) * clock
        fit.seconds *= clock  # several probes shared these seconds
        if session.accelerator.is_main_process:
            draw(work.place / "curves", fit.history)
        state = models[number].kept_state()
        stage_outcome = StageOutcome(fit, probe.trials[chosen].rate, tried, tuning, state)
        (stage,) = work.fold.stages
        on_dev = probe.outputs(session.indices(stage.dev))
        yield (
            work,
            Outcome(
                {stage.name: stage_outcome}, tests, on_dev, tested, peak_memory(), unscored=unscored
            ),
        )
