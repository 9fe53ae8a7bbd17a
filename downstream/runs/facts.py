"""Every fact about how a fold was trained, and what rebuilds its model."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from emopeft import __version__
from emopeft.downstream.data.augment import augment_identity
from emopeft.downstream.data.fold import Example, Fold, Stage
from emopeft.downstream.data.recipe import shipped
from emopeft.downstream.data.transfer import has_domains
from emopeft.downstream.feature_cache.excerpts import spans
from emopeft.downstream.feature_cache.kept_states import ProbeResult
from emopeft.downstream.models.counting import method_parts, parameter_counts
from emopeft.downstream.runs.identity import clips_identity, told, transfer_facts
from emopeft.downstream.runs.origin import origin_facts
from emopeft.downstream.runs.provenance import code_version, device_facts, package_versions
from emopeft.downstream.runs.session import Session, Setup
from emopeft.downstream.runs.stages import keys_of
from emopeft.downstream.runs.strategies import stages_of
from emopeft.downstream.runs.work import Outcome, StageOutcome, Work


def last_stage(work: Work, outcome: Outcome) -> Stage:
    """The plan's stage that was trained last."""
    return {stage.name: stage for stage in work.fold.stages}[list(outcome.stages)[-1]]


def fold_facts(
    session: Session, work: Work, outcome: Outcome | None, share: float
) -> dict[str, Any]:
    """All of `FoldFacts` but what finished and failed folds differ in.

    Args:
        outcome: None of a failed fold.
    """
    stages = outcome.stages if outcome else {}
    own = [stage for stage in stages.values() if not stage.shared]
    setup = _setup(session, last_stage(work, outcome) if outcome else work.fold.stages[-1])
    head = setup.blueprint.model(session.recipe.seeds[0], setup.adaptation).head
    recipe, fold = session.recipe, work.fold
    train = {e.key: e for s in fold.stages for e in s.train}
    return {
        "schema": 2,
        "emopeft": __version__,
        "run": session.folder.name,
        "fold": fold.name,
        "seed": work.seed,
        "seeds": list(recipe.seeds),
        "identity": session.identity,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": session.command,
        "plan": _plan(session),
        "stages": [
            stage.head()
            | {"result": _stage(session, work, stage, stages[n]) if n in stages else None}
            for stage in fold.stages
            for n in [stage.name]
        ],
        "task": session.task.describe(),
        "corpora": _corpora(session),
        "upstream": _upstream(session),
        "method": {
            "spec": setup.adaptation.spec,
            "asked": recipe.method,
            "parts": method_parts(setup.adaptation, head),
        },
        "head": setup.blueprint.head,
        "parameters": parameter_counts(setup.adaptation, head),
        "train": told(recipe.train),
        "numerics": session.numerics.describe(session.accelerator.device)
        | {"threads": torch.get_num_threads()},
        "recipe": recipe_facts(session.recipe_file),
        "device": device_facts(session.accelerator),
        "packages": package_versions(),
        "code": code_version(),
        "seconds": {name: s * share for name, s in session.seconds.items()}
        | {
            "tune": sum(s.tuning for s in own),
            "train": sum(s.fit.seconds for s in own),
            "test": 0.0,
        },
        "frozen_seconds": setup.examples.frozen_seconds() + _probes_frozen_seconds(session),
        "cache": setup.examples.facts() | {"bytes": setup.examples.stored_bytes()},
        "hours": sum(session.plan.seconds[e.uid] for e in train.values()) / 3600,
        "utterances": {
            "train": sum(len(s.train) for s in fold.stages),
            "dev": sum(len(s.dev) for s in fold.stages),
            "tests": {name: len(examples) for name, examples in fold.tests.items()},
        },
        "unscored": {name: len(examples) for name, examples in fold.unscored.items()} or None,
        **_clips(session, fold),
        **augment_identity(session.recipe.augment),
        **_transfer(session, work, outcome),
    }


def _transfer(session: Session, work: Work, outcome: Outcome | None) -> dict[str, Any]:
    """How the stages of a transfer were used, or what was gone on from; nothing for any other."""
    origin = origin_facts(session, work)
    if not has_domains([work.fold]) and origin is None:
        return {}
    shared = outcome is not None and any(s.shared for s in outcome.stages.values())
    facts = transfer_facts(session.recipe, session.task)
    return {"transfer": facts | {"origin": origin, "shared": shared, "moments": {}}}


def _clips(session: Session, fold: Fold) -> dict[str, Any]:
    """How longer clips were taken, and how many were longer; nothing where all were whole."""
    identity = clips_identity(session.recipe)
    if not identity:
        return {}
    whole = session.plan.seconds

    def cut(examples: Iterable[Example]) -> int:
        return sum(bool(spans(session.recipe.clips, whole[e.uid])) for e in examples)

    counts = {
        "train": sum(cut(s.train) for s in fold.stages),
        "dev": sum(cut(s.dev) for s in fold.stages),
        "tests": {name: cut(examples) for name, examples in fold.tests.items()},
    }
    return {"clips": identity["clips"] | {"cut": counts}}


def _before(session: Session) -> list[dict[str, Any]]:
    """The stage that another run took the place of."""
    begins = session.recipe.transfer.init_from is None
    return [] if begins else [{"name": "init_from", "method": None, "freeze": [], "keys": {}}]


def _setup(session: Session, stage: Stage) -> Setup:
    return session.setups[stage.method or session.recipe.method]


def _stage(session: Session, work: Work, stage: Stage, outcome: StageOutcome) -> dict[str, Any]:
    fit = outcome.fit
    trained = stages_of(session.recipe.transfer, work.fold, session.task, work.seed)
    stage = {s.name: s for s in trained}[stage.name]  # with all that it was trained on
    hours = sum(session.examples.seconds[i] for i in session.indices(stage.train)) / 3600
    batch = keys_of(session, work.fold, stage).batch_size
    epochs = fit.steps * batch / len(stage.train)
    return {
        "steps": fit.steps,
        "best_step": fit.best_step,
        "lr": outcome.lr,
        "tried": outcome.tried,
        "history": fit.history,
        "dev": fit.best,
        "seconds": fit.seconds,
        "audio_hours": hours * epochs,
    }


def probe_facts(session: Session, result: ProbeResult) -> dict[str, Any]:
    return result.model_dump() | {"frozen_seconds": _probes_frozen_seconds(session)}


def _probes_frozen_seconds(session: Session) -> float:
    return 0.0 if session.frozen is None else session.frozen.examples.frozen_seconds()


def _plan(session: Session) -> dict[str, Any]:
    plan, protocol = session.plan, session.plan.protocol
    return {
        "protocol": protocol.name,
        "version": protocol.version,
        "description": protocol.description,
        "source": protocol.source,
        "hash": plan.hash,
        "audio_hash": plan.audio_hash,
        "folds": {
            fold.name: {"hash": plan.fold_hash(fold), "audio": plan.fold_audio_hash(fold)}
            for fold in plan.folds
        },
        "tests": list(plan.folds[0].tests),
        "complete": plan.complete,
        "missing": list(plan.missing),
        "dropped": dict(plan.dropped),
        "overlap": list(protocol.speaker_overlap),
        "unknown_speakers": protocol.unknown_speakers,
        "duplicates": [list(group) for group in plan.duplicates],
        "warnings": list(plan.warnings),
    }


def _corpora(session: Session) -> list[dict[str, Any]]:
    rows = []
    for corpus in session.data.corpora:
        uids = {e.uid for e in session.plan.examples() if e.utterance.corpus == corpus.name}
        hours = sum(session.plan.seconds[uid] for uid in uids) / 3600
        rows.append(
            {"name": corpus.name, "title": corpus.title, "licence": corpus.licence,
             "utterances": len(uids), "hours": hours}
        )  # fmt: skip
    return rows


def _upstream(session: Session) -> dict[str, Any]:
    upstream, keys = session.upstream, session.recipe.upstream
    return {
        "name": keys.name,
        "source": public_source(upstream.source, keys.path),
        "local": keys.path is not None,
        "loader": upstream.loader,
        "revision": upstream.revision,
        "licence": upstream.licence,
        "weights": upstream.weights or None,
        "options": upstream.options,
        "code": upstream.code,
        "parameters": upstream.parameter_count,
        "note": upstream.note,
    }


def public_source(source: str, path: str | None) -> str | None:
    """Where weights are from, without the folders of this machine."""
    if path is not None:
        return f"local:{Path(path).resolve().name}"
    return source or None


def recipe_facts(place: Path | None) -> dict[str, Any]:
    """A recipe file by its name; one of ours by its folder too: ``lashkarashvili2024/lora``."""
    if place is None:
        return {"name": None, "file": None}
    ours = shipped("").resolve()
    path = place.resolve()
    name = path.relative_to(ours).with_suffix("").as_posix() if ours in path.parents else path.stem
    return {"name": name, "file": path.name}


def adapter_config(session: Session, work: Work, last: Stage) -> dict[str, Any]:
    """What rebuilds the model: adapter.json. ``last``: the stage whose method it has."""
    setup = _setup(session, last)
    upstream, protocol = session.upstream, session.plan.protocol
    return {
        "schema": 2,
        "upstream": {
            **dataclasses.asdict(session.recipe.upstream),
            "revision": upstream.revision,
            "weights": upstream.weights,
            "loader": upstream.loader,
            "options": upstream.options,
            "code": upstream.code,
        },
        "method": setup.adaptation.recorded(),
        "head": setup.blueprint.head,
        "task": session.task.describe(),
        "corpora": [{"name": c.name, "licence": c.licence} for c in session.data.corpora],
        "protocol": {
            "name": protocol.name, "version": protocol.version, "hash": session.plan.hash
        },
        "fold": work.fold.name,
        "seed": work.seed,
        "numerics": session.numerics.describe(session.accelerator.device),
        "stages": [*_before(session), *work.fold.heads()],
        "clips": dataclasses.asdict(session.recipe.clips),
    }  # fmt: skip
