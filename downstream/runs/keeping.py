"""What is made once for all folds and runs that share a cache: read as it is kept, or made.

Of several processes that want the same, one makes it while the others wait; the ranks of one run
all take part in the making.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import Tensor

from emopeft.downstream.feature_cache.kept_states import KeptStates, Kind
from emopeft.downstream.runs.session import Session
from emopeft.errors import UserError
from emopeft.files import cache_root

logger = logging.getLogger(__name__)


def read_or_make(
    session: Session,
    kind: Kind,
    key: Mapping[str, Any],
    which: str,
    like: Mapping[str, Tensor],
    make: Callable[[], tuple[dict[str, Tensor], Any]],
) -> tuple[dict[str, Tensor], Any, bool]:
    """Tensors, how they came about, and whether they were there already.

    Args:
        kind, key: of `KeptStates`. which: of them. like: tensors of the names and shapes wanted.
        make: gives the tensors and the facts beside them.
    """
    cache, accelerator = session.recipe.cache, session.accelerator
    limit = None if cache.limit is None else cache.limit * 1e9
    kept = KeptStates(cache_root(cache.dir), kind, key, session.upstream.name, limit)
    with contextlib.ExitStack() as stack:
        found: list[Any] = [None]
        if accelerator.is_main_process:
            stack.enter_context(kept.making(which))
            found = [kept.read(which, like)]
        if accelerator.num_processes > 1:
            broadcast_object_list(found)
        if found[0] is not None:
            return *found[0], True
        state, facts = make()
        if accelerator.is_main_process:
            try:
                kept.write(which, state, facts)
            except UserError as error:  # no room: others make it again
                logger.warning("the %s is not kept for others: %s", kind.title, error)
    return state, facts, False
