"""A head from its options."""

from __future__ import annotations

from typing import Any

from emopeft.downstream.heads.base import HEADS, Head, HeadOptions
from emopeft.downstream.heads.separate import SeparateHeads


def make_head(name: str, **options: Any) -> Head:
    """A head by name, newly initialised from torch's global generator.

    Args:
        options: the other fields of `HeadOptions`.

    Raises:
        UserError: an unknown name, or a size or rate that no head can have.
    """
    chosen = HeadOptions(name, **options)
    return SeparateHeads(chosen) if chosen.groups else HEADS[name](chosen)
