"""Whether views act: a transformation that changes a waveform must change what an encoder makes of
it, or training with it would seem to say something."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.feature_cache.excerpts import Excerpt
from emopeft.downstream.feature_cache.extracting import device_of
from emopeft.downstream.views.base import Between, Drawing, Samples, Transform, View
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from emopeft.upstream.base import SAMPLE_RATE, Upstream

LEAST = 1e-3  # relative change of the time means of the states that a view has to make


def check_views(upstream: Upstream, excerpts: Sequence[Excerpt], numerics: Numerics) -> None:
    """Try each transformation that occurs, by itself, on the first clip that it changes.

    Raises:
        UserError: it changes the waveform, and nothing of what the upstream gives.
    """
    found: dict[str, tuple[Transform, Excerpt]] = {}
    for excerpt in excerpts:
        for transform in excerpt.drawing.view.transforms if excerpt.drawing else ():
            found.setdefault(str(transform), (transform, excerpt))
    for transform, excerpt in found.values():
        assert excerpt.drawing is not None
        before = decode(excerpt.path, SAMPLE_RATE)
        clip = excerpt.drawing.clip
        after = Drawing(View((_strongest(transform),)), clip).of(before)
        if len(after) == len(before) and not np.any(after != before):
            continue
        if _change(upstream, before, after, numerics) < LEAST:
            raise UserError(
                f"the view {transform} changes nothing that {upstream.name} sees, whose front end "
                "takes it out again; leave it out"
            )


def _strongest(transform: Transform) -> Transform:
    """With the larger end, in size, of each range."""
    values = {
        name: Between(of.value, of.value)
        for name, of in vars(transform).items()
        if isinstance(of, Between)
    }
    return dataclasses.replace(transform, **values)  # type: ignore[type-var]


@torch.inference_mode()
def _change(upstream: Upstream, before: Samples, after: Samples, numerics: Numerics) -> float:
    """The largest relative change of the time means of a state."""
    device = device_of(upstream)
    with numerics.freezing(device):
        one, other = (
            upstream.forward([torch.from_numpy(wav).to(device)]).means()[0].double()
            for wav in (before, after)
        )
    scale = one.norm(dim=-1).clamp_min(1e-12)
    return float(((one - other).norm(dim=-1) / scale).max())
