"""The grammar, presets, refusals, the classifier's LoRA, schedules, dropout and signatures."""

from __future__ import annotations

import copy
import dataclasses
import random
from typing import Any

import pytest
import torch

from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.build import assemble
from emopeft.downstream.models.counting import parameter_counts
from emopeft.errors import UserError
from emopeft.peft_modules.apply import adapt
from emopeft.peft_modules.base import METHODS, canonical, parse
from emopeft.peft_modules.injection import injected
from emopeft.peft_modules.placing import chosen_blocks
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM
from emopeft.upstream.wavlm import use_transformers_attention
from tests.peft_modules.cases import base, batch_of, built
from tests.peft_modules.test_battery import train
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("lora@peft-ser", "lora:r=16,targets=fc1+fc2"),
        ("lora@peft-ser:r=32+ws", "lora:r=32,targets=fc1+fc2+ws"),
        ("lora@lashkarashvili2024", "lora"),
        ("wg+ws+ba+lora", "ws+lora+ba+wg"),
        ("adapter@peft-ser+ws@peft-ser", "ws:layers=blocks+adapter"),
        ("prompt:3", "prompt:n=3"),
        ("ba:attention=true,blocks=0-2+5", "ba:attention=true,blocks=0-2+5"),
        ("dora:r=4,lora_alpha=2+wg", "dora:r=4,lora_alpha=2+wg"),
        ("lokr:init_weights=lycoris,decompose_both=true", None),
        ("osf:effective_rank=none", "osf"),
        ("tinylora:init_weights=true", "tinylora"),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, spec: str | None) -> None:
    methods = parse(text)
    if spec is not None:
        assert sorted(canonical(methods).split("+")) == sorted(spec.split("+"))
    assert parse(canonical(methods)) == methods


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora@peft", "unknown preset of lora 'peft': did you mean peft-ser"),
        ("dorra", "did you mean dora"),
        ("oft:blocksize=3", "unknown option of oft 'blocksize': did you mean"),
        ("lokr:init_weights=lycori", "did you mean lycoris"),
        ("lora:r=x", "lora:r=x must be a whole number"),
        ("lora:targets=query", "unknown target of lora 'query'"),
        ("adapter:mode=serial", "unknown value of adapter:mode"),
        ("ln_tuning", "take 'layernorm'"),
        ("poly", "does not work on linear layers"),
        ("prompt_tuning", "unknown method 'prompt_tuning'"),
        ("none+ba", "cannot be added"),
        ("ba+ba", "stands twice"),
        ("ws:layers=some", "unknown value of ws:layers"),
        ("ba:bottleneck=0", "at least 1"),
        ("adapter:width=0", "width of at least 1"),
        ("prefix:0", "at least 1"),
        ("lora:blocks=7", "0 to 2"),
        ("cnn_adapter:layers=9", "0 to 6"),
        ("lora+dora", "another method of the sum has already patched"),
        ("boft:boft_block_size=5", "peft refuses 'boft'"),
        ("fourierft:n_frequency=5000", "peft refuses 'fourierft'"),
    ],
)
def test_mistakes_are_answered(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")) as caught:
        adapt(copy.deepcopy(base("hubert_base_like")[0]), text)
    assert "\n" not in str(caught.value)


def test_the_library_is_read_from_peft_and_not_typed() -> None:
    from peft import LoraConfig, OFTConfig

    names = set(METHODS)
    assert {"dora", "rslora", "pissa", "olora", "adalora", "ia3", "loha", "lokr", "vera", "oft",
            "boft", "fourierft", "vblora", "hra", "shira"} <= names  # fmt: skip
    assert not {"poly", "xlora", "prompt_tuning", "ln_tuning", "trainable_tokens", "eva"} & names
    options = {f.name: f for f in dataclasses.fields(METHODS["oft"])}
    theirs = {f.name: f for f in dataclasses.fields(OFTConfig)}
    assert options["oft_block_size"].default == theirs["oft_block_size"].default
    assert (
        options["oft_block_size"].metadata["help"][:20] in theirs["oft_block_size"].metadata["help"]
    )
    assert "target_modules" not in options
    upstream = copy.deepcopy(base("whisper")[0])
    adapt(upstream, "rslora:r=4,lora_alpha=3")
    config = injected(upstream)["rslora"].config
    assert isinstance(config, LoraConfig) and config.use_rslora
    assert (config.r, config.lora_alpha) == (4, 3)
    layer: Any = upstream.role(0, "q")
    assert layer.scaling["default"] == pytest.approx(3 / 4**0.5)


def test_discovery_leaves_the_random_state_alone() -> None:
    torch.manual_seed(1)
    random.seed(1)
    before = torch.get_rng_state()
    METHODS.library.make("pissa")  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before)


def test_dead_lora_on_transformers_own_wavlm_attention() -> None:
    """PROTOCOLS.md, trap 1: it must be refused by name there, and pass with ours."""
    upstream = tiny("wavlm")
    use_transformers_attention(upstream)
    with pytest.raises(UserError) as caught:
        adapt(upstream, "lora")
    assert "are dead" in str(caught.value)
    assert "model.encoder.layers.0.attention.k_proj.lora_A.default.weight" in str(caught.value)
    assert str(caught.value).startswith("24 of the trainable tensors")  # all: 3 blocks, 4 x A, B
    with pytest.raises(UserError, match="are dead"):
        upstream = tiny("wavlm")
        use_transformers_attention(upstream)
        adapt(upstream, "prefix")
    adapt(tiny("wavlm"), "lora")


def test_half_dead_is_dead_too() -> None:
    """Gradients made of rounding do not pass for live: biases on keys do nothing."""
    with pytest.raises(UserError, match=r"k_proj\.beft_bias"):
        adapt(copy.deepcopy(base("hubert_base_like")[0]), "beft:targets=k+v")


def test_upstreams_without_blocks_refuse() -> None:
    from emopeft.upstream.catalogue import load

    for method in ("lora", "ba", "partial:1", "dora", "prompt"):
        with pytest.raises(UserError, match=r"fbank has none"):
            adapt(load("fbank"), method)


def test_lora_on_the_classifier_alone() -> None:
    upstream = base("hubert_base_like")[0]
    adaptation, model = built(upstream, "lora:targets=classifier,r=2")
    assert adaptation.start == upstream.num_blocks and not any(model.upstream.trainable())
    assert model.head.patched == {
        "lora": ["classifier.lora_A.default.weight", "classifier.lora_B.default.weight"]
    }
    counts = parameter_counts(adaptation, model.head)
    assert counts["method"] == 2 * (16 + 4)
    assert counts["head"] == 32 * 16 + 16  # the projector; the classifier itself is frozen
    # Exactly the identity at init: the same head without it gives the same outputs.
    _, plain = built(upstream, "none")
    batch = batch_of(model)
    assert torch.equal(model(batch), plain(batch))
    before = model.head.get_parameter("classifier.base_layer.weight").clone()
    train(model, batch)
    assert torch.equal(model.head.get_parameter("classifier.base_layer.weight"), before)
    assert not torch.equal(model(batch), plain(batch))


def test_lora_on_the_classifier_and_nothing_else_of_the_head() -> None:
    adaptation, model = built(base("hubert_base_like")[0], "lora:targets=classifier-only,r=2")
    counts = parameter_counts(adaptation, model.head)
    assert (counts["method"], counts["head"]) == (2 * (16 + 4), 0)
    names = {n for n, p in model.head.named_parameters() if p.requires_grad}
    assert names == set(model.head.patched["lora"])
    before = model.head.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    train(model, batch_of(model))
    changed = {n for n, t in model.head.state_dict().items() if not torch.equal(t, before[n])}
    assert changed and changed <= names


def test_lora_on_the_conv_heads_last_layer() -> None:
    adaptation = adapt(copy.deepcopy(base("whisper")[0]), "lora:targets=classifier+q")
    head = make_head("conv", width=32, states=3, outputs=4, hidden=8)
    model = assemble(adaptation, head, dropout=False)
    assert all(n.startswith("classifier.2.lora") for n in model.head.patched["lora"])


def test_dropout_is_on_in_added_modules_only() -> None:
    for spec in ("adapter:dropout=0.5", "lora:dropout=0.5", "loha:rank_dropout=0.5",
                 "boft:boft_dropout=0.5", "hira:r=4,hira_dropout=0.5"):  # fmt: skip
        _, model = built(base("hubert_base_like")[0], spec, prove=False)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _, parameter in model.upstream.trainable():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        batch = batch_of(model)
        model.train()
        assert not torch.equal(model(batch), model(batch)), spec
        pretrained = [m for m in model.upstream.modules() if getattr(m, "pretrained", False)]
        assert len(pretrained) > 50 and not any(m.training for m in pretrained)
        model.eval()
        assert torch.equal(model(batch), model(batch))


def test_adalora_follows_the_trainings_length_and_resumes() -> None:
    """The budget falls from init_r to target_r; stopped and resumed equals uninterrupted."""
    spec, total = "adalora:init_r=4,target_r=1,targets=q+v", 10

    def steps(model: Any, optimizer: Any, batch: Any, first: int, last: int) -> None:
        model.train()
        for step in range(first, last + 1):
            loss = torch.nn.functional.cross_entropy(model(batch), batch.targets[:, 0].long())
            (loss + model.penalty()).backward()
            optimizer.step()
            model.after_step(step, total)
            optimizer.zero_grad()

    def fresh() -> tuple[Any, Any, Any]:
        _, model = built(base("hubert_base_like")[0], spec, prove=False)
        wanted = [p for p in model.parameters() if p.requires_grad]
        return model, torch.optim.Adam(wanted, lr=1e-2), batch_of(model)

    model, optimizer, batch = fresh()
    assert float(model.penalty()) > 0
    steps(model, optimizer, batch, 1, 5)
    saved = copy.deepcopy(
        (model.trainable_state(), optimizer.state_dict(), model.method_progress())
    )
    steps(model, optimizer, batch, 6, total)
    ranks = [int((p != 0).sum()) for n, p in model.upstream.named_parameters() if "lora_E" in n]
    assert sum(ranks) == 1 * len(ranks) and len(ranks) == 6
    config = injected(model.upstream)["adalora"].config
    assert (config.total_step, config.tinit, config.tfinal) == (10, 1, 2)

    other, optimizer, batch = fresh()
    other.load_trainable_state(saved[0])
    optimizer.load_state_dict(saved[1])
    other.load_method_progress(saved[2])
    steps(other, optimizer, batch, 6, total)
    one, two = model.trainable_state(), other.trainable_state()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_progress_is_plain_enough_to_be_read_back(tmp_path: Any) -> None:
    from emopeft.downstream.models.checkpoint import read_progress, write_progress

    _, model = built(base("whisper")[0], "adalora+ba", prove=False)
    train(model, batch_of(model), steps=3)
    write_progress(tmp_path / "p.pt", {"methods": model.method_progress()})
    model.load_method_progress(read_progress(tmp_path / "p.pt")["methods"])


def test_where_training_starts() -> None:
    starts = {
        "none": 3, "ws": 3, "lora": 0, "ba:blocks=last:1": 2, "wg:blocks=1": 1, "partial:2": 1,
        "prompt:blocks=last:2": 1, "prefix:blocks=2": 2, "bitfit:blocks=1-2": 1,
        "adapter:blocks=last:1": 2, "cnn_adapter": FROM_WAVEFORM, "full": FROM_FEATURES,
        "lora:blocks=last:1+wg:blocks=1": 1,
    }  # fmt: skip
    for spec, start in starts.items():
        assert adapt(copy.deepcopy(base("hubert_base_like")[0]), spec).start == start, spec


def test_what_is_patched_below_the_start_is_said() -> None:
    """Nothing in a usual training; the method, once something frozen again lies there."""
    upstream = base("hubert_base_like")[0]
    for spec in ("none", "lora", "ba:blocks=last:1", "cnn_adapter", "partial:1", "full"):
        adaptation = adapt(copy.deepcopy(upstream), spec)
        assert adaptation.upstream.patched_below(adaptation.start) == "", spec
    # Two stages: an adapter trained below, then frozen, while only the last block goes on.
    both = adapt(copy.deepcopy(upstream), "ba+lora:blocks=last:1").upstream
    for name, parameter in both.trainable():
        parameter.requires_grad_("lora" in name)
    assert both.first_change() == 2
    assert both.patched_below(2) == both.patched_below(3) == both.method
    assert both.method.startswith("lora:blocks=last:1+ba ")
    assert both.patched_below(0) == both.patched_below(FROM_FEATURES) == ""


def test_block_lists() -> None:
    assert chosen_blocks("0+3+6-8", 12) == [0, 3, 6, 7, 8]
    assert chosen_blocks("last:3", 12) == [9, 10, 11] and chosen_blocks("first:1", 2) == [0]
    for wrong in ("", "3-1", "12", "last:0", "some", "-1"):
        with pytest.raises(UserError, match="0 to 11"):
            chosen_blocks(wrong, 12)


def test_what_a_prefix_takes_out_again() -> None:
    upstream = copy.deepcopy(base("whisper")[0])
    before = upstream.model.config._attn_implementation
    adapt(upstream, "prefix").remove()
    assert upstream.model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("lora:alpha=nan", "must be a finite number"),
        ("lora:alpha=inf", "must be a finite number"),
        ("dora:lora_dropout=nan", "must be a finite number"),
        ("lora:alpha=1e300", "must be a finite number"),
        ("lora:r=" + "9" * 5000, "must be a whole number"),
        ("lora:r=" + "9" * 30, "must be a whole number"),
    ],
)
def test_numbers_that_are_none_are_refused_in_the_spelling(spec: str, said: str) -> None:
    """REVIEW D4: ``lora:alpha=nan`` trained, and predicted NaN."""
    with pytest.raises(UserError, match=said) as caught:
        parse(spec)
    assert len(str(caught.value)) < 200
