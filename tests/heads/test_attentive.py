"""Attentive statistics pooling against numpy, in double precision and frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emopeft.downstream.heads.attentive import MIN_VARIANCE, AttentiveHead, statistics
from emopeft.downstream.heads.making import make_head

WIDTH, STATES, OUTPUTS = 6, 3, 4
LENGTHS = torch.tensor([9, 5, 1])


def head_of(layers: str = "weighted_sum", seed: int = 0) -> AttentiveHead:
    torch.manual_seed(seed)
    head = make_head("attentive", width=WIDTH, states=STATES, outputs=OUTPUTS, layers=layers,
                     hidden=8, dropout=0.5)  # fmt: skip
    assert isinstance(head, AttentiveHead)
    if head.featurizer.weights is not None:
        torch.nn.init.normal_(head.featurizer.weights)
    return head


def states_of(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, STATES, 9, WIDTH, generator=generator, dtype=torch.float64)


def by_hand(head: AttentiveHead, states: torch.Tensor, lengths: torch.Tensor) -> np.ndarray:
    """The head's equations for one clip at a time, by numpy's own weighted statistics."""
    p = {n: t.detach().double().numpy() for n, t in head.named_parameters()}
    if head.featurizer.weights is not None:
        mixing = np.exp(p["featurizer.weights"]) / np.exp(p["featurizer.weights"]).sum()
    rows = []
    for clip, length in zip(states.double().numpy(), lengths.tolist(), strict=True):
        used = clip[head.featurizer.skip :, :length]
        frames = used[0] if head.featurizer.weights is None else np.tensordot(mixing, used, 1)
        score = [
            sum(p["query"] * np.tanh(p["attention.weight"] @ h + p["attention.bias"]))
            for h in frames
        ]
        a = np.exp(score) / np.exp(score).sum()
        mean = np.average(frames, axis=0, weights=a)
        variance = np.average((frames - mean) ** 2, axis=0, weights=a)
        pooled = np.concatenate([mean, np.sqrt(np.maximum(variance, MIN_VARIANCE))])
        x = p["projector.1.weight"] @ pooled + p["projector.1.bias"]
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        x = np.maximum(x * p["projector.2.weight"] + p["projector.2.bias"], 0)
        rows.append(p["classifier.weight"] @ x + p["classifier.bias"])
    return np.stack(rows)


@pytest.mark.parametrize("layers", ["weighted_sum", "last", "blocks"])
def test_the_head_is_its_equations(layers: str) -> None:
    head = head_of(layers).double().eval()
    states = states_of()
    found = head(states, LENGTHS).detach().numpy()
    np.testing.assert_allclose(found, by_hand(head, states, LENGTHS), rtol=1e-11, atol=1e-12)


def test_padding_plays_no_part() -> None:
    head = head_of().eval()
    states = states_of().float()
    expected = head(states, LENGTHS)
    other = states.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        other[row, :, length:] = 1e4
    assert torch.equal(head(other, LENGTHS), expected)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = head(states[row : row + 1, :, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], expected[row], rtol=1e-5, atol=1e-6)


def test_the_size_of_the_challenges_head() -> None:
    """WavLM large, 8 classes: attention, v, Linear 2048 x 1024, norm, Linear 1024 x 8."""
    head = make_head(
        "attentive", width=1024, states=25, outputs=8, layers="last", hidden=1024, dropout=0.5
    )
    attention = 1024 * 1024 + 1024 + 1024
    layers = 2048 * 1024 + 1024 + 2 * 1024 + 1024 * 8 + 8
    assert sum(p.numel() for p in head.parameters()) == attention + layers == 3_159_048


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_nothing_varies(dtype: torch.dtype) -> None:
    """Frames that are all equal, and one frame: the deviation's square root would give 0/0."""
    head = head_of().to(dtype)
    constant = states_of()[:, :, :1].expand(-1, -1, 9, -1).to(dtype).clone().requires_grad_()
    with torch.no_grad():
        pooled = statistics(constant[:, 0], torch.zeros(3, 9, dtype=dtype), LENGTHS)
    assert torch.allclose(pooled[:, WIDTH:], torch.tensor(MIN_VARIANCE, dtype=dtype).sqrt())
    assert torch.allclose(pooled[:, :WIDTH], constant[:, 0, 0])
    head(constant, LENGTHS).square().sum().backward()
    for tensor in (constant, *head.parameters()):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())


def test_gradients_against_finite_differences() -> None:
    head = head_of().double().eval()
    states = states_of().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head(x, LENGTHS), states, atol=1e-7)


def test_bf16_counts_and_weighs_in_float32() -> None:
    """REVIEW A14 for this head: 301 frames far from zero, scores of tens."""
    generator = torch.Generator().manual_seed(0)
    frames = (100 + torch.randn(1, STATES, 301, WIDTH, generator=generator)).bfloat16()
    head = head_of("last").eval()
    with torch.no_grad():
        head.query.mul_(20)
        head.attention.weight.zero_()  # so that the rounding of W h does not hide the rest
        head.attention.bias.normal_()
    found: list[torch.Tensor] = []
    head.projector.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head(frames, torch.tensor([301]))
    assert found[0].dtype == torch.float32 and outputs.dtype == torch.bfloat16
    last = frames[0, -1].double()
    mean, deviation = last.mean(0), last.std(0, unbiased=False)
    torch.testing.assert_close(found[0][0].double(), torch.cat([mean, deviation]), rtol=1e-5,
                               atol=1e-5)  # fmt: skip


def test_dropout_stands_before_and_after_the_layer() -> None:
    head = head_of()
    states = states_of().float()
    one, other = head(states, LENGTHS), head(states, LENGTHS)
    assert not torch.equal(one, other)
    rates = [m.p for m in head.modules() if isinstance(m, torch.nn.Dropout)]
    assert rates == [0.5, 0.5]
