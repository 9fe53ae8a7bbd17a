"""The methods against direct transcriptions of their equations, in double precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from emopeft.downstream.heads.base import Featurizer
from emopeft.peft_modules.adapter import Branch, Sequential
from emopeft.peft_modules.apply import adapt
from emopeft.peft_modules.ba import Bottleneck
from emopeft.peft_modules.prefix import Prefix
from emopeft.peft_modules.wg import Gate
from emopeft.upstream.base import FROM_FEATURES, Upstream
from emopeft.upstream.states import States
from tests.peft_modules.cases import base


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module: nn.Module) -> nn.Module:
    """In double precision, with random values everywhere."""
    module = module.double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=number + 1))
    return module


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_bottleneck_adapter() -> None:
    module, h = filled(Bottleneck(6, 3)), noise(2, 5, 6)
    v, b_v, u, b_u = module.parameters()
    assert v.shape == (3, 6) and u.shape == (6, 3)
    for b in range(2):
        for t in range(5):
            inner = [max(0.0, float(v[k] @ h[b, t] + b_v[k])) for k in range(3)]
            expected = h[b, t] + u @ torch.tensor(inner, dtype=torch.float64) + b_u
            assert close(module(h)[b, t], expected)


def test_weight_gate() -> None:
    module, h = filled(Gate(6)), noise(2, 5, 6)
    (g,) = module.parameters()
    assert close(module(h), h * (1 / (1 + torch.exp(-g))))
    fresh = Gate(6)(torch.ones(6))
    assert float(fresh[0]) == pytest.approx(0.731, abs=1e-3)  # PROTOCOLS.md: not the identity


def test_weighted_sum() -> None:
    featurizer = filled(Featurizer(4, "weighted_sum"))
    (w,) = featurizer.parameters()
    states = noise(2, 4, 7)
    weights = torch.exp(w) / torch.exp(w).sum()
    assert close(featurizer(states, 1), sum(weights[i] * states[:, i] for i in range(4)))


def test_feed_forward_adapter() -> None:
    x = noise(2, 5, 6)
    for kind in (Branch, Sequential):
        module = filled(kind(6, 3, 0.1, 0.1))
        w1, b1, w2, b2 = module.parameters()
        branch = 0.1 * (torch.clamp(x @ w1.T + b1, min=0) @ w2.T + b2)
        assert close(module(x), branch if kind is Branch else x + branch)


def test_lora() -> None:
    upstream = copy.deepcopy(base("hubert_base_like")[0])
    plain = copy.deepcopy(upstream.role(1, "q")).double()
    adapt(upstream, "lora:r=4,alpha=3")
    patched = filled(upstream.role(1, "q"))
    a, b = (
        patched.get_parameter("lora_A.default.weight"),
        patched.get_parameter("lora_B.default.weight"),
    )
    with torch.no_grad():
        w0 = patched.get_parameter("base_layer.weight")
        w0.copy_(plain.weight)
        patched.get_parameter("base_layer.bias").copy_(plain.bias)
        x = noise(3, 32)
        assert close(patched(x), x @ (w0 + 3 / 4 * b @ a).T + plain.bias)


def placed(family: str, spec: str) -> Upstream:
    """A patched upstream in double precision, its new tensors random."""
    upstream = copy.deepcopy(base(family)[0])
    adapt(upstream, spec, prove=False)
    upstream.double()
    with torch.no_grad():
        for number, (_, parameter) in enumerate(upstream.trainable()):
            parameter.copy_(noise(*parameter.shape, seed=number) * 0.5)
    return upstream


FAMILIES = ["hubert_base_like", "hubert_large_like", "wavlm", "whisper", "moonshine", "data2vec"]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt(family: str) -> None:
    """[P; h] through the bare block, first n frames dropped; a padded batch as each clip alone."""
    upstream = placed(family, "prompt:3")
    plain = copy.deepcopy(base(family)[0]).double()
    clips = [noise(9, 32, seed=1), noise(6, 32, seed=2)]
    batch = torch.stack([clips[0], torch.cat([clips[1], torch.zeros(3, 32).double()])])
    lengths = torch.tensor([9, 6])
    for i in range(upstream.num_blocks):
        found = upstream.block(i, States(batch, lengths))
        assert torch.equal(found.lengths, lengths) and found.frames.shape == batch.shape
        vectors = upstream.get_parameter(f"before_block.{i}.0.vectors")
        for k, clip in enumerate(clips):
            joined = torch.cat([vectors, clip])[None]
            alone = plain.run_block(i, joined, torch.tensor([joined.shape[1]]))[0, 3:]
            assert close(found.frames[k, : len(clip)], alone)


def test_prefix_joins_before_the_softmax() -> None:
    """softmax(Q [P_K; K]' / sqrt(d)) [P_V; V] by hand, per head, on a HuBERT attention."""
    upstream = placed("hubert_base_like", "prefix:2")
    attention = upstream.blocks[0].attention
    h = noise(1, 7, 32)
    prefix = upstream.inside_block[0][0]
    assert isinstance(prefix, Prefix)
    q, k, v = (
        (h[0] @ layer.weight.T + layer.bias)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    k, v = torch.cat([prefix.keys, k]), torch.cat([prefix.values, v])
    heads = []
    for n in range(4):
        part = slice(8 * n, 8 * n + 8)
        weights = torch.softmax(q[:, part] @ k[:, part].T / 8**0.5, -1)
        heads.append(weights @ v[:, part])
    joined = torch.cat(heads, -1)
    expected = joined @ attention.out_proj.weight.T + attention.out_proj.bias
    assert close(attention(h)[0][0], expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", ["prompt:3", "prefix:3", "ba:attention=true+wg"])
def test_padding_changes_nothing(family: str, spec: str) -> None:
    upstream = placed(family, spec)
    features = [x.double() for x in base(family)[1]]
    with torch.no_grad():
        together = upstream.forward_from(FROM_FEATURES, features).layers
        alone = upstream.forward_from(FROM_FEATURES, features[1:]).layers
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a[1, : b.shape[1]], b[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("family", ["hubert_base_like", "hubert_large_like"])
def test_where_the_feed_forward_adapter_sits(family: str, mode: str) -> None:
    """The block written out, with A after the feed-forward or beside it, before the residual."""
    upstream = placed(family, f"adapter:mode={mode},width=5")
    block, branch = upstream.blocks[0], upstream.inside_block[0][0]
    bare = copy.deepcopy(base(family)[0]).double().blocks[0]
    h = noise(1, 6, 32)

    def adapted(x: Tensor) -> Tensor:
        out = bare.feed_forward(x)
        return branch(out) if mode == "sequential" else out + branch(x)

    attended = h + (bare.attention(bare.layer_norm(h)) if family.startswith("hubert_large")
                    else bare.attention(h))[0]  # fmt: skip
    if family == "hubert_large_like":
        expected = attended + adapted(bare.final_layer_norm(attended))
    else:
        inner = bare.layer_norm(attended)
        expected = bare.final_layer_norm(inner + adapted(inner))
    assert close(block(h), expected)


def test_bottleneck_and_gate_at_the_output_in_this_order() -> None:
    """h <- BA(h), then h * sigmoid(g), whatever the order they are written in."""
    for spec in ("wg+ba", "ba+wg"):
        upstream = placed("whisper", spec)
        h = noise(1, 6, 32)
        lengths = torch.tensor([6])
        adapter, gate = upstream.after_block[0]
        assert isinstance(adapter, Bottleneck) and isinstance(gate, Gate)
        expected = gate(adapter(upstream.run_block(0, h, lengths)))
        assert close(upstream.block(0, States(h, lengths)).frames, expected)
