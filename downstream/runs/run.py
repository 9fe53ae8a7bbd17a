"""A run: every chosen fold and seed is trained, tested and recorded, a finished one only once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.models.build import standardise_on
from emopeft.downstream.models.checkpoint import write_adapter
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.protocols.protocol import Fold
from emopeft.downstream.records.record import (
    Prediction,
    fold_folder,
    read_fold,
    write_fold,
    write_record,
)
from emopeft.downstream.records.recording import make_record
from emopeft.downstream.runs.session import Session, open_session
from emopeft.downstream.training.probes import Probe, choose, probes_can_train, train_probes
from emopeft.downstream.training.selection import Diverged, Fit
from emopeft.downstream.training.trainer import Trainer, draw

PROGRESS = "progress.pt"


@dataclasses.dataclass
class Work:
    """A fold and seed that is to be trained, and the fold's sides as indices into the examples."""

    fold: Fold
    seed: int
    place: Path
    train: list[int]
    dev: list[int]
    test: list[int]

    @property
    def label(self) -> str:
        """For progress bars and errors."""
        return f"fold {self.fold.name} seed {self.seed}"


@dataclasses.dataclass
class Outcome:
    """What training gave: the fit, the chosen rate, what the others reached, and the test part."""

    fit: Fit
    lr: float
    tried: dict[str, float]
    tuning: float  # seconds
    logits: Tensor  # (test, outputs)
    tested: float  # seconds
    state: dict[str, Tensor]  # all that trained, for the checkpoint


def run(recipe: Recipe, command: str) -> dict[str, Any]:
    """Run a recipe; returns the record. Raises UserError for whatever is wrong with the input."""
    this = open_session(recipe, command)
    todo = _todo(this)
    if _is_probe(this):
        _run_probes(this, todo)
    else:
        for work in todo:
            _write(this, work, _train(this, work))
            this.accelerator.free_memory()
            this.accelerator.wait_for_everyone()
    record = make_record(this)
    if this.accelerator.is_main_process:
        write_record(this.folder, record)
    return record


def _todo(this: Session) -> list[Work]:
    """The folds and seeds that are not finished."""
    index = {u.id: i for i, u in enumerate(this.examples.utterances)}
    todo = []
    for seed in this.recipe.seeds:
        for fold in this.data.folds:
            place = fold_folder(this.folder, fold.name, seed)
            if read_fold(place, this.task.classes) is None:
                sides = ([index[u.id] for u in s] for s in (fold.train, fold.dev, fold.test))
                todo.append(Work(fold, seed, place, *sides))
    return todo


# ---- frozen probes: all folds, seeds and learning rates at once -----------------------------


def _model(this: Session, seed: int) -> AdaptedModel:
    """A newly initialised model; what trains nothing is shared."""
    shared = this.adaptation if not any(this.adaptation.upstream.trainable()) else None
    return this.blueprint.model(seed, shared)


def _is_probe(this: Session) -> bool:
    if any(this.adaptation.upstream.trainable()):
        return False
    return probes_can_train(_model(this, this.recipe.seeds[0]).head, this.examples.preloaded)


def _run_probes(this: Session, todo: Sequence[Work]) -> None:
    train = this.recipe.train
    rates = train.lr_grid if train.tune == "lr" else [train.lr]
    assert this.examples.preloaded is not None
    means = this.examples.preloaded.to(this.accelerator.device)  # once for all
    models = [_model(this, work.seed) for work in todo]
    probes = []
    for work, model in zip(todo, models, strict=True):
        standardise_on(model, means[work.train])
        probes.append(
            Probe(
                model.head, means, this.examples.labels, work.train, work.dev, this.task, train,
                rates, work.seed, this.accelerator.device, work.place / PROGRESS, work.label,
            )
        )  # fmt: skip
    # Every process computes the same; the first one writes.
    quiet = None if this.accelerator.is_main_process else True
    for done in train_probes(probes, quiet):
        probe, work = probes[done], todo[done]
        chosen = choose(probe.trials, train.select)
        fit = probe.trials[chosen].fit()
        probe.install(chosen)
        started = time.monotonic()
        logits = probe.logits(work.test)
        tested = time.monotonic() - started
        tried, tuning = {}, 0.0
        if train.tune == "lr":
            scores = [0.0 if t.failure else t.selection.best[train.select] for t in probe.trials]
            tried = {f"{t.rate:g}": s for t, s in zip(probe.trials, scores, strict=True)}
            tuning = sum(t.seconds for t in probe.trials) - fit.seconds
        if this.accelerator.is_main_process:
            draw(work.place / "curves", fit.history)
        state = models[done].trainable_state()
        rate = probe.trials[chosen].rate
        _write(this, work, Outcome(fit, rate, tried, tuning, logits, tested, state))


# ---- everything else ------------------------------------------------------------------------


def _train(this: Session, work: Work) -> Outcome:
    lr, tuning = this.recipe.train.lr, 0.0
    tried: dict[str, float] = {}
    if this.recipe.train.tune == "lr":
        lr, tried, tuning = _choose_rate(this, work)
    trainer = _trainer(this, work, lr, work.label, work.place)
    fit = trainer.fit()
    started = time.monotonic()
    logits = trainer.logits(work.test)
    tested = time.monotonic() - started
    return Outcome(fit, lr, tried, tuning, logits, tested, trainer.plain.trainable_state())


def _trainer(this: Session, work: Work, lr: float, label: str, place: Path | None) -> Trainer:
    """A trainer of a newly initialised model; without a place it keeps nothing on disk."""
    model = _model(this, work.seed)
    ready = this.examples.preloaded
    standardise_on(model, None if ready is None else ready[work.train])
    return Trainer(
        model, this.examples, this.task, work.train, work.dev, this.recipe.train, lr, work.seed,
        this.accelerator,
        checkpoint=None if place is None else place / PROGRESS,
        label=label,
        curves=None if place is None else place / "curves",
    )  # fmt: skip


def _choose_rate(this: Session, work: Work) -> tuple[float, dict[str, float], float]:
    """The learning rate with the best dev metric of this fold, and what each one reached."""
    select = this.recipe.train.select
    started = time.monotonic()
    tried: dict[str, float] = {}
    for rate in this.recipe.train.lr_grid:
        try:
            fit = _trainer(this, work, rate, f"{work.label} lr {rate:g}", None).fit()
            tried[f"{rate:g}"] = fit.best[select]
        except Diverged:
            tried[f"{rate:g}"] = 0.0
        this.accelerator.free_memory()
    best = max(this.recipe.train.lr_grid, key=lambda r: tried[f"{r:g}"])
    return best, tried, time.monotonic() - started


# ---- what is written ------------------------------------------------------------------------


def _write(this: Session, work: Work, outcome: Outcome) -> None:
    """Checkpoint, predictions and result of a fold; its progress is no longer needed."""
    labels, logits = this.examples.labels[work.test], outcome.logits
    names = this.task.classes
    rows = [
        Prediction(
            id=u.id,
            fold=work.fold.name,
            seed=work.seed,
            speaker=u.speaker,
            truth=names[truth],
            prediction=names[best],
            scores=dict(zip(names, probabilities, strict=True)),
        )  # fmt: skip
        for u, truth, best, probabilities in zip(
            work.fold.test,
            labels.tolist(),
            logits.argmax(-1).tolist(),
            this.task.scores(logits).tolist(),
            strict=True,
        )  # fmt: skip
    ]
    fit = outcome.fit
    seconds = {"train": fit.seconds, "tune": outcome.tuning, "test": outcome.tested}
    result = {
        "fold": work.fold.name,
        "seed": work.seed,
        "metrics": this.task.metrics(logits, labels),
        "dev": {**fit.best, "tried": outcome.tried},
        "lr": outcome.lr,
        "steps": fit.steps,
        "best_step": fit.best_step,
        "history": fit.history,
        "hours": sum(this.examples.seconds[i] for i in work.train) / 3600,
        "utterances": {"train": len(work.train), "dev": len(work.dev), "test": len(work.test)},
        "seconds": seconds,
    }
    if this.accelerator.is_main_process:
        write_adapter(work.place, outcome.state, _adapter_config(this, work.fold, work.seed))
        write_fold(work.place, result, rows)
        (work.place / PROGRESS).unlink(missing_ok=True)


def _adapter_config(this: Session, fold: Fold, seed: int) -> dict[str, Any]:
    protocol = this.data.resolved.protocol
    return {
        "schema": 1,
        "upstream": {
            **dataclasses.asdict(this.recipe.upstream),
            "revision": this.upstream.revision,
            "weights": this.upstream.weights,
        },
        "method": this.adaptation.spec,
        "head": this.blueprint.head,
        "task": this.recipe.task,
        "classes": list(this.task.classes),
        "corpus": {"name": this.data.corpus.name, "licence": this.data.corpus.licence},
        "protocol": {"name": protocol.name, "hash": this.data.resolved.hash},
        "precision": this.recipe.train.precision,
        "fold": fold.name,
        "seed": seed,
    }
