"""The one error a user is meant to see, and how unknown names are answered."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one sentence naming the file or key and the way out; exit status 2.

    Raised anywhere, caught once, in ``emopeft.commands.door.guarded``.
    """


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like ``name``, best first (empty when none is near)."""
    by_lower = {k.lower(): k for k in known}
    hits = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.5)
    hits += [k for k in by_lower if k not in hits and name and k.startswith(name.lower())]
    return [by_lower[h] for h in hits[:count]]


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not there, with the nearest ones that are."""
    known = list(known)
    near = nearest(name, known)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    shown = name if name.isprintable() else ascii(name)[1:-1]
    return UserError(f"unknown {kind} '{shown}': {hint}")
