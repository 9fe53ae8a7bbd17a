"""Where a result came from: code, packages, machine. Asked when a fold is written, never later."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from emopeft import __version__

PACKAGES = (
    *("emopeft", "torch", "transformers", "s3prl", "peft", "accelerate", "safetensors"),
    *("numpy", "scipy", "scikit-learn", "audmetric", "soundfile", "soxr", "opensmile"),
)
ROOT = Path(__file__).resolve().parents[2]  # of a checkout


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions | {"emopeft": __version__}


@functools.cache
def code_version() -> dict[str, Any]:
    """Our version, and in a checkout its commit and whether tracked files were changed."""
    facts: dict[str, Any] = {"version": __version__, "commit": None, "dirty": None}
    if (ROOT / ".git").exists() and (ROOT / "setup.cfg").is_file():
        commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
        if commit:
            facts |= {"commit": commit.strip(), "dirty": None if status is None else bool(status)}
    return facts


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def device_facts(accelerator: Accelerator) -> dict[str, Any]:
    """Type and name of the device, and how many processes worked together."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {"type": device.type, "name": name, "count": accelerator.num_processes}


@functools.cache
def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip() or "CPU"
    except OSError:
        pass
    return platform.processor() or "CPU"
