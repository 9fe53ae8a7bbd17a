"""Augmentation: which views a training clip is given (the recipe's section ``augment``)."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

from emopeft.downstream.data.fold import Example
from emopeft.downstream.data.keys import AugmentKeys
from emopeft.downstream.views.base import CLEAN, Clip, Crowd, Drawing, View, parse_view
from emopeft.errors import UserError

LIVE = "live"
MOST = 100  # views that are kept of a clip


def check_augment(keys: AugmentKeys) -> None:
    """Raises UserError naming the key that does not fit."""
    alternatives(keys.apply)
    if keys.views.strip() == LIVE:
        return
    if not keys.views.isdecimal() or not 1 <= int(keys.views) <= MOST:
        raise UserError(
            f"augment.views = {keys.views[:40]} must be a whole number from 1 to {MOST}, or {LIVE}"
        )


@functools.cache
def alternatives(apply: str) -> tuple[View, ...]:
    """The views of ``augment.apply``, of which each clip gets one; raises UserError."""
    if not apply.strip():
        return ()
    try:
        views = tuple(parse_view(text) for text in apply.split("|"))
    except UserError as error:
        raise UserError(f"augment.apply: {error}") from None
    if View() in views:
        raise UserError(
            f"augment.apply holds {CLEAN}, which is drawn beside the views; leave it out"
        )
    return views


def drawing_of(
    keys: AugmentKeys, example: Example, audio: str, number: int, crowd: Crowd | None
) -> Drawing:
    """The view of this number of a training clip, over the one that its stage names.

    The alternatives take turns, beginning with one that the clip's audio decides.

    Args:
        audio: digest of its decoded audio. crowd: of its training part.
    """
    views = alternatives(keys.apply)
    first = int.from_bytes(hashlib.sha256(audio.encode()).digest()[:8], "big")
    view = views[(first + number) % len(views)]
    if example.view != CLEAN:
        view = View((*parse_view(example.view).transforms, *view.transforms))
    return Drawing(view, Clip(audio, example.utterance.speaker_uid, crowd), number)


def augment_identity(keys: AugmentKeys) -> dict[str, Any]:
    """What decides a result, as key "augment"; nothing where there is none."""
    views = alternatives(keys.apply)
    if not views:
        return {}
    # A library's version decides as little here as torch's; the key of what is kept has it.
    told = [
        [{name: of for name, of in t.items() if name != "library"} for t in view.described]
        for view in views
    ]
    return {"augment": {"apply": told, "views": keys.views}}


def augment_name(said: dict[str, Any]) -> str:
    """How tables show an identity's "augment": ``4 views of noise:snr=5..20 | pitch``."""
    shown = []
    for view in said["apply"]:
        parts = []
        for transform in view:
            options = ",".join(f"{k}={v}" for k, v in transform["options"].items())
            parts.append(transform["name"] + (f":{options}" if options else ""))
        shown.append("+".join(parts))
    return f"{said['views']} views of {' | '.join(shown)}"
