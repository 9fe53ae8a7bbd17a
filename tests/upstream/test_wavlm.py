"""WavLM's own attention: equal to transformers', with live projections (trap 1)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from emopeft.upstream.base import Upstream
from emopeft.upstream.states import mask_of
from emopeft.upstream.wavlm import WavLMUpstream, use_transformers_attention
from tests.tiny import plain, tiny

BOTH = pytest.mark.parametrize("name", ["wavlm", "wavlm_large_like"])


def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(n, generator=generator) for n in (16000, 7000)]


@BOTH
def test_equal_to_transformers_attention_on_padded_batches(name: str) -> None:
    ours, theirs = tiny(name), tiny(name)
    use_transformers_attention(theirs)
    a, b = ours(clips()), theirs(clips())
    valid = mask_of(a.lengths, a.layers[0].shape[1])
    assert not bool(valid.all())
    for x, y in zip(a.layers, b.layers, strict=True):
        assert float((x - y)[valid].abs().max()) <= 1e-5


@BOTH
def test_the_whole_model_still_runs_as_transformers_does(name: str) -> None:
    """What peft exports is used through the model's own forward, with its kinds of mask."""
    wav = torch.nn.utils.rnn.pad_sequence(clips(), batch_first=True)
    mask = torch.arange(16000)[None] < torch.tensor([[16000], [7000]])
    with torch.no_grad():
        ours = tiny(name).model(wav, attention_mask=mask).last_hidden_state
        theirs = plain(name)(wav, attention_mask=mask).last_hidden_state
    assert float((ours - theirs).abs().max()) <= 1e-5


def test_names_and_copies_stay() -> None:
    upstream = tiny("wavlm")
    assert list(upstream.model.state_dict()) == list(plain("wavlm").state_dict())
    copied = copy.deepcopy(upstream)
    assert torch.equal(copied(clips()).layers[-1], upstream(clips()).layers[-1])


def lora_effect(upstream: Upstream, block: int) -> float:
    """How much the last state moves when LoRA matrices on q, k, v, o of a block are not zero."""
    from peft import LoraConfig, inject_adapter_in_model

    base = upstream(clips()).layers[-1]
    paths = {id(m): n for n, m in upstream.named_modules()}
    names = [paths[id(upstream.role(block, r))] for r in "qkvo"]
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names), upstream)
    generator = torch.Generator().manual_seed(0)
    for n, p in upstream.named_parameters():
        if "lora_B" in n:
            p.data = torch.randn(p.shape, generator=generator)
    return float((upstream(clips()).layers[-1] - base).abs().max())


@BOTH
@pytest.mark.parametrize("block", [0, 2])
def test_lora_is_live_here_and_dead_there(name: str, block: int) -> None:
    assert lora_effect(tiny(name), block) > 1e-2
    dead = tiny(name)
    use_transformers_attention(dead)
    assert lora_effect(dead, block) == 0.0


def test_gradients_reach_the_projections_and_the_gates() -> None:
    upstream = tiny("wavlm")
    for block in upstream.blocks:
        block.attention.requires_grad_(True)
    upstream.train()
    upstream(clips()).layers[-1].square().sum().backward()
    # A key bias shifts all scores of a query alike: softmax is blind to it.
    for name, parameter in upstream.trainable():
        if not name.endswith("k_proj.bias"):
            assert parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-6, name


def test_position_bias_is_kept_only_while_frozen() -> None:
    upstream = tiny("wavlm")
    assert isinstance(upstream, WavLMUpstream)
    assert upstream.position_bias(20) is upstream.position_bias(20)
    with torch.inference_mode():
        inside = upstream.position_bias(20)
    assert not upstream.position_bias(20).is_inference() and inside.is_inference()
    weight = upstream.blocks[0].attention.rel_attn_embed.weight
    before = upstream.position_bias(20)
    weight.add_(1.0)
    assert torch.allclose(upstream.position_bias(20), before + 1.0)
    weight.requires_grad_(True)
    assert upstream.position_bias(20).requires_grad
