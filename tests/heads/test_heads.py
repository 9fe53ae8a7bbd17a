"""Heads against their definitions and published sizes."""

import pytest
import torch
from torch import nn

from emopeft.downstream.heads.base import Featurizer
from emopeft.downstream.heads.conv import ConvHead
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.heads.superb import SuperbHead
from emopeft.errors import UserError
from emopeft.upstream.states import HiddenStates


def test_superb_head_has_the_published_size() -> None:
    head = make_head("superb", width=768, states=13, outputs=4)
    assert sum(p.numel() for p in head.parameters()) == 197_892 + 13


def test_superb_head_on_means_equals_the_frame_level_head() -> None:
    torch.manual_seed(0)
    head = make_head("superb", width=16, states=3, outputs=4, hidden=8).double()
    assert isinstance(head, SuperbHead)
    nn.init.normal_(head.featurizer.weights)  # type: ignore[arg-type]
    lengths = torch.tensor([7, 3])
    layers = [torch.randn(2, 7, 16, dtype=torch.float64) for _ in range(3)]
    weights = head.featurizer.weights.softmax(0)  # type: ignore[union-attr]
    frames = sum(w * x for w, x in zip(weights, layers, strict=True))
    projected = head.projector(frames)
    pooled = torch.stack([projected[i, :n].mean(0) for i, n in enumerate(lengths)])
    means = torch.stack(
        [torch.stack([x[i, :n].mean(0) for x in layers]) for i, n in enumerate(lengths)]
    )
    torch.testing.assert_close(
        head(means, lengths), head.classifier(pooled), rtol=1e-12, atol=1e-12
    )
    found = HiddenStates([x.float() for x in layers], lengths).means()
    torch.testing.assert_close(found, means.float())


def test_the_featurizer_starts_as_the_plain_mean() -> None:
    states = torch.randn(2, 5, 4)
    torch.testing.assert_close(Featurizer(5, "weighted_sum")(states, 1), states.mean(1))
    torch.testing.assert_close(Featurizer(5, "blocks")(states, 1), states[:, 1:].mean(1))
    torch.testing.assert_close(Featurizer(5, "last")(states, 1), states[:, -1])
    assert Featurizer(5, "last").weights is None


@pytest.mark.parametrize("name", ["superb", "conv", "attentive"])
def test_a_head_on_one_state_is_a_head_that_has_no_other(name: str) -> None:
    torch.manual_seed(0)
    one, alone = (
        make_head(name, width=6, states=states, outputs=4, hidden=8, layers=layers).eval()
        for states, layers in ((5, "3"), (1, "last"))
    )
    alone.load_state_dict(one.state_dict())
    shape = (2, 5, 6) if one.pooled else (2, 5, 9, 6)
    states, lengths = torch.randn(shape), torch.tensor([9, 4])
    assert torch.equal(one(states, lengths), alone(states[:, 3:4], lengths))
    assert not torch.equal(one(states, lengths), one(states.flip(1), lengths))


def test_states_are_numbered_from_0_to_the_last() -> None:
    states = torch.randn(2, 5, 4)
    for number in range(5):
        assert torch.equal(Featurizer(5, str(number))(states, 1), states[:, number])
    with pytest.raises(UserError, match="states 0 to 4"):
        make_head("superb", width=4, states=5, outputs=2, layers="5")
    for odd in ("07", "-1", "1.0", "seven", "", "99999"):
        with pytest.raises(UserError, match="head.layers"):
            make_head("superb", width=4, states=5, outputs=2, layers=odd)


def test_conv_head_is_a_convolution_and_ignores_padding() -> None:
    torch.manual_seed(0)
    head = make_head("conv", width=6, states=2, outputs=4, hidden=8).eval()
    assert isinstance(head, ConvHead)
    states = torch.randn(2, 2, 9, 6)
    lengths = torch.tensor([9, 5])
    frames = head.featurizer(states, 1).transpose(1, 2)
    for layer in head.convolutions:
        if isinstance(layer, nn.Linear):
            frames = nn.functional.conv1d(frames, layer.weight.unsqueeze(-1), layer.bias)
        else:
            frames = layer(frames)
    pooled = torch.stack([frames[i, :, :n].mean(-1) for i, n in enumerate(lengths)])
    expected = head.classifier(pooled)
    torch.testing.assert_close(head(states, lengths), expected)
    other = states.clone()
    other[1, :, 5:] = 1e3
    torch.testing.assert_close(head(other, lengths), expected)


def test_standardising_makes_outputs_independent_of_scale() -> None:
    torch.manual_seed(0)
    means = torch.randn(20, 2, 6)
    scaled = means * torch.tensor([1e4, 1e-3, 1, 5, 7, 9]) + 50
    outputs = []
    for data in (means, scaled):
        torch.manual_seed(1)
        head = make_head("superb", width=6, states=2, outputs=3, hidden=4, standardise=True)
        head.fit_standardisation(data)
        outputs.append(head(data, torch.empty(0)))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-3)


def test_unknown_head_and_layers_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean superb"):
        make_head("suberb", width=4, states=2, outputs=2)
    with pytest.raises(UserError, match="did you mean last"):
        make_head("superb", width=4, states=2, outputs=2, layers="lst")


def test_heads_of_impossible_sizes_are_refused() -> None:
    """REVIEW D6: ``head.dropout=2`` was a traceback of torch's."""
    for more, said in (
        ({"dropout": 2.0}, r"head\.dropout=2\.0 must be in \[0, 1\)"),
        ({"dropout": float("nan")}, r"head\.dropout=nan must be in"),
        ({"hidden": 10**9}, r"head\.hidden=1000000000 must be"),
        ({"hidden": 0}, r"head\.hidden=0 must be"),
    ):
        with pytest.raises(UserError, match=said):
            make_head("conv", width=4, states=2, outputs=2, **more)


def test_the_conv_head_counts_frames_exactly_in_bf16() -> None:
    """REVIEW A14: 301 frames were divided by 300."""
    torch.manual_seed(0)
    head = make_head("conv", width=4, states=2, outputs=2, layers="last", hidden=4).eval()
    assert isinstance(head, ConvHead)
    found: list[torch.Tensor] = []
    head.classifier.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    states = torch.randn(1, 2, 301, 4).abs()
    head(states, torch.tensor([301]))
    ones = torch.nn.Sequential(torch.nn.Identity())
    head.convolutions = ones
    frames = torch.ones(1, 2, 301, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        head(frames, torch.tensor([301]))
    assert torch.equal(found[1].float(), torch.ones(1, 4))
    assert found[0].dtype == torch.float32
