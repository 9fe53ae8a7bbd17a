"""The cases that are timed, each in a process of its own.

    python -m benchmarks.cases '{"case": "ours", "method": "lora", "precision": "fp32"}'

prints one line of JSON. The plain loops are what a user of transformers and peft writes, with
these libraries' defaults; ours are runs of the command line, of this checkout or of the one that
EMOPEFT_BENCH_CHECKOUT names.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.driving import (
    CLASSES,
    Resident,
    Run,
    cached_in,
    hubert,
    keys,
    labels_of,
    noise,
    run,
    save_encoder,
    sides,
    steady,
    write_manifest,
)
from benchmarks.ours import BATCH, Ours
from benchmarks.speech import waveforms

SECONDS = 3.0
EPOCH = 16  # clips
LAYERS = 13


def timed(step: Callable[[int], object], steps: int, warm: int = 1) -> dict[str, float]:
    """Seconds per step, by the clock and of the processor, medians.

    The processor's say something on a busy machine too (with OMP_NUM_THREADS=1, where no thread
    waits for another).
    """
    for i in range(warm):
        step(i)
    wall, processor = [], []
    for i in range(steps):
        started, busy = time.perf_counter(), time.process_time()
        step(warm + i)
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - busy)
    return {
        "seconds_per_step": statistics.median(wall),
        "processor_seconds_per_step": statistics.median(processor),
    }


class PlainHead(torch.nn.Module):
    """SUPERB's head on frames, as s3prl writes it; with or without its weighted sum."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(states))
        self.projector = torch.nn.Linear(768, 256)
        self.classifier = torch.nn.Linear(256, len(CLASSES))

    def forward(self, layers: tuple[Tensor, ...]) -> Tensor:
        mixed = (torch.stack(layers) * self.weights.softmax(0)[:, None, None, None]).sum(0)
        return self.classifier(self.projector(mixed).mean(1))


def plain(method: str, precision: str = "fp32", steps: int = 2, **_: Any) -> dict[str, Any]:
    """A plain loop over waveforms: transformers, peft, AdamW, ``.train()``.

    The head takes the last state: with ``.train()`` transformers leaves out dropped layers' states
    (layerdrop), so that a weighted sum over all of them fails.
    """
    model, head = hubert(), PlainHead(1)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "k_proj", "v_proj", "out_proj"]
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=1, target_modules=targets))
    elif method == "full_frozen_cnn":
        model.feature_extractor._freeze_parameters()
    elif method == "partial":
        model.requires_grad_(False)
        for block in model.encoder.layers[-3:]:
            block.requires_grad_(True)
    model.train()
    parameters = [p for m in (model, head) for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    wavs = torch.stack(waveforms(EPOCH, SECONDS))
    labels = torch.tensor(labels_of(EPOCH))

    def step(i: int) -> None:
        chosen = [(i * BATCH + k) % EPOCH for k in range(BATCH)]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = head((model(input_values=wavs[chosen]).last_hidden_state,))
        torch.nn.functional.cross_entropy(logits.float(), labels[chosen]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, steps) | {"trainable": sum(p.numel() for p in parameters)}


def ours(
    method: str, precision: str = "fp32", cache: bool = True, steps: int = 4, dtype: str = "fp32",
    checkpointing: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Our training's optimiser steps."""
    with tempfile.TemporaryDirectory() as folder, cached_in(Path(folder) / "cache"):
        side = Ours(Path(folder), EPOCH, SECONDS)
        figures = side.timed(
            method, steps, train_precision=precision, cache_enabled=cache, cache_dtype=dtype,
            train_checkpointing=checkpointing,
        )  # fmt: skip
        hours = (EPOCH + 8) * SECONDS / 3600
        return figures | {"cache_bytes_per_hour": side.stored() / hours}


def fill(clips_count: int = 16, **_: Any) -> dict[str, Any]:
    """The frozen part of the probe: seconds per clip of the corpus' own length."""
    with tempfile.TemporaryDirectory() as folder, cached_in(Path(folder) / "cache"):
        place = Path(folder)
        wavs = waveforms(clips_count, None)
        data = write_manifest(place / "clips", wavs, sides(clips_count - 8))
        encoder = save_encoder(place / "encoder")

        def probe(name: str) -> Run:
            return run(place / "runs", name, data, encoder, "-p", "none",
                       *keys(train_steps=1, train_epochs=None, train_eval_every=1))  # fmt: skip

        done, again = probe("fill"), probe("again")  # the second one finds all of it
        stored = sum(p.stat().st_size for p in (place / "runs/cache").rglob("*.safetensors"))
        busy = done.processor_seconds - again.processor_seconds
        return {
            "seconds_per_clip": done.frozen_seconds() / clips_count,
            "processor_seconds_per_clip": busy / clips_count,
            "bytes_per_clip": stored / clips_count,
            "clip_seconds": sum(map(len, wavs)) / clips_count / 16e3,
        }


def s3prl_way(steps: int = 1, **_: Any) -> dict[str, Any]:
    """An optimiser step as s3prl does it: 8 batches of 4 waveforms through the whole upstream."""
    model, head = hubert().eval(), PlainHead(LAYERS)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-4)
    wavs, labels = waveforms(32, None), torch.tensor(labels_of(32))

    def step(i: int) -> None:
        for k in range(0, 32, 4):
            batch = torch.nn.utils.rnn.pad_sequence(wavs[k : k + 4], batch_first=True)
            with torch.no_grad():
                states = model(batch, output_hidden_states=True).hidden_states
            loss = torch.nn.functional.cross_entropy(head(states), labels[k : k + 4])
            (loss / 8).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, steps) | {"clip_seconds": sum(map(len, wavs)) / 32 / 16e3}


def superb_probes(
    steps: int = 30000, rates: int = 5, clips: int = 5531, **_: Any
) -> dict[str, Any]:
    """SUPERB's protocol on a corpus of IEMOCAP's size: 5 folds, 5 rates, batch 32, 13 x 768 means.

    Clips of 50 ms of noise and an encoder with little inside give means of the right shape: the
    speed of probes does not depend on their values. The seconds are the difference of a training
    of so many steps and one of a tenth of them, so that all that is not training cancels.
    """
    grid = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5][:rates]
    with tempfile.TemporaryDirectory() as folder, cached_in(Path(folder) / "cache"):
        place = Path(folder)
        of = [str(1 + 5 * i // clips) for i in range(clips)]
        data = write_manifest(place / "clips", noise(clips, 0.05), [""] * clips, of)
        encoder = save_encoder(place / "encoder", "thin")

        def train(name: str, count: int) -> Run:
            return run(
                place / "runs", name, data, encoder, "-p", "none", "--protocol",
                "manifest-sessions", "--tune", "lr", *keys(
                    train_lr_grid=grid, train_steps=count, train_epochs=None, train_batch_size=32,
                    train_eval_every=min(1000, count), train_patience=None,
                    train_select="accuracy",
                ),
            )  # fmt: skip

        short = max(1, steps // 10)
        train("fill", 1)
        first, second = train("short", short), train("long", steps)
        scale = steps / (steps - short)
        return {
            "seconds": (second.seconds - first.seconds) * scale,
            "cpu_seconds": (second.processor_seconds - first.processor_seconds) * scale,
            "steps": steps,
        }


def growth(count: int = 16, seconds: float = 3.0, **_: Any) -> dict[str, Any]:
    """LoRA on HuBERT base, bf16: the frozen part and an epoch, for so many clips of a length."""
    with tempfile.TemporaryDirectory() as folder, cached_in(Path(folder) / "cache"):
        side = Ours(Path(folder), count, seconds)
        epoch = -(-count // BATCH)
        figures = side.timed("lora", epoch, train_precision="bf16", train_batch_seconds=24.0)
        whole = (count + 8) * seconds / 3600
        return {
            "epoch_seconds": figures["seconds_per_step"] * epoch,
            "frozen_seconds": figures["frozen_seconds"] * count / (count + 8),
            "audio_hours": whole * count / (count + 8),
        }


def floor(method: str, precision: str = "fp32", steps: int = 3, **_: Any) -> dict[str, Any]:
    """Where a step's time goes, against its operations at the rate of a large matrix product."""
    from torch.utils.flop_counter import FlopCounterMode

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    product = min(timed(lambda _: torch.mm(a, b), 5, 3)["seconds_per_step"] for _ in range(3))
    rate = 2 * 2048**3 / product
    operations, profiles = [], []
    with tempfile.TemporaryDirectory() as folder, cached_in(Path(folder) / "cache"):
        side = Ours(Path(folder), BATCH, SECONDS)
        seconds = side.timed(method, steps, train_precision=precision)["seconds_per_step"]
        for extra, count in enumerate((1, 1 + steps)):  # a training of its own each: other steps
            name = f"counted{extra}"
            flags = [*steady(count, BATCH, SECONDS), *keys(train_precision=precision)]
            with FlopCounterMode(display=False) as counter, torch.profiler.profile() as profile:
                run(side.out, name, side.data, side.encoder, "-p", method, *flags)
            operations.append(counter.get_total_flops())
            profiles.append({e.key: e.self_cpu_time_total for e in profile.key_averages()})
    per_step = (operations[1] - operations[0]) / steps
    spent = {k: max(0, v - profiles[0].get(k, 0)) for k, v in profiles[1].items()}
    total = sum(spent.values())
    return {
        "seconds_per_step": seconds,
        "operations": per_step,
        "matrix_product_per_second": rate,
        "floor_seconds": per_step / rate,
        "share_of_floor": per_step / rate / seconds,
        "profile": {
            k: round(v / total, 3) for k, v in sorted(spent.items(), key=lambda e: -e[1])[:10]
        },
    }


CASES = {f.__name__: f for f in (plain, ours, fill, s3prl_way, superb_probes, growth, floor)}


def main() -> None:
    """Run one case and print its result."""
    warnings.filterwarnings("ignore")
    arguments = json.loads(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr), Resident() as memory:
        result = CASES[arguments.pop("case")](**arguments)
    result["peak_bytes"] = memory.bytes
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # no waiting for libraries' threads


if __name__ == "__main__":
    main()
