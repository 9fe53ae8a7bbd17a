"""Files of a fold: progress while it trains, and the adapter with its head when it is done.

The finished checkpoint is two files: ``adapter.safetensors`` (every tensor that the base weights do
not hold, and the head) and ``adapter.json`` (`AdapterConfig`: upstream, method, head, task: all
that is needed to rebuild them). Both are data; nothing is unpickled but tensors and plain values
(``weights_only=True``).
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emopeft.downstream.models.adapter_config import AdapterConfig, ExportConfig, upgraded
from emopeft.errors import UserError
from emopeft.files import open_regular, read_json, write_json, writing
from emopeft.validation import validated

TENSORS, CONFIG = "adapter.safetensors", "adapter.json"
MAX_TENSORS = 16 << 30  # bytes; full fine-tuning of the largest encoders stays below
MAX_PROGRESS = 64 << 30  # bytes, with the optimiser's state and the best model's
AGAIN = "train the fold again"

UNREADABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(IndexError, pickle.UnpicklingError),
)
# The end of a progress file: SHA-256 of what stands before it, and these letters.
SEAL = b"EmoPEFT progress 2\n"


# ---- progress -------------------------------------------------------------------------------


def write_progress(path: Path, progress: dict[str, Any]) -> None:
    """Keep the state of a training that is under way."""
    with writing(path) as temporary:
        try:
            torch.save(progress, temporary)
        except RuntimeError as error:  # torch's writer reports a full disk this way
            raise OSError(str(error).partition("\n")[0]) from error
        with temporary.open("rb+") as file:
            sha = _sha(file, file.seek(0, io.SEEK_END))
            file.write(sha + SEAL)


def read_progress(path: Path, keys: Collection[str] = ()) -> dict[str, Any]:
    """Read what `write_progress` wrote.

    Args:
        keys: what must be in it.

    Raises:
        UserError: there is none, it is damaged, or something else wrote it.
    """
    with open_regular(path, MAX_PROGRESS) as file:
        end = file.seek(0, io.SEEK_END) - 32 - len(SEAL)
        file.seek(max(end, 0))
        sealed = file.read()
        if end <= 0 or sealed[32:] != SEAL:
            raise _damaged(path, "it ends too early, or another version wrote it")
        if _sha(file, end) != sealed[:32]:
            raise _damaged(path, "its checksum differs")
        file.seek(0)
        try:
            # What follows a zip archive is no part of it.
            progress = torch.load(file, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise _damaged(path, str(error).partition("\n")[0][:120]) from None
    if not isinstance(progress, dict) or (missing := sorted(set(keys) - progress.keys())):
        what = f"it lacks {missing[0]}" if isinstance(progress, dict) else "it holds something else"
        raise _damaged(path, what)
    return progress


def _sha(file: BinaryIO, end: int) -> bytes:
    """SHA-256 of a file's first ``end`` bytes; leaves it at ``end``."""
    sha = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(1 << 20, end - file.tell())):
        sha.update(chunk)
    return sha.digest()


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"the checkpoint {path} is damaged ({why}); delete it to train this fold from its start"
    )


# ---- tensors --------------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors."""
    with writing(path) as temporary:
        try:
            save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read_tensors(path: Path, way_out: str = AGAIN) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        UserError: it is missing, damaged, no regular file, or larger than any checkpoint.
    """
    try:
        open_regular(path, MAX_TENSORS).close()  # the library opens it by its name
    except UserError as error:
        raise UserError(f"{error}; {way_out}") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({str(error)[:200]}); {way_out}") from None


# ---- the finished checkpoint ----------------------------------------------------------------


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a finished checkpoint, tensors first; see `models.build.adapter_config`."""
    checked = validated(folder / CONFIG, AdapterConfig, config)
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / CONFIG, checked.model_dump(mode="json", by_alias=True))


def read_config(path: Path, way_out: str = AGAIN) -> dict[str, Any]:
    """An adapter.json or emopeft.json, checked, of this schema (an older one is converted).

    Raises:
        UserError: a missing or damaged file, naming the key.
    """
    data = upgraded(path, read_json(path), way_out)
    kind = ExportConfig if isinstance(data, dict) and "peft_names" in data else AdapterConfig
    return validated(path, kind, data, way_out).model_dump(mode="json", by_alias=True)


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a finished checkpoint: its tensors, and its adapter.json (`AdapterConfig`) as data.

    Raises:
        UserError: naming the file, and the key, that is missing or damaged.
    """
    config = read_config(folder / CONFIG)
    return read_tensors(folder / TENSORS), config
