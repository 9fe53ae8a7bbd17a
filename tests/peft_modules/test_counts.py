"""Parameter counts on base (768 x 12) and large (1024 x 24) against the published ones."""

from __future__ import annotations

import copy
import functools
import itertools
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.build import assemble
from emopeft.downstream.models.counting import parameter_counts
from emopeft.peft_modules.apply import adapt
from emopeft.peft_modules.base import canonical, parse
from emopeft.peft_modules.overview import describe
from emopeft.upstream.speech import SpeechUpstream
from tests.peft_modules.cases import FIFTEEN, base

SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
    },
}  # fmt: skip


@functools.cache
def state(size: str) -> SpeechUpstream:
    """HuBERT of this size without memory for its weights."""
    with torch.device("meta"):
        upstream = SpeechUpstream(
            transformers.HubertModel(transformers.HubertConfig(**SIZES[size]))
        )
    upstream.name = size
    return upstream


def counts(size: str, method: str) -> dict[str, Any]:
    upstream = copy.deepcopy(state(size))
    for name in ("before_block", "inside_block", "after_block"):  # as `seal` does
        lists = nn.ModuleList(nn.ModuleList() for _ in range(upstream.num_blocks))
        setattr(upstream, name, lists)
    adaptation = adapt(upstream, method, prove=False)
    weighted = adaptation.weighted_sum
    head = make_head(
        "superb",
        width=upstream.width,
        states=upstream.num_blocks + 1,
        outputs=4,
        layers="weighted_sum" if weighted else "last",
    )
    model = assemble(adaptation, head, dropout=False)
    rows = describe(adaptation)
    assert sum(r["parameters"] for r in rows) == sum(p.parameters for p in adaptation.parts)
    return parameter_counts(adaptation, model.head)


@pytest.mark.parametrize(
    ("size", "method", "published"),
    [
        ("base", "lora", 589_824),
        ("large", "lora", 1_572_864),
        ("base", "ba", 1_189_632),
        ("large", "ba", 3_171_840),
        ("base", "wg", 9_216),
        ("large", "wg", 24_576),
        ("base", "ws", 13),
        ("large", "ws", 25),
        ("base", "adapter", 2_370_048),
        ("base", "adapter@peft-ser-parallel", 2_370_048),
        ("base", "prompt@peft-ser", 46_080),
        ("base", "lora@peft-ser", 1_474_560),
        ("base", "partial:1", 7_087_872),
        ("base", "partial:3", 3 * 7_087_872),
        ("base", "none", 0),
    ],
)
def test_published_counts(size: str, method: str, published: int) -> None:
    assert counts(size, method)["method"] == published


def test_all_four_with_the_head() -> None:
    found = counts("base", "lora+ba+ws+wg")
    assert found["head"] == 197_892
    assert found["trainable"] == 1_986_577
    assert found["share"] == pytest.approx(0.021, abs=5e-4)  # of the model with what was added


@pytest.mark.parametrize("combination", FIFTEEN)
def test_the_fifteen_in_any_order(combination: str) -> None:
    names = combination.split("+")
    sizes = {"lora": 589_824, "ba": 1_189_632, "ws": 13, "wg": 9_216}
    spellings = {canonical(parse("+".join(order))) for order in itertools.permutations(names)}
    assert len(spellings) == 1
    assert counts("base", combination)["method"] == sum(sizes[n] for n in names)


def test_describe_says_where_it_sits() -> None:
    upstream = copy.deepcopy(base("hubert_base_like")[0])
    rows = describe(adapt(upstream, "lora:targets=q+fc2,r=2+ba:blocks=last:1+cnn_adapter"))
    shown = [(r["method"], r["blocks"], r["module"], r["count"], r["each"]) for r in rows]
    assert shown == [
        ("cnn_adapter", "", "front end", 1, 7 * (16 * 32 + 32 + 32 * 16 + 16)),
        ("lora", "0-2", "attention.q_proj", 3, 2 * 64),
        ("lora", "0-2", "feed_forward.output_dense", 3, 2 * 80),
        ("ba", "2", "output", 1, 32 * 64 + 64 + 64 * 32 + 32),
    ]
