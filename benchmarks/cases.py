"""The cases that are timed, each in a process of its own.

    python -m benchmarks.cases '{"case": "ours", "method": "lora", "precision": "fp32"}'

prints one line of JSON. The plain loops are what a user of transformers and peft writes, with
these libraries' defaults.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
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

from benchmarks.material import BATCH, CLASSES, examples, hubert, labels_of, plain_hubert, task
from benchmarks.material import waveforms as clips

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
    model, head = plain_hubert(), PlainHead(1)
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
    wavs = torch.stack(clips(EPOCH, SECONDS))
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


def ours_trainer(
    method: str, precision: str, cache: bool, wavs: list[Tensor], folder: Path,
    dtype: str = "fp32", **train: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """A Trainer of ours on HuBERT base, and its Examples."""
    from emopeft.downstream.data.recipe import CacheKeys, TrainKeys
    from emopeft.downstream.models.build import assemble
    from emopeft.downstream.models.heads import make_head
    from emopeft.downstream.runs.session import make_accelerator
    from emopeft.downstream.training.trainer import Trainer
    from emopeft.peft_modules.apply import adapt

    adaptation = adapt(hubert(), method, prove=False)
    torch.manual_seed(0)
    head = make_head("superb", width=768, states=LAYERS, outputs=len(CLASSES))
    model = assemble(adaptation, head, dropout=False)
    kept = examples(
        adaptation.upstream, adaptation.start, wavs, folder, CacheKeys(dtype=dtype, enabled=cache)
    )
    keys = TrainKeys(optimizer="adamw", batch_size=BATCH, precision=precision, **train)
    everything = list(range(len(wavs)))
    trainer = Trainer(
        model, kept, task(), everything, everything, keys, 1e-4, 0, make_accelerator(precision)
    )
    trainer.model.train()
    return trainer, kept


def ours(
    method: str, precision: str = "fp32", cache: bool = True, steps: int = 2, dtype: str = "fp32",
    **train: Any,
) -> dict[str, Any]:  # fmt: skip
    """Our trainer's optimiser steps."""
    with tempfile.TemporaryDirectory() as folder:
        wavs = clips(EPOCH, SECONDS)
        started = time.perf_counter()
        trainer, kept = ours_trainer(method, precision, cache, wavs, Path(folder), dtype, **train)
        prepared = time.perf_counter() - started

        def step(i: int) -> None:
            trainer._optimise([(i * BATCH + k) % EPOCH for k in range(BATCH)])

        hours = sum(kept.seconds) / 3600
        return timed(step, steps) | {
            "trainable": sum(p.numel() for p in trainer.parameters),
            "frozen_seconds": kept.frozen_seconds(),
            "prepare_seconds": prepared,
            "cache_bytes_per_hour": kept.stored_bytes() / hours,
            "drift": kept.drift,
        }


def fill(clips_count: int = 16, **_: Any) -> dict[str, Any]:
    """The frozen part of the probe: seconds per clip of the corpus' own length."""
    from emopeft.downstream.data.recipe import CacheKeys

    with tempfile.TemporaryDirectory() as folder:
        upstream = hubert()
        wavs = clips(clips_count, None)
        kept = examples(upstream, upstream.num_blocks, wavs, Path(folder), CacheKeys())
        return {
            "seconds_per_clip": kept.frozen_seconds() / clips_count,
            "bytes_per_clip": kept.stored_bytes() / clips_count,
            "clip_seconds": sum(kept.seconds) / clips_count,
        }


def s3prl_way(steps: int = 1, **_: Any) -> dict[str, Any]:
    """An optimiser step as s3prl does it: 8 batches of 4 waveforms through the whole upstream."""
    model, head = plain_hubert().eval(), PlainHead(LAYERS)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-4)
    wavs, labels = clips(32, None), torch.tensor(labels_of(32))

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


def superb_probes(steps: int = 30000, rates: int = 5, **_: Any) -> dict[str, Any]:
    """SUPERB's protocol on a cache of IEMOCAP's size: 5 folds, 5 rates, batch 32, 5531 x 13 x 768.

    The means are random numbers with a little of the class in them: speed does not depend on them.
    """
    from emopeft.downstream.data.recipe import TrainKeys
    from emopeft.downstream.models.heads import make_head
    from emopeft.downstream.training.probes import Probe, choose, train_probes

    sessions = (1085, 1023, 1151, 1031, 1241)
    of = [k for k, size in enumerate(sessions) for _ in range(size)]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (len(of),), generator=generator)
    means = torch.randn(len(of), LAYERS, 768, generator=generator)
    means += torch.randn(4, LAYERS, 768, generator=generator)[labels] * 0.05
    keys = TrainKeys(steps=steps, epochs=None, batch_size=32, eval_every=1000, patience=None,
                     select="accuracy")  # fmt: skip
    grid = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5][:rates]
    probes = []
    for fold in range(5):
        others = [i for i, session in enumerate(of) if session != fold]
        mixed = torch.randperm(len(others), generator=generator).tolist()
        cut = int(0.8 * len(others))
        train, dev = [others[i] for i in mixed[:cut]], [others[i] for i in mixed[cut:]]
        torch.manual_seed(0)
        head = make_head("superb", width=768, states=LAYERS, outputs=4)
        probes.append(Probe(head, means, labels, train, dev, task(), keys, grid, 0))
    started, cpu = time.perf_counter(), time.process_time()
    for _done in train_probes(probes, quiet=True):
        pass
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "steps": steps,
        "chosen": [grid[choose(p.trials, "accuracy")] for p in probes],
    }


def growth(count: int = 16, seconds: float = 3.0, **_: Any) -> dict[str, Any]:
    """LoRA on HuBERT base: the frozen part and an epoch, for so many clips of so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        wavs = [w for _, w in zip(range(count), repeat(clips(8, seconds)), strict=False)]
        trainer, kept = ours_trainer("lora", "bf16", True, wavs, Path(folder), batch_seconds=24.0)
        trainer._optimise(list(range(BATCH)))  # warm-up
        started = time.perf_counter()
        for first in range(0, count, BATCH):
            trainer._optimise(list(range(first, min(first + BATCH, count))))
        return {
            "epoch_seconds": time.perf_counter() - started,
            "frozen_seconds": kept.frozen_seconds(),
            "audio_hours": sum(kept.seconds) / 3600,
        }


def repeat(items: list[Any]) -> Any:
    """The items again and again."""
    while True:
        yield from items


def floor(method: str, precision: str = "fp32", steps: int = 3, **_: Any) -> dict[str, Any]:
    """Where a step's time goes, against its operations at the rate of a large matrix product."""
    from torch.utils.flop_counter import FlopCounterMode

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    product = min(timed(lambda _: torch.mm(a, b), 5, 3)["seconds_per_step"] for _ in range(3))
    rate = 2 * 2048**3 / product
    with tempfile.TemporaryDirectory() as folder:
        wavs = clips(BATCH, SECONDS)
        trainer, _kept = ours_trainer(method, precision, True, wavs, Path(folder))
        indices = list(range(BATCH))
        seconds = timed(lambda _: trainer._optimise(indices), steps)["seconds_per_step"]
        with FlopCounterMode(display=False) as counter:
            trainer._optimise(indices)
        with torch.profiler.profile() as profile:
            trainer._optimise(indices)
    rows = sorted(profile.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in rows)
    operations = counter.get_total_flops()
    return {
        "seconds_per_step": seconds,
        "operations": operations,
        "matrix_product_per_second": rate,
        "floor_seconds": operations / rate,
        "share_of_floor": operations / rate / seconds,
        "profile": {e.key: round(e.self_cpu_time_total / total, 3) for e in rows[:10]},
    }


CASES = {f.__name__: f for f in (plain, ours, fill, s3prl_way, superb_probes, growth, floor)}


def main() -> None:
    """Run one case and print its result."""
    warnings.filterwarnings("ignore")
    arguments = json.loads(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):
        result = CASES[arguments.pop("case")](**arguments)
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # no waiting for libraries' threads


if __name__ == "__main__":
    main()
