"""The speech that benchmarks on a processor run on: real where it is there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.driving import ROOT, SAMPLE_RATE


def speech_files() -> tuple[str, list[Path]]:
    """RAVDESS where it is there, else the demo corpus, made on the spot."""
    shared = Path(os.environ.get("EMOPEFT_SHARED") or ROOT.parent / "shared")
    files = sorted((shared / "data" / "ravdess").rglob("*.flac"))
    if files:
        return "RAVDESS", files
    folder = Path(tempfile.gettempdir()) / "emopeft-benchmark-demo"
    if not folder.is_dir():
        command = [sys.executable, "-m", "downstream.corpora.demo", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return "demo", sorted(folder.rglob("*.wav"))


def waveforms(count: int, seconds: float | None) -> list[Tensor]:
    """Clips (samples,) of different files, spread over the corpus.

    They are cut or repeated to a length; None: as they are.
    """
    files = speech_files()[1]
    if count > len(files):
        raise ValueError(f"{count} clips are asked for, and there are {len(files)}")
    chosen = [files[i * len(files) // count % len(files)] for i in range(count)]
    wavs = [decode(path) for path in chosen]
    if seconds is None:
        return wavs
    size = int(seconds * SAMPLE_RATE)
    return [w.repeat(-(-size // len(w)))[:size].contiguous() for w in wavs]


def decode(path: Path) -> Tensor:
    """A file of these corpora as samples at 16 kHz."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples).mean(1)
    if rate != SAMPLE_RATE:
        import soxr

        mono = torch.from_numpy(soxr.resample(mono.numpy(), rate, SAMPLE_RATE))
    return mono
