"""Where a fold's head starts: at the fold's own frozen probe (head.init=probe).

Linear probing, then fine-tuning (Kumar et al. 2022, arXiv 2202.10054): under a random head the
first steps distort what the encoder knows. A probe is trained once per fold and seed, as
``-p none`` would train it, and kept for all methods (feature_cache/kept_states.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from emopeft.downstream.data.fold import Fold, Stage
from emopeft.downstream.data.prepare import protocol_name
from emopeft.downstream.data.recipe import probe_keys
from emopeft.downstream.data.resolve import stage_keys
from emopeft.downstream.data.transfer import TransferKeys
from emopeft.downstream.feature_cache.kept_states import PROBES, ProbeResult
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.model import IN_HEAD
from emopeft.downstream.runs.identity import clips_identity, deciding, own_key
from emopeft.downstream.runs.keeping import read_or_make
from emopeft.downstream.runs.probing import train_folds
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.stages import train_fold
from emopeft.downstream.runs.strategies import stages_of
from emopeft.downstream.runs.work import PROBE, Outcome, Start, Work
from emopeft.downstream.training.probes import probes_can_train
from emopeft.downstream.training.selection import Diverged


def start_of(session: Session, work: Work) -> Start | None:
    """The frozen probe that a fold starts from, read or made; None: it starts at random.

    Raises Diverged where the probe's training did.
    """
    if session.frozen is None:
        return None
    frozen_session, frozen_work = _frozen_run(session, work)
    keys = frozen_session.recipe.train
    which = own_key(session.plan, frozen_work.fold.stages[0], work.seed, keys)
    like = make_head(**frozen_session.setup.blueprint.head).state_dict()
    state, result, _ = read_or_make(
        session, PROBES, shared_key(frozen_session), which, like,
        lambda: _made(frozen_session, frozen_work),
    )  # fmt: skip
    if session.accelerator.is_main_process:
        frozen_work.clear()
    return Start(state, result)


def _frozen_run(session: Session, work: Work) -> tuple[Session, Work]:
    """The fold's first stage as a run of its own that trains the head alone, without tests."""
    assert session.frozen is not None
    recipe, first = (
        session.recipe,
        stages_of(session.recipe.transfer, work.fold, session.task, work.seed)[0],
    )
    keys = recipe.train
    if first.keys:
        keys = stage_keys(recipe, first.keys, f"stage {first.name}", False)
    recipe = dataclasses.replace(
        recipe, method="none", train=probe_keys(protocol_name(recipe), keys),
        transfer=TransferKeys(),
    )  # fmt: skip
    # A method may say which states its head sees (ws).
    head = session.setups[first.method or session.recipe.method].blueprint.head
    blueprint = dataclasses.replace(session.frozen.blueprint, head=head)
    setup = dataclasses.replace(session.frozen, blueprint=blueprint)
    fold = Fold(f"{work.fold.name} (probe)", (Stage("train", first.train, first.dev),), {})
    return (
        dataclasses.replace(session, recipe=recipe, setups={"none": setup}, frozen=None),
        Work(fold, work.seed, work.place / PROBE),
    )


def _made(session: Session, work: Work) -> tuple[dict[str, Any], ProbeResult]:
    head = session.setup.model(work.seed).head
    try:
        if probes_can_train(head, session.examples.preloaded):
            ((_, outcome),) = train_folds([(session, work)])
            if isinstance(outcome, Diverged):
                raise outcome
        else:
            outcome = train_fold(session, work)
            session.accelerator.free_memory()
    except Diverged as error:
        why = str(error).partition(";")[0]  # what follows are keys of the run
        raise Diverged(
            f"the frozen probe that the head would start from diverged: {why}; set head.init=random"
        ) from error
    return _kept_of(outcome)


def _kept_of(outcome: Outcome) -> tuple[dict[str, Any], ProbeResult]:
    stage = outcome.last
    begin = f"{IN_HEAD}."
    state = {n.removeprefix(begin): t.cpu() for n, t in stage.state.items() if n.startswith(begin)}
    return state, ProbeResult(
        dev=stage.fit.best,
        lr=stage.lr,
        steps=stage.fit.steps,
        best_step=stage.fit.best_step,
        evaluations=len(stage.fit.history),
        seconds=stage.fit.seconds + stage.tuning,
    )


# ---- keys -----------------------------------------------------------------------------------


def shared_key(session: Session) -> dict[str, Any]:
    """What decides a probe beside its utterances and seed; the run's method has no part in it.

    Args:
        session: of the probe. The folder of its frozen part is named by the digest of all that
            decides that: weights, loader, options, code, numerics, format (`cache_key`).
    """
    setup = session.setup
    assert setup.examples.cache is not None
    numerics = session.numerics.describe(session.accelerator.device)
    if probes_can_train(setup.model(0).head, setup.examples.preloaded):
        numerics["precision"] = "fp32"  # whatever the run's is
    return {
        "frozen": setup.examples.cache.folder.name,
        "task": session.task.describe(),
        "loss": session.task.learning(),
        "head": setup.blueprint.head,
        "train": deciding(session.recipe.train, session.task),
        "numerics": numerics,
        **clips_identity(session.recipe),
    }
