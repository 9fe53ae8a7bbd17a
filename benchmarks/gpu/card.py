"""The card: its name, what it can do at most, its clock and its memory."""

from __future__ import annotations

import platform
import subprocess
import time
from importlib import metadata
from typing import Any

import torch

from benchmarks.driving import processor

# Dense operations per second by the makers' data sheets, without sparsity: bf16 (tensor cores,
# fp32 sums), fp32 (no tensor cores) and TF32. The first name that is part of the card's counts.
PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    ("H200", {"bf16": 989e12, "fp32": 67e12, "tf32": 494e12}),
    ("H100 PCIe", {"bf16": 756e12, "fp32": 51e12, "tf32": 378e12}),
    ("H100", {"bf16": 989e12, "fp32": 67e12, "tf32": 494e12}),
    ("A100", {"bf16": 312e12, "fp32": 19.5e12, "tf32": 156e12}),
    ("L40S", {"bf16": 362e12, "fp32": 91.6e12, "tf32": 183e12}),
    ("L4", {"bf16": 121e12, "fp32": 30.3e12, "tf32": 60e12}),
)


def name_of(device: str) -> str:
    """The card's or the processor's name."""
    return torch.cuda.get_device_name() if device == "cuda" else processor()


def available(device: str) -> bool:
    """Whether torch can compute on it."""
    if device == "cuda":
        return torch.cuda.is_available()
    return device == "cpu" or torch.backends.mps.is_available()


def peak_rate(name: str, precision: str) -> float | None:
    """Operations per second by the data sheet; None for a card that is not in the table."""
    return next((rates[precision] for part, rates in PEAKS if part in name), None)


def facts(device: str) -> dict[str, Any]:
    """What it was measured on and with."""
    values: dict[str, Any] = {"device": device, "name": name_of(device)}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        values |= {"memory_bytes": card.total_memory, "driver": _driver()}
        values |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return values | {
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "peft": metadata.version("peft"),
    }


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None


def wait(device: str) -> None:
    """Until all that was started has ended."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def now(device: str) -> float:
    """Seconds by the clock, once the device is idle."""
    wait(device)
    return time.perf_counter()


def reset_memory(device: str) -> None:
    """Count the device's memory from here."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory(device: str) -> int | None:
    """The device's highest memory since, in bytes; None where it has none of its own."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def matrix_rate(device: str, precision: str, size: int) -> float:
    """Operations per second of a product of two square matrices, the best of ten."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(13):  # three to get warm, also fine to count
        started = now(device)
        torch.mm(a, b)
        best = min(best, now(device) - started)
    return 2 * size**3 / best
