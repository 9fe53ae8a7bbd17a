"""The upstreams that the batteries go through, the clips they get, and how states are compared."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor

from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import load
from emopeft.upstream.states import HiddenStates, mask_of
from tests.shared import SHARED
from tests.tiny import TINY

REAL = {
    "whisper_tiny.en": "whisper-tiny.en-encoder",
    "whisper_base": "whisper-base-encoder",
    "moonshine_tiny": "moonshine-tiny-encoder",
}
WEIGHTLESS = ["demo", "fbank", "egemaps"]


@functools.cache
def get(name: str) -> Upstream:
    if name in REAL:
        if SHARED is None:
            pytest.skip("no real encoders: set EMOPEFT_SHARED or put them at ../shared")
        return load(name, SHARED / "models" / REAL[name])
    return TINY[name]() if name in TINY else load(name)


@functools.cache
def on(name: str, device: torch.device) -> Upstream:
    """The upstream of this name, moved."""
    upstream = get(name)
    return upstream if device.type == "cpu" else copy.deepcopy(upstream).to(device)


def allowed(device: torch.device, on_cpu: float) -> float:
    """How far states may be apart, relative to the largest.

    Other devices add in another order, and in another one for every shape; in float32 without TF32
    that is some 1e-6 a layer, which final norms magnify.
    """
    return on_cpu if device.type == "cpu" else max(on_cpu, 5e-4)


@functools.cache
def clips() -> list[Tensor]:
    """Four clips, two of the same length, none a multiple of the stride."""
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(n, generator=generator) + 0.02 for n in (16000, 9001, 16000, 4321)]


ALL = [*TINY, *WEIGHTLESS, *REAL]
every = pytest.mark.parametrize("name", ALL)


def furthest(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    ours, theirs = ours.cpu(), theirs.cpu()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_same(ours: HiddenStates, theirs: HiddenStates, tolerance: float = 0.0) -> None:
    """The same states on the valid frames."""
    assert len(ours.layers) == len(theirs.layers)
    assert torch.equal(ours.lengths, theirs.lengths)
    assert {x.device for x in [*ours.layers, ours.lengths]} == {theirs.lengths.device}
    valid = mask_of(theirs.lengths, theirs.layers[0].shape[1])
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        assert furthest(a[valid], b[valid]) <= tolerance
