"""Stages: what is taken over, what is frozen, and that a stage starts where the last one ended."""

from __future__ import annotations

import copy

import pytest
import torch

from emopeft.downstream.data.transfer import PARTS
from emopeft.errors import UserError
from emopeft.peft_modules.apply import adapt
from emopeft.peft_modules.freezing import freeze
from tests.peft_modules.cases import base, batch_of, built
from tests.peft_modules.test_battery import train


def test_the_next_stage_starts_exactly_where_the_last_one_ended() -> None:
    upstream = base("hubert_base_like")[0]
    _, first = built(upstream, "pissa:r=2+ba:bottleneck=4")
    train(first, batch_of(first))
    _, second = built(upstream, "pissa:r=2+ba:bottleneck=4", seed=7)
    assert not torch.equal(second(batch_of(second)), first(batch_of(first)))
    assert second.carry(first.kept_state()) == []
    assert torch.equal(second(batch_of(second)), first(batch_of(first)))
    # What is kept of the second holds the first's, too.
    _, third = built(upstream, "pissa:r=2+ba:bottleneck=4", seed=8)
    third.load_kept_state(second.kept_state())
    assert torch.equal(third(batch_of(third)), first(batch_of(first)))


def test_pretrained_weights_that_a_stage_trained_go_on_below_a_tuner() -> None:
    """Fine-tuned blocks, then LoRA on them: names change where a tuner wraps a layer."""
    upstream = base("hubert_base_like")[0]
    _, first = built(upstream, "full")
    train(first, batch_of(first))
    with torch.no_grad():
        for name, parameter in first.upstream.named_parameters():
            if "feature_projection" in name or "pos_conv" in name or ".encoder.layer_norm" in name:
                parameter.copy_(upstream.get_parameter(name))  # below the second stage's start
    _, second = built(upstream, "lora:r=2", seed=1)
    plain = set(second.kept_state())
    assert second.carry(first.kept_state()) == []
    torch.testing.assert_close(
        second(batch_of(second)), first(batch_of(first)), rtol=1e-5, atol=1e-6
    )
    train(second, batch_of(second))
    state = second.kept_state()
    more = set(state) - plain
    assert any("q_proj.base_layer.weight" in name for name in more)
    _, third = built(upstream, "lora:r=2", seed=2)
    with pytest.raises(UserError, match="does not fit method lora"):
        third.load_kept_state(state)
    third.load_kept_state(state, later_stage=True)
    assert torch.equal(third(batch_of(third)), second(batch_of(second)))


def test_what_has_no_place_is_named() -> None:
    upstream = base("hubert_base_like")[0]
    _, first = built(upstream, "lora:r=2+ba:bottleneck=4")
    train(first, batch_of(first))
    _, second = built(upstream, "ba:bottleneck=4")
    left = second.carry(first.kept_state())
    assert left and all("lora_" in name for name in left)
    # Another shape, and a start above what was trained: kept states would not know of it.
    assert built(upstream, "lora:r=4+ba:bottleneck=4")[1].carry(first.kept_state()) == left
    _, third = built(upstream, "partial:3")
    train(third, batch_of(third))
    for method in ("none", "partial:1"):
        _, later = built(upstream, method)
        before = later(batch_of(later))
        left = later.carry({k: v for k, v in third.kept_state().items() if "head" not in k})
        assert left and all(".layers.2." not in name for name in left) == (method != "none")
        assert method != "none" or torch.equal(later(batch_of(later)), before)


def test_freezing_by_method_or_by_name() -> None:
    upstream = base("hubert_base_like")[0]
    _, first = built(upstream, "lora:r=2+ba:bottleneck=4+ws")
    train(first, batch_of(first))
    adaptation, model = built(upstream, "lora:r=2+ba:bottleneck=4+ws", seed=4)
    model.carry(first.kept_state())
    everything = {n for n, _ in model.upstream.trainable()}
    frozen = model.freeze(["lora", "down.weight", "ws"])
    assert "head.featurizer.weights" in frozen
    trains = {n for n, _ in model.upstream.trainable()}
    assert not any("lora" in n or "down.weight" in n for n in trains) and len(trains) == 3 * 3
    assert {f"upstream.{n}" for n in everything - trains} == set(frozen) - {
        "head.featurizer.weights"
    }
    assert [part.parameters for part in adaptation.parts] == [
        0,
        sum(model.upstream.get_parameter(n).numel() for n in trains),
        0,
    ]
    before = model.kept_state()
    moved = train(model, batch_of(model))
    assert moved == trains
    after = model.kept_state()
    assert set(before) == set(after), "what is frozen is kept all the same"
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert {n.removeprefix("upstream.") for n in changed if n.startswith("up")} == trains
    assert not any(n in changed for n in frozen)
    assert "head.classifier.weight" in changed
    rest = model.freeze(["head"])
    assert set(rest) == {f"head.{n}" for n, _ in model.head.named_parameters()} - set(frozen)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_all_of_it_and_nothing_else(part: str) -> None:
    """What transfer.freeze names, by where peft and our own modules put it."""
    spec = "lora:r=2+ba:bottleneck=4+wg+ws"
    upstream = base("hubert_base_like")[0]
    _, first = built(upstream, spec)
    train(first, batch_of(first))
    adaptation, model = built(upstream, spec, seed=4)
    model.carry(first.kept_state())
    own = {
        name: {n for n, p in model.upstream.named_parameters() if p.requires_grad and has(n)}
        for name, has in {
            "lora.A": lambda n: ".lora_A.default.weight" in n,
            "lora.B": lambda n: ".lora_B.default.weight" in n,
            "lora": lambda n: ".lora_" in n,
            "ba": lambda n: n.rpartition(".")[0].endswith((".down", ".up")),
            "wg": lambda n: n in adaptation.parts[-1].sizes,
            "ws": lambda n: False,
            "head": lambda n: False,
        }.items()
    }[part]
    expected = {f"upstream.{n}" for n in own}
    if part in ("ws", "head"):
        inside = {n for n, _ in model.head.named_parameters()}
        expected = {f"head.{n}" for n in inside if part == "head" or n == "featurizer.weights"}
    assert expected and set(model.freeze([PARTS[part]])) == expected
    sizes = {"lora.A": 3 * 4, "lora.B": 3 * 4, "lora": 3 * 8, "ba": 3 * 4, "wg": 3}
    assert len(expected) == sizes.get(part, len(expected))


def test_an_unknown_pattern_lists_what_trains() -> None:
    adaptation, model = built(base("whisper")[0], "lora:r=2+ws")
    for wrong in ("ba", "lora_C", ""):
        with pytest.raises(UserError, match=r"chooses nothing that trains.*lora \(16 tensors"):
            freeze(adaptation, [wrong])
    assert freeze(adaptation, ["lora"])
    with pytest.raises(UserError, match="nothing \\(the upstream is frozen"):
        model.freeze(["lora"])


def test_what_still_trains_must_be_live() -> None:
    """Behind a LoRA-B that was never trained, a LoRA-A does nothing."""
    with pytest.raises(UserError, match="are dead"):
        freeze(adapt(copy.deepcopy(base("hubert_base_like")[0]), "lora:r=2"), ["lora_B"])
    _, first = built(base("hubert_base_like")[0], "lora:r=2")
    train(first, batch_of(first))
    _, second = built(base("hubert_base_like")[0], "lora:r=2")
    second.carry(first.kept_state())
    assert second.freeze(["lora_B"])


def test_a_frozen_adalora_is_left_alone() -> None:
    _, model = built(base("hubert_base_like")[0], "adalora:init_r=4,target_r=1+ba:bottleneck=4")
    model.freeze(["adalora"])
    assert model.penalty() is None
    before = model.kept_state()
    train(model, batch_of(model), steps=3)
    assert all(torch.equal(t, before[n]) for n, t in model.kept_state().items() if "lora_" in n)


def test_damaged_tensors_are_not_carried() -> None:
    _, first = built(base("hubert_base_like")[0], "lora:r=2")
    state = first.kept_state()
    name = next(n for n in state if "lora_A" in n)
    state[name] = torch.full_like(state[name], float("nan"))
    with pytest.raises(UserError, match="NaN or infinity"):
        built(base("hubert_base_like")[0], "lora:r=2")[1].carry(state)
    with pytest.raises(UserError, match="neither upstream nor head"):
        first.carry({"elsewhere.x": torch.zeros(1)})
