"""What batches and rounding do to the frozen part, measured on a few clips for the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from emopeft.downstream.feature_cache.extracting import device_of
from emopeft.downstream.feature_cache.frozen import frozen_items
from emopeft.numerics import Numerics
from emopeft.upstream.base import FROM_WAVEFORM, Upstream


def batching_difference(
    upstream: Upstream, start: int, pooled: bool, wavs: Sequence[Tensor], numerics: Numerics
) -> float:
    """Relative difference |together - alone| / |alone| of what is kept of some waveforms."""
    with numerics.freezing(device_of(upstream)):
        together = frozen_items(upstream, start, pooled, wavs)
        alone = [frozen_items(upstream, start, pooled, [wav])[0] for wav in wavs]
    return _relative(
        (a, b)
        for ours, theirs in zip(together, alone, strict=True)
        for a, b in zip(ours, theirs, strict=True)
        if a is not None and b is not None
    )


@torch.no_grad()
def rounding_difference(
    upstream: Upstream,
    start: int,
    wavs: Sequence[Tensor],
    start_inputs: Sequence[Tensor],
    numerics: Numerics,
) -> float:
    """Relative error that a rounded start leaves in the time means of the states above it.

    Args:
        start_inputs: of each waveform what stands at ``start`` in the cache.
    """
    pairs = []
    with numerics.freezing(device_of(upstream)):
        for wav, start_input in zip(wavs, start_inputs, strict=True):
            exact = upstream.forward_from(FROM_WAVEFORM, [wav]).means()[:, max(start, 0) :]
            pairs.append((upstream.forward_from(start, [start_input]).means(), exact))
    return _relative(pairs)


def _relative(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    wrong = right = 0.0
    for ours, exact in pairs:
        wrong += float((ours.float() - exact.float()).square().sum())
        right += float(exact.float().square().sum())
    return (wrong / right) ** 0.5 if right else 0.0
