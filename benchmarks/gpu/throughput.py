"""Hours of audio per second, extracting and training, with the share of the card's peak.

HuBERT of base or large size with random weights on clips of noise of one length, ours (the command
line) and a plain loop of transformers and peft by turns. Ours is the difference of two trainings of
different length, so that loading, the proof and the evaluation cancel; the plain loop is timed
after two steps. Ours computes what is frozen once, before: its seconds stand under "extraction".
Operations are those that each side's way needs (operations.py), so a share says how busy the card
is, and hours per second say what a user gets.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
import time
from typing import Any

from benchmarks.driving import Run, cached_in, hubert_config, keys, noise, run, steady
from benchmarks.gpu import card, plain
from benchmarks.gpu.operations import Operations
from benchmarks.gpu.report import markdown
from benchmarks.gpu.setting import Setting

BUDGET = 390.0  # seconds after which no further comparison is begun; said in the results


@dataclasses.dataclass(frozen=True)
class Load:
    """How much: clips of so many seconds, batches, and steps (short and long training)."""

    seconds: float = 10.0
    train: int = 64
    extracted: int = 320  # clips
    batches: tuple[tuple[str, int], ...] = (("bf16", 32), ("fp32", 32), ("bf16", 8))
    steps: tuple[int, int] = (5, 35)
    fp32_steps: tuple[int, int] = (3, 11)  # a tenth of bf16's rate, and of its peak
    rounds: int = 2
    methods: tuple[str, ...] = ("lora", "partial:3", "full")
    matrix: int = 8192


SMALL = Load(0.5, 8, 8, (("bf16", 4),), (1, 9), (1, 9), 1, ("lora",), 256)


def measure(setting: Setting, size: str) -> dict[str, Any]:
    """Rows of figures; "left_out" names what there was no time for."""
    load = SMALL if setting.small else Load()
    size = "tiny" if setting.small else size
    begun = time.monotonic()
    rates = {p: card.matrix_rate(setting.device, p, load.matrix) for p, _ in load.batches}
    bench = Bench(setting, size, load, rates)
    left_out, rows = [], []
    for precision, batch in load.batches:
        for method in ("extraction", *load.methods):
            if time.monotonic() - begun > BUDGET:
                left_out.append(f"{method}, {precision}, batch {batch}")
                continue
            one = bench.extraction if method == "extraction" else bench.training
            rows += one(method, precision, batch)
    return {"size": size, "rows": rows, "matrix_rates": rates, "left_out": left_out}


class Bench:
    """The comparisons of one size; all that it makes lies in a folder of its own."""

    def __init__(self, setting: Setting, size: str, load: Load, rates: dict[str, float]):
        self.setting, self.load, self.rates = setting, load, rates
        self.work = setting.work / f"throughput-{size}"
        self.encoder = setting.random_encoder(size)
        self.operations = Operations.of(hubert_config(size), round(load.seconds * 16000))
        self.number = 0

    def extraction(self, method: str, precision: str, batch: int) -> list[dict[str, Any]]:
        """Files to kept time means of all states, from an empty cache each time."""
        data = self.setting.noise(self.load.extracted, self.load.seconds)
        paths = sorted(data.parent.glob("*.wav"))
        seconds = batch * self.load.seconds + 1
        sides: dict[str, list[tuple[float, int | None]]] = {"plain": [], "ours": []}
        for _ in range(self.load.rounds):
            card.reset_memory(self.setting.device)
            took = plain.extract(self.encoder, paths, self.setting.device, precision, batch)
            sides["plain"].append((took, card.memory(self.setting.device)))
            done = self._run(
                data, "none", *keys(train_steps=1, train_epochs=None, train_eval_every=1,
                                    cache_precision=precision, cache_batch_seconds=seconds),
            )  # fmt: skip
            sides["ours"].append((done.frozen_seconds(), self._memory(done)))
            shutil.rmtree(self.work / "cache")  # the next round begins with an empty one
        count = {"plain": self.operations.forward, "ours": self.operations.forward}
        return self._rows(method, precision, batch, len(paths), sides, count)

    def training(self, method: str, precision: str, batch: int) -> list[dict[str, Any]]:
        """Optimiser steps."""
        data = self.setting.noise(self.load.train, self.load.seconds)
        wavs = noise(self.load.train, self.load.seconds)
        few, many = self.load.fp32_steps if precision == "fp32" else self.load.steps
        more = keys(train_precision=precision, cache_precision=precision)
        sides: dict[str, list[tuple[float, int | None]]] = {"plain": [], "ours": []}
        # The frozen part is made by a training that does not count.
        self._run(data, method, *steady(1, batch, self.load.seconds), *more)
        for _ in range(self.load.rounds):
            sides["plain"].append(
                plain.train(self.encoder, wavs, method, self.setting.device, precision, batch,
                            many - few)
            )  # fmt: skip
            short, long = (
                self._run(data, method, *steady(n, batch, self.load.seconds), *more)
                for n in (few, many)
            )
            took = (long.train_seconds() - short.train_seconds()) / (many - few)
            sides["ours"].append((took, self._memory(long)))
        count = {side: self.operations.step(method, side == "ours") for side in sides}
        return self._rows(method, precision, batch, batch, sides, count)

    def _run(self, data: Any, method: str, *arguments: str) -> Run:
        self.number += 1
        with cached_in(self.work / "kept"):
            return run(self.work, f"run{self.number}", data, self.encoder, "-p", method, *arguments)

    @staticmethod
    def _memory(done: Run) -> int | None:
        return done.folds()[0]["peak_memory_bytes"]["device"]

    def _rows(
        self, method: str, precision: str, batch: int, clips: int,
        sides: dict[str, list[tuple[float, int | None]]], count: dict[str, float],
    ) -> list[dict[str, Any]]:  # fmt: skip
        peak = card.peak_rate(card.name_of(self.setting.device), precision)
        rows = []
        for side, each in sides.items():
            # A difference of two short trainings may come out below zero: then it says nothing.
            seconds = max(statistics.median(took for took, _ in each), 0.0) or float("nan")
            rate = count[side] * clips / seconds
            memory = [bytes_ for _, bytes_ in each if bytes_ is not None]
            rows.append(
                {
                    "what": method, "precision": precision, "batch": batch, "side": side,
                    "seconds": known(seconds), "all_seconds": [took for took, _ in each],
                    "audio_hours_per_second": known(clips * self.load.seconds / 3600 / seconds),
                    "operations_per_second": known(rate),
                    "share_of_peak": None if peak is None else known(rate / peak),
                    "share_of_matrix_product": known(rate / self.rates[precision]),
                    "peak_memory_bytes": max(memory, default=None),
                }
            )  # fmt: skip
        return rows


def known(value: float) -> float | None:
    """None for what is no number, as JSON has it."""
    return None if math.isnan(value) else value


def shown(value: float | None, form: str, scale: float = 1.0) -> str:
    """A number in this form; nothing where there is none."""
    return "" if value is None else form.format(value * scale)


def table(results: dict[str, Any]) -> str:
    """Ours and plain, one under the other."""
    lines = [
        [row["what"], row["precision"], str(row["batch"]), row["side"],
         shown(row["audio_hours_per_second"], "{:.3g}"),
         shown(row["operations_per_second"], "{:.3g} T", 1e-12),
         shown(row["share_of_peak"], "{:.0f} %", 100),
         shown(row["share_of_matrix_product"], "{:.0f} %", 100),
         shown(row["peak_memory_bytes"], "{:.2f} GB", 1e-9)]
        for row in results["rows"]
    ]  # fmt: skip
    headers = [f"HuBERT {results['size']}", "precision", "batch", "side", "audio hours per second",
               "operations per second", "of the card's peak", "of a large matrix product",
               "peak memory"]  # fmt: skip
    text = markdown(headers, lines)
    if results["left_out"]:
        text += f"\n\nLeft out for want of time: {'; '.join(results['left_out'])}."
    return text
