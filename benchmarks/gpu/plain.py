"""The plain loop beside ours: what a user of transformers and peft writes, on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import card


def autocast(device: str, precision: str) -> Any:
    """bf16 where it is asked for."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def extract(
    encoder: Path, paths: list[Path], device: str, precision: str, batch: int
) -> float:  # fmt: skip
    """Seconds to read clips of one length and take the time means of all their hidden states."""
    import soundfile
    from transformers import HubertModel

    model: Any = HubertModel.from_pretrained(encoder)
    model.to(device).eval()
    for warm in (True, False):  # once on a single batch, then on all
        started = card.now(device)
        for first in range(0, batch if warm else len(paths), batch):
            wavs = [torch.from_numpy(soundfile.read(p, dtype="float32")[0])
                    for p in paths[first : first + batch]]  # fmt: skip
            with autocast(device, precision):
                states = model(torch.stack(wavs).to(device), output_hidden_states=True)
            torch.stack([s.mean(1) for s in states.hidden_states], 1).float().cpu()
        seconds = card.now(device) - started
    return seconds


def train(
    encoder: Path, wavs: list[Tensor], method: str, device: str, precision: str, batch: int,
    steps: int,
) -> tuple[float, int | None]:  # fmt: skip
    """Seconds per optimiser step on waveforms of one length, and the device's highest memory.

    AdamW, gradients clipped to 1, ``.train()`` with the libraries' defaults, a linear head on the
    mean of the last state; the method is "full", "lora" or "partial:N".
    """
    from transformers import HubertModel

    card.reset_memory(device)
    torch.manual_seed(0)
    model: Any = HubertModel.from_pretrained(encoder, attn_implementation="sdpa")
    head = torch.nn.Linear(model.config.hidden_size, 4).to(device)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "k_proj", "v_proj", "out_proj"]
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=1, target_modules=targets))
    elif method.startswith("partial:"):
        model.requires_grad_(False)
        for block in model.encoder.layers[-int(method.removeprefix("partial:")) :]:
            block.requires_grad_(True)
    model.to(device).train()
    parameters = [p for m in (model, head) for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step(i: int) -> None:
        chosen = [(i * batch + k) % len(wavs) for k in range(batch)]
        inputs = torch.stack([wavs[k] for k in chosen]).to(device)
        labels = torch.tensor([k % 4 for k in chosen], device=device)
        with autocast(device, precision):
            logits = head(model(input_values=inputs).last_hidden_state.mean(1))
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for i in range(2):
        step(i)
    started = card.now(device)
    for i in range(steps):
        step(2 + i)
    return (card.now(device) - started) / steps, card.memory(device)
