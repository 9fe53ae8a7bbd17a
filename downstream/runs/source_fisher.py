"""The Fisher information where a source stage ended (transfer.penalty=ewc), computed once.

It is kept beside the stage (feature_cache/kept_states.py) by the stage's end itself and by the
clips, for all folds, strengths and freezing variants that share both.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from safetensors.torch import save
from torch import Tensor

from emopeft.downstream.feature_cache.kept_states import FISHERS, FisherResult, KeptStates
from emopeft.downstream.runs.identity import own_key
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.work import Work
from emopeft.downstream.training.anchors import fisher
from emopeft.errors import UserError
from emopeft.files import cache_root, digest

logger = logging.getLogger(__name__)


def source_fisher(session: Session, work: Work, end: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Per parameter that trained the diagonal of the Fisher information of the source's training
    part, on the CPU or the device.

    Args:
        end: the kept state that the source stage ended with.
    """
    cache, accelerator = session.recipe.cache, session.accelerator
    source = work.fold.stages[0]
    method = source.method or session.recipe.method
    setup = session.setups[method]
    model = setup.model(work.seed)
    model.load_kept_state(end, later_stage=True)
    kept = KeptStates(
        cache_root(cache.dir), FISHERS, _key(session, method), session.upstream.name,
        None if cache.limit is None else cache.limit * 1e9,
    )  # fmt: skip
    own = save({name: t.detach().cpu().contiguous() for name, t in end.items()})
    rows = own_key(session.plan, source, work.seed)
    which = digest({"rows": rows, "end": hashlib.sha256(own).hexdigest()})
    like = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with contextlib.ExitStack() as stack:
        found: list[Any] = [None]
        if accelerator.is_main_process:
            stack.enter_context(kept.making(which))
            found = [kept.read(which, like)]
        if accelerator.num_processes > 1:
            broadcast_object_list(found)
        if found[0] is not None:
            return found[0][0]
        started = time.monotonic()
        indices = session.indices(source.train)
        weights = fisher(
            model.to(accelerator.device), setup.examples, indices, session.task, accelerator,
            work.label,
        )  # fmt: skip
        if accelerator.is_main_process:
            seconds = time.monotonic() - started
            logger.info("%s: Fisher information in %.0f s", work.label, seconds)
            try:
                kept.write(which, weights, FisherResult(utterances=len(indices), seconds=seconds))
            except UserError as error:  # no room: it is computed again
                logger.warning("the Fisher information is not kept: %s", error)
    return weights


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
