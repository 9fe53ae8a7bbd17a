"""Methods on s3prl's wav2vec2 and HuBERT: live where its layers are recognised, else refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from emopeft.errors import UserError
from peft_modules.apply import adapt
from peft_modules.liveness import changed_output, is_key_bias
from tests.peft_modules.cases import SMALL, clips
from tests.upstream.test_s3prl import checkpoint
from upstream.base import FROM_WAVEFORM, Upstream
from upstream.catalogue import load
from upstream.s3prl_collection import CollectionUpstream

pytest.importorskip("s3prl")


@pytest.fixture(scope="module", params=["wav2vec2", "hubert"])
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    file = checkpoint(request.param, tmp_path_factory.mktemp("s3prl") / "model.pt")
    return load(f"s3prl:{request.param}_custom", file)


METHODS = ["lora", "lora@peft-ser", "ba", "ba:attention=true", "wg", "adapter",
           "adapter:mode=parallel", "bitfit", "layernorm", "partial:1", "full", "lora+ba+ws+wg",
           "dora", "ia3", "loha", "vera", "oft"]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_live(upstream: Upstream, method: str) -> None:
    method = SMALL.get(method, method)
    torch.manual_seed(0)
    adaptation = adapt(copy.deepcopy(upstream), method)
    patched, wavs = adaptation.upstream, clips()[:1]
    assert adaptation.start == FROM_WAVEFORM and adaptation.parts
    with torch.no_grad():
        reference, found = upstream(wavs).layers, patched(wavs).layers
    same = all(torch.equal(a, b) for a, b in zip(reference, found, strict=True))
    assert same == all(m.identity for m in adaptation.methods)
    with torch.no_grad():
        for _, parameter in patched.trainable():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    for name, parameter in list(patched.trainable())[:6]:
        assert is_key_bias(patched, name) or changed_output(patched, parameter, wavs) > 0, name
    if all(m.adds for m in adaptation.methods):
        adaptation.remove()
        with torch.no_grad():
            found = patched(wavs).layers
        assert all(torch.equal(a, b) for a, b in zip(reference, found, strict=True))


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_refused_because_it_runs_as_a_whole(upstream: Upstream, method: str) -> None:
    with pytest.raises(UserError, match="runs block by block"):
        adapt(copy.deepcopy(upstream), method)


def test_cnn_adapter_is_refused(upstream: Upstream) -> None:
    with pytest.raises(UserError, match="convolutional front end"):
        adapt(copy.deepcopy(upstream), "cnn_adapter")


def test_without_the_switch_lora_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What s3prl does by itself (PROTOCOLS.md, trap 1)."""
    monkeypatch.setattr(CollectionUpstream, "_switch_projections_on", lambda self: None)
    raw = load("s3prl:wav2vec2_custom", checkpoint("wav2vec2", tmp_path / "model.pt"))
    with pytest.raises(UserError, match=r"16 of the trainable tensors.*self_attn\.[kvq]_proj"):
        adapt(raw, "lora")
    raw = load("s3prl:wav2vec2_custom", tmp_path / "model.pt")
    adapt(raw, "lora:targets=fc1+fc2")


def test_unrecognised_layers_are_refused() -> None:
    with pytest.raises(UserError, match="not recognised; use -p none or -p full"):
        adapt(load("s3prl:mel"), "lora")


def test_copies_do_not_share_their_states(upstream: Upstream) -> None:
    """s3prl's hooks hold on to the expert they were made for; a copy needs its own."""
    copied = copy.deepcopy(upstream)
    with torch.no_grad():
        before = upstream(clips()[:1]).layers
        for parameter in copied.parameters():
            parameter.mul_(1.1)
        changed, after = copied(clips()[:1]).layers, upstream(clips()[:1]).layers
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.allclose(changed[-1], before[-1])
