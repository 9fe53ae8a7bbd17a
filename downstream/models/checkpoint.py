"""Files of a fold: progress while it trains, and the adapter with its head when it is done.

The finished checkpoint is two files: ``adapter.safetensors`` (every tensor that trained, and the
head) and ``adapter.json`` (upstream, method, head, classes: all that is needed to rebuild them).
Both are data; nothing is unpickled but tensors and plain values (``weights_only=True``).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emopeft.errors import UserError
from emopeft.files import read_json, write_json, writing

TENSORS, CONFIG = "adapter.safetensors", "adapter.json"
CONFIG_KEYS = ("schema", "upstream", "method", "head", "task", "classes", "corpus", "protocol")


def write_progress(path: Path, progress: dict[str, Any]) -> None:
    """Keep the state of a training that is under way."""
    with writing(path) as temporary:
        try:
            torch.save(progress, temporary)
        except RuntimeError as error:  # torch's writer reports a full disk this way
            raise OSError(str(error).partition("\n")[0]) from error


def read_progress(path: Path) -> dict[str, Any]:
    """Read what `write_progress` wrote; raises UserError when the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(
            f"the checkpoint {path} is damaged ({str(error).partition(chr(10))[0][:120]}); delete "
            "it to train this fold from its start"
        ) from None


def write_adapter(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write a finished checkpoint, tensors first."""
    with writing(folder / TENSORS) as temporary:
        try:
            save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error
    write_json(folder / CONFIG, config)


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a finished checkpoint; raises UserError naming the file that is missing or damaged."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("schema") != 1:
        raise UserError(f"{folder / CONFIG} is not a checkpoint of schema 1")
    for name in CONFIG_KEYS:
        if name not in config:
            raise UserError(f"{folder / CONFIG} has no key '{name}'; train the fold again")
    path = folder / TENSORS
    if not path.is_file():
        raise UserError(f"{path} does not exist; train the fold again")
    try:
        return load_file(path), config
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); train the fold again") from None
