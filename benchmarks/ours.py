"""Our side of the cases: trainings by the command line, timed by their difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.driving import Run, keys, run, save_encoder, sides, steady, write_manifest
from benchmarks.speech import waveforms

BATCH = 8


class Ours:
    """Our command line on HuBERT base and clips, in a folder that is removed in the end.

    The seconds of a step are the difference of two trainings of different length, so that loading,
    proofs and the evaluation cancel.
    """

    def __init__(self, folder: Path, wavs: list[Tensor], batch: int = BATCH, size: str = "base"):
        self.out, self.batch = folder / "runs", batch
        self.seconds = max(map(len, wavs)) / 16e3
        self.encoder = save_encoder(folder / "encoder", size)
        extra = waveforms(len(wavs) + 8, self.seconds)[-8:]  # for dev and test
        self.data = write_manifest(folder / "clips", [*wavs, *extra], sides(len(wavs)))

    def train(self, name: str, method: str, steps: int, **more: Any) -> Run:
        """So many optimiser steps, in a run of this name."""
        flags = [*steady(steps, self.batch, self.seconds), *keys(**more)]
        return run(self.out, name, self.data, self.encoder, "-p", method, *flags)

    def timed(self, method: str, steps: int, **more: Any) -> dict[str, Any]:
        """Seconds per step, and what the frozen part took."""
        first = self.train("first", method, 1, **more)  # fills the cache
        short = self.train("short", method, 1, **more)
        long = self.train("long", method, 1 + steps, **more)
        return {
            "seconds_per_step": (long.train_seconds() - short.train_seconds()) / steps,
            "processor_seconds_per_step": (long.processor_seconds - short.processor_seconds)
            / steps,
            "trainable": long.trainable(),
            "frozen_seconds": first.frozen_seconds(),
            "prepare_seconds": first.seconds - first.train_seconds(),
        }

    def stored(self) -> int:
        """Bytes of all kept frozen parts."""
        return sum(p.stat().st_size for p in (self.out / "cache").rglob("*.safetensors"))
