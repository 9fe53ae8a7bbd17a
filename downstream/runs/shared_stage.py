"""The source's stage of a transfer, trained once for all folds, strategies and runs that share it.

It is kept by all that decides it (feature_cache/kept_states.py): where folds of the target differ
and the source's stage does not, where only what follows it differs (what is frozen, a penalty),
and where it stands alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from emopeft.downstream.data.fold import Stage
from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.kept_states import STAGES, StageResult
from emopeft.downstream.records.values import without_nan
from emopeft.downstream.runs.identity import deciding, own_key, start_identity
from emopeft.downstream.runs.keeping import read_or_make
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.work import StageOutcome, Start, Work
from emopeft.downstream.training.selection import Fit

logger = logging.getLogger(__name__)


def shared_stage(
    session: Session,
    work: Work,
    stage: Stage,
    start: Start | None,
    keys: TrainKeys,
    train: Callable[[], StageOutcome],
) -> StageOutcome:
    """The stage's outcome, read as it is kept, else made by ``train`` and kept.

    Args:
        start: the probe that it starts from. keys: of its training.
    """
    setup = session.setups[stage.method or session.recipe.method]
    like = setup.model(work.seed, None if start is None else start.state).kept_state()
    made: list[StageOutcome] = []

    def make() -> tuple[dict[str, Any], StageResult]:
        made.append(train())
        return made[0].state, _result(made[0])

    state, result, read = read_or_make(
        session, STAGES, stage_key(session, stage, keys),
        own_key(session.plan, stage, work.seed, keys), like, make,
    )  # fmt: skip
    if not read:
        return made[0]
    logger.info("%s: the source's stage is taken as it was trained before", work.label)
    return _outcome(state, result)


def stage_key(session: Session, stage: Stage, keys: TrainKeys) -> dict[str, Any]:
    """What decides the stage beside its utterances and seed."""
    identity, method = session.identity, stage.method or session.recipe.method
    started = dataclasses.replace(session.recipe, train=keys)
    methods = identity["methods"]
    return {
        **{name: identity[name] for name in ("task", "loss", "upstream", "numerics", "cache")},
        **{name: identity[name] for name in ("clips", "augment") if name in identity},
        "method": methods.get(method, methods["run"]),
        "head": session.setups[method].blueprint.head | start_identity(started, session.task),
        "train": deciding(keys, session.task),
        "freeze": sorted(stage.freeze),
    }


def _result(outcome: StageOutcome) -> StageResult:
    facts = without_nan({**vars(outcome.fit), **{name: getattr(outcome, name) for name in _BESIDE}})
    return StageResult(**facts)


def _outcome(state: dict[str, Any], result: Any) -> StageOutcome:
    facts = result.model_dump()
    beside = {name: facts.pop(name) for name in _BESIDE}
    return StageOutcome(Fit(**facts), state=state, shared=True, **beside)


_BESIDE = ("lr", "tried", "tuning")
