"""The battery every upstream passes: DESIGN.md, "What must hold", points 1 and 2, and more.

A new family is one row in tests/tiny.py. What must hold of the states holds on every device there
is; `test_parity` holds them against transformers on the CPU.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM, Upstream
from emopeft.upstream.catalogue import load
from emopeft.upstream.demo import fill
from emopeft.upstream.states import HiddenStates, mask_of
from tests.tiny import TINY, tiny
from tests.upstream.upstreams import (
    ALL,
    REAL,
    allowed,
    assert_same,
    clips,
    every,
    furthest,
    get,
    on,
)


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices; counts how often the host has to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.waits += 1
            return False  # what the padding mask asks: whether all frames are valid
        tensors = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        places = {x.device for x in tensors if x.dim() > 0}
        if func not in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            assert len(places) <= 1, f"{func} on {places}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*TINY, "demo", "fbank"])
def test_all_lies_on_the_weights_device_and_waits_once_per_batch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU needs, seen without one: the weights are on another device, values nowhere."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    upstream = copy.deepcopy(get(name)).to("meta")
    assert upstream.device == torch.device("meta")
    for start in (FROM_WAVEFORM, FROM_FEATURES, *range(upstream.num_blocks + 1)):
        with OneDevice() as mode:
            kept, below = upstream.prefix(start, clips())
            assert mode.waits <= 1
            states = [below]
            if start < upstream.num_blocks:
                states.append(upstream.forward_from(start, kept))
        for one in states:
            assert {x.device.type for x in [*one.layers, one.lengths]} == {"meta"}


def test_frames_put_in_front_of_blocks_do_not_wait_once_per_block() -> None:
    upstream = copy.deepcopy(get("hubert_base_like"))

    class Longer(torch.nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            return torch.cat([frames.new_zeros(len(frames), 2, frames.shape[2]), frames], 1)

    for modules in upstream.before_block:
        modules.append(Longer())
    expected = upstream(clips()).layers[-1]
    upstream.to("meta")
    with OneDevice() as mode:
        assert upstream(clips()).layers[-1].shape == expected.shape
    assert mode.waits == 1


# ---- what must hold for all ----------------------------------------------------------------


@every
def test_alone_or_in_a_padded_batch(name: str, device: torch.device) -> None:
    upstream = on(name, device)
    # Rounding that Whisper's final norm magnifies: in float64 the difference is 4e-15.
    tolerance = allowed(device, 3e-5 if name in REAL else 1e-5)
    together = upstream(clips())
    for i, wav in enumerate(clips()):
        alone = upstream([wav])
        n = int(alone.lengths[0])
        assert n == int(together.lengths[i]) == upstream.frames_of(len(wav))
        for a, b in zip(alone.layers, together.layers, strict=True):
            assert furthest(b[i, :n], a[0]) <= tolerance


@pytest.mark.parametrize(
    "name", [n for n in ALL if n.split("_")[0] not in ("moonshine", "fbank", "egemaps")]
)
def test_clips_of_different_lengths_in_one_call(name: str, device: torch.device) -> None:
    """The front end of accelerators, where it is exact; elsewhere clips stay apart."""
    upstream: Any = copy.deepcopy(get(name)).to(device)
    upstream.one_batch = False
    apart = upstream(clips())
    upstream.one_batch = True
    assert_same(upstream(clips()), apart, allowed(device, 3e-5 if name in REAL else 1e-5))
    upstream.one_batch = None
    if device.type == "cpu":
        assert_same(upstream(clips()), apart, 0.0)


@pytest.mark.parametrize(
    ("name", "conv", "position"),
    [
        ("hubert_large_like", 1, 1),
        ("hubert_base_like", 3, 1),  # a group norm over the clip (trap 6)
        ("mhubert_like", 3, 3),  # a batch norm before the zeros of the position convolution
        ("data2vec", 1, 3),  # five position convolutions
        ("whisper", 1, None),
    ],
)
def test_how_often_the_front_end_runs(name: str, conv: int, position: int | None) -> None:
    upstream: Any = copy.deepcopy(get(name))
    upstream.one_batch = True
    calls = {"conv": 0, "position": 0}

    def count(what: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda *_: calls.update({what: calls[what] + 1}))

    count("conv", next(m for m in upstream.modules() if isinstance(m, torch.nn.Conv1d)))
    if position is not None:
        count("position", upstream.model.encoder.pos_conv_embed)
    upstream(clips())
    assert calls == {"conv": conv, "position": position or 0}


@every
def test_started_anywhere_the_states_are_the_same(name: str, device: torch.device) -> None:
    upstream = on(name, device)
    tolerance = allowed(device, 0.0)
    whole = upstream(clips())
    assert len(whole.layers) == upstream.num_blocks + 1
    assert whole.layers[0].shape[2] == upstream.width
    for start in (FROM_WAVEFORM, FROM_FEATURES, *range(upstream.num_blocks)):
        kept, below = upstream.prefix(start, clips())
        above = upstream.forward_from(start, kept)
        assert below.lengths.device == above.lengths.device == whole.lengths.device
        assert all(x.device.type == device.type for x in kept) or start == FROM_WAVEFORM
        assert_same(HiddenStates(below.layers + above.layers, above.lengths), whole, tolerance)
    kept, states = upstream.prefix(upstream.num_blocks, clips())
    assert kept == []
    assert_same(states, whole, tolerance)


@every
def test_deterministic_and_frozen(name: str, device: torch.device) -> None:
    upstream = on(name, device)
    assert_same(upstream(clips()), upstream(clips()), 0.0 if device.type == "cpu" else 1e-5)
    assert not upstream.training
    assert list(upstream.trainable()) == []
    assert upstream.first_change() == upstream.num_blocks
    assert not any(x.requires_grad for x in upstream(clips()).layers)
    # Batch normalisation keeps its statistics in train mode, too.
    upstream.train()
    assert not any(m.training for m in upstream.modules() if isinstance(m, torch.nn.BatchNorm1d))
    upstream.eval()


@every
def test_frames_and_the_shortest_clip(name: str) -> None:
    upstream = get(name)
    least = upstream.min_samples
    generator = torch.Generator().manual_seed(2)
    for samples in (least, least + 1, least + 319, 2000, 3839, 3840, 3841, 8000, 12345):
        states = upstream([0.1 * torch.randn(samples, generator=generator)])
        frames = states.layers[-1].shape[1]
        assert frames == int(states.lengths[0]) == upstream.frames_of(samples) >= 1
        assert all(bool(x.isfinite().all()) for x in states.layers)


@pytest.mark.parametrize("name", [n for n in ALL if n != "egemaps"])
def test_one_sample_less_is_too_short(name: str) -> None:
    upstream = get(name)
    short = torch.randn(upstream.min_samples - 1)
    if upstream.frames_of(len(short)) == 0:
        return
    with pytest.raises(RuntimeError):  # Whisper's spectrogram cannot mirror its ends
        upstream([short])


@pytest.mark.parametrize("name", [*TINY, "demo", "fbank", "whisper_tiny.en"])
def test_weights_hash(name: str) -> None:
    from emopeft.upstream.identity import weights_hash

    upstream = get(name)
    assert len(upstream.weights) == 64
    assert weights_hash(upstream) == upstream.weights
    tensor = next(iter(upstream.state_dict().values()))
    before = tensor.view(-1)[0].clone()
    tensor.view(-1)[0] += 1.0
    assert weights_hash(upstream) != upstream.weights
    tensor.view(-1)[0] = before
    assert weights_hash(upstream) == upstream.weights


@pytest.mark.parametrize("name", [*TINY, "demo", "moonshine_tiny"])
def test_roles_and_places_in_a_block(name: str) -> None:
    upstream = get(name)
    assert set(upstream.roles) == {"q", "k", "v", "o", "fc1", "fc2"}
    inside = upstream.width
    for i in range(upstream.num_blocks):
        block = upstream.blocks[i]
        for role in upstream.roles:
            linear = upstream.role(i, role)
            assert isinstance(linear, torch.nn.Linear)
            shape = {"fc1": linear.in_features, "fc2": linear.out_features}
            assert shape.get(role, linear.in_features) == inside
        assert upstream.attention is not None
        assert upstream.role(i, "q") in list(block.get_submodule(upstream.attention).modules())
        if upstream.feed_forward is not None:
            module = block.get_submodule(upstream.feed_forward)
            assert upstream.role(i, "fc1") in list(module.modules())
        norms = {n for n, m in block.named_modules() if isinstance(m, torch.nn.LayerNorm)}
        assert norms == set(upstream.norms)


@pytest.mark.parametrize("name", list(TINY))
def test_every_parameter_belongs_to_one_part_and_moves_the_states(name: str) -> None:
    upstream = tiny(name)
    parts = upstream.parts() | {f"block {i}": [b] for i, b in enumerate(upstream.blocks)}
    owners: dict[int, int] = {}
    for modules in parts.values():
        for parameter in {id(p) for m in modules for p in m.parameters()}:
            owners[parameter] = owners.get(parameter, 0) + 1
    outside = {
        n.rsplit(".", 2)[-2] if "embed_positions" in n else n.rsplit(".", 1)[-1]
        for n, p in upstream.named_parameters()
        if id(p) not in owners
    }
    assert outside <= {"masked_spec_embed", "embed_positions"}
    assert set(owners.values()) == {1}
    # Other weights in any of them change the last state.
    base = upstream(clips()).layers[-1]
    for modules in parts.values():
        for module in modules:
            before = {n: p.clone() for n, p in module.named_parameters()}
            fill(module, seed=5)
            assert furthest(upstream(clips()).layers[-1], base) > 1e-3
            module.load_state_dict(before, strict=False)


@pytest.mark.parametrize("name", list(TINY))
def test_training_starts_where_something_trains(name: str) -> None:
    upstream = tiny(name)
    parts = upstream.parts()
    last = upstream.num_blocks - 1

    def first(modules: list[torch.nn.Module]) -> int:
        upstream.requires_grad_(False)
        for module in modules:
            module.requires_grad_(True)
        return upstream.first_change()

    assert first(parts["extract"]) == FROM_WAVEFORM
    if parts["embed"]:
        assert first(parts["embed"]) == FROM_FEATURES
    assert [first([b]) for b in upstream.blocks] == list(range(upstream.num_blocks))
    if parts["finish"]:
        assert first(parts["finish"]) == last
    # A frozen front end is not back-propagated through, in train mode either (trap 4).
    first([upstream.blocks[last]])
    upstream.train()
    assert not any(x.requires_grad for x in upstream.extract(clips()))
    states = upstream(clips())
    assert not states.layers[last].requires_grad
    assert states.layers[-1].requires_grad


@pytest.mark.parametrize("name", list(TINY))
def test_bf16_autocast_stays_near(name: str, device: torch.device) -> None:
    upstream = on(name, device)
    exact = upstream(clips())
    with torch.autocast(device.type, torch.bfloat16):
        rough = upstream(clips())
    valid = mask_of(exact.lengths, exact.layers[0].shape[1])
    for a, b in zip(rough.layers, exact.layers, strict=True):
        assert furthest(a.float()[valid], b[valid]) < 0.06


@pytest.mark.parametrize("make", [lambda: load("demo"), lambda: load("s3prl:mfcc")])
def test_loading_leaves_the_random_states_alone(make: Callable[[], Upstream]) -> None:
    torch.manual_seed(3)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = make()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)
    torch.manual_seed(4)
    assert make().weights == one.weights


def test_the_demo_says_what_it_is() -> None:
    demo = load("demo")
    assert demo.note == "random weights, for the demo and tests only"
    assert demo.loader == "emopeft"
    # Changing them silently would make old demo results wrong.
    assert demo.weights.startswith("66dd532ac385")
    assert (demo.width, demo.num_blocks, demo.stride, demo.min_samples) == (64, 2, 320, 400)
