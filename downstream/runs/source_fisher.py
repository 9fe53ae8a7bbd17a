"""The Fisher information where a source stage ended (transfer.penalty=ewc), computed once.

It is kept beside the stage (feature_cache/kept_states.py) by the stage's end itself and by the
clips, for all folds, strengths and freezing variants that share both.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save
from torch import Tensor

from emopeft.downstream.feature_cache.kept_states import FISHERS, FisherResult
from emopeft.downstream.runs.identity import own_key
from emopeft.downstream.runs.keeping import read_or_make
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.work import Work
from emopeft.downstream.training.anchors import fisher
from emopeft.files import digest

logger = logging.getLogger(__name__)


def source_fisher(session: Session, work: Work, end: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Per parameter that trained the diagonal of the Fisher information of the source's training
    part, on the CPU or the device.

    Args:
        end: the kept state that the source stage ended with.
    """
    source = work.fold.stages[0]
    method = source.method or session.recipe.method
    setup = session.setups[method]
    model = setup.model(work.seed)
    model.load_kept_state(end, later_stage=True)
    own = save({name: t.detach().cpu().contiguous() for name, t in end.items()})
    rows = own_key(session.plan, source, work.seed)
    which = digest({"rows": rows, "end": hashlib.sha256(own).hexdigest()})
    like = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def make() -> tuple[dict[str, Tensor], FisherResult]:
        started = time.monotonic()
        indices = session.indices(source.train)
        weights = fisher(
            model.to(session.accelerator.device), setup.examples, indices, session.task,
            session.accelerator, work.label,
        )  # fmt: skip
        seconds = time.monotonic() - started
        logger.info("%s: Fisher information in %.0f s", work.label, seconds)
        return weights, FisherResult(utterances=len(indices), seconds=seconds)

    return read_or_make(session, FISHERS, _key(session, method), which, like, make)[0]


def _key(session: Session, method: str) -> dict[str, Any]:
    """What decides it beside the stage's end and its utterances."""
    identity = session.identity
    names = ("task", "loss", "upstream", "numerics", "cache", "clips")
    return {
        **{name: identity[name] for name in names if name in identity},
        "method": identity["methods"].get(method, identity["methods"]["run"]),
        "head": session.setups[method].blueprint.head,
        "fisher": 1,
    }
