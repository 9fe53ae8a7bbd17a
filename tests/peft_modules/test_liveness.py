"""What the proof of liveness calls dead, and what only its values hide."""

from __future__ import annotations

import torch

from emopeft.peft_modules.apply import adapt
from emopeft.peft_modules.base import parse
from emopeft.peft_modules.liveness import dead_tensors
from tests.tiny import TINY


def test_relus_that_are_off_hide_nothing_and_a_frozen_zero_does() -> None:
    upstream = TINY["whisper"]()
    adapt(upstream, parse("lora+ba"))
    parameters = dict(upstream.trainable())
    assert dead_tensors(upstream) == []
    with torch.no_grad():
        for name, p in parameters.items():
            if ".down.bias" in name:
                p.fill_(-1e3)  # as a first stage may leave it: no unit is on
            elif ".up." in name:
                p.fill_(0.01)
    before = {name: p.detach().clone() for name, p in upstream.named_parameters()}
    assert dead_tensors(upstream) == []
    after = dict(upstream.named_parameters())
    assert all(torch.equal(p, after[name]) for name, p in before.items())
    for name, p in parameters.items():  # LoRA's B is zero: frozen there, A can change nothing
        if "lora_B" in name:
            p.requires_grad_(False)
    dead = dead_tensors(upstream)
    assert dead and all("lora_A" in name for name in dead)
    assert len(dead) == sum("lora_A" in name for name in parameters)
