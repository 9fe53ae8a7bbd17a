"""What is special about s3prl's wav2vec2 and HuBERT (the battery has them as rows)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from emopeft.errors import UserError
from emopeft.peft_modules.apply import adapt
from emopeft.upstream.catalogue import load
from emopeft.upstream.s3prl_collection import CollectionUpstream
from tests.peft_modules.cases import base, clips
from tests.upstream.test_s3prl import checkpoint

pytest.importorskip("s3prl")


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


@pytest.mark.parametrize("family", ["s3prl_hubert", "s3prl_wav2vec2"])
def test_copies_do_not_share_their_states(family: str) -> None:
    """s3prl's hooks hold on to the expert they were made for; a copy needs its own."""
    upstream = base(family)[0]
    copied = copy.deepcopy(upstream)
    with torch.no_grad():
        before = upstream(clips()[:1]).layers
        for parameter in copied.parameters():
            parameter.mul_(1.1)
        changed, after = copied(clips()[:1]).layers, upstream(clips()[:1]).layers
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.allclose(changed[-1], before[-1])
