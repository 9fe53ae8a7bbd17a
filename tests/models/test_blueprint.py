"""Blueprints: many models on one copy of the encoder, and the rates of its own dropout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.build import Blueprint
from emopeft.upstream.identity import weights_hash
from tests.models.folds import HEAD, blueprint, outputs
from tests.peft_modules.cases import SMALL, base, batch_of
from tests.peft_modules.test_battery import train
from tests.tiny import tiny


def places(module: torch.nn.Module) -> dict[int, int]:
    """Memory of all its parameters: address to bytes."""
    return {p.data_ptr(): p.numel() * p.element_size() for p in module.parameters()}


@pytest.mark.parametrize(
    "method",
    [
        "none",
        "lora",
        "full",
        "partial:1",
        "bitfit",
        "pissa:r=2",
        "olora:r=2",
        "osf",
        "oft",
        "ba+wg",
    ],
)
def test_what_does_not_train_is_there_once(method: str) -> None:
    """REVIEW A18, B: three copies of the encoder were held; and folds must not meet in the one."""
    upstream = tiny("hubert_base_like")
    made = Blueprint(upstream, SMALL.get(method, method), dict(HEAD))
    shared, digest = places(upstream), weights_hash(upstream)
    first = made.model(0)
    before = outputs(first)
    train(first, batch_of(first))
    if method in ("none", "lora", "ba+wg"):
        assert set(shared) <= set(places(first.upstream))
    assert weights_hash(upstream) == digest, "training or a tuner wrote into the base weights"
    assert not any(p.requires_grad for p in upstream.parameters())
    assert torch.equal(outputs(made.model(0)), before), "the next fold starts somewhere else"


def test_frozen_blocks_below_partial_are_shared_and_its_own_are_not() -> None:
    upstream = tiny("hubert_base_like")
    model = Blueprint(upstream, "partial:1", dict(HEAD)).model(0)
    shared, own = places(upstream), places(model.upstream)
    last = places(model.upstream.blocks[2])
    assert not set(last) & set(shared)
    assert set(own) - set(shared) == set(last)


def test_active_rates_of_dropout() -> None:
    """REVIEW A10: they decide the result and stood in no identity."""
    upstream = tiny("hubert_base_like")
    assert Blueprint(upstream, "partial:1", dict(HEAD)).dropout_rates() == {}
    with_dropout = Blueprint(upstream, "partial:1", dict(HEAD), dropout=True)
    rates = with_dropout.dropout_rates()
    assert rates and all(place.startswith("2.") and 0 < r < 1 for place, r in rates.items())
    assert rates == with_dropout.model(0).dropout_rates()
    every = Blueprint(upstream, "lora", dict(HEAD), dropout=True).model(0).dropout_rates()
    assert {place.partition(".")[0] for place in every} == {"0", "1", "2"}
    name = next(n for n, m in upstream.blocks[2].named_modules() if hasattr(m, "p") and m.p)
    upstream.blocks[2].get_submodule(name).p = 0.37  # type: ignore[assignment]
    assert Blueprint(upstream, "partial:1", dict(HEAD), dropout=True).dropout_rates() != rates


def test_rates_of_functions_count_too() -> None:
    """REVIEW A10: Whisper's dropout is a number in its layers, no module."""
    found = Blueprint(tiny("whisper"), "lora", HEAD | {"states": 3}, dropout=True).dropout_rates()
    changed = tiny("whisper")
    for block in changed.blocks:
        block.activation_dropout = 0.25  # type: ignore[assignment]
    rates = Blueprint(changed, "lora", HEAD | {"states": 3}, dropout=True).dropout_rates()
    assert rates != found and rates["0.activation_dropout"] == 0.25


def test_the_proof_leaves_no_copy_behind_and_works_in_double_on_the_cpu(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW B: MPS has no float64, and a copy on the device counted in the training's peak."""
    from emopeft.peft_modules import liveness
    from emopeft.peft_modules.tensors import double_copy

    upstream = base("hubert_base_like", str(device))[0]
    copied = double_copy(upstream)
    assert {(p.device.type, p.dtype) for p in copied.parameters()} == {("cpu", torch.float64)}
    assert [n for n, _ in copied.named_parameters()] == [n for n, _ in upstream.named_parameters()]
    made = Blueprint(upstream, "vera:r=8", dict(HEAD))
    seen = []
    inner = liveness._gradient_sizes_in_double
    monkeypatch.setattr(liveness, "SUSPICIOUS", 1.0)  # everything is doubtful
    monkeypatch.setattr(liveness, "SUSPICIOUS_ON_ACCELERATOR", 1.0)
    monkeypatch.setattr(
        liveness, "_gradient_sizes_in_double", lambda u: seen.append(inner(u)) or seen[-1]
    )
    made.adapt(0)
    assert len(seen) == 1 and all(size > 0 for size in seen[0].values()) and seen[0]


def test_a_blueprint_of_a_directory(tmp_path: Path) -> None:
    """Equal seeds give equal models, others others."""
    made = blueprint(tmp_path, "lora:r=2+ws")
    states = [made.model(seed).kept_state() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert not torch.equal(states[0]["head.projector.weight"], states[2]["head.projector.weight"])


def test_method_and_head_draw_from_different_streams() -> None:
    """REVIEW A17: ten of twelve LoRA-A held the same numbers as rows of the head's projector."""
    head = HEAD | {"hidden": 256}
    model = Blueprint(tiny("hubert_base_like"), "lora", head).model(0)
    drawn = [p for n, p in model.upstream.trainable() if "lora_A" in n]
    rows = {tuple(row) for row in model.head.get_parameter("projector.weight").tolist()}
    assert len(drawn) == 12 and len(rows) == 256
    assert not any(tuple(row) in rows for p in drawn for row in p.tolist())
    # The head's stream stays what it was.
    torch.manual_seed(0)
    assert torch.equal(
        make_head(**head).get_parameter("projector.weight"),
        model.head.get_parameter("projector.weight"),
    )
