"""The folders of all caches under a root: which there are, which are used, making room, cleaning.

A process that uses a cache leaves a marker in its folder; a marker whose process is gone counts
for nothing. So nothing that a run reads is ever deleted under it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tabulate import tabulate

from emopeft.errors import UserError
from emopeft.files import read_json

DAY = 86400.0
_marked: set[Path] = set()


def default_root() -> Path:
    """$EMOPEFT_CACHE, else ~/.cache/emopeft."""
    return Path(os.environ.get("EMOPEFT_CACHE") or Path.home() / ".cache" / "emopeft")


@dataclasses.dataclass
class Folder:
    """One cache on disk."""

    path: Path
    key: dict[str, Any]
    bytes: int
    used: float  # seconds since the epoch
    busy: bool  # whether a living process uses it


def in_use(folder: Path) -> None:
    """Mark a cache as used by this process, until it ends."""
    marker = folder / f".used.{socket.gethostname()}.{os.getpid()}"
    if marker not in _marked:
        _marked.add(marker)
        atexit.register(_unmark_own, marker, os.getpid())
    marker.touch()


def _unmark_own(marker: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves its parent's markers alone
        _unmark(marker)


def _unmark(marker: Path) -> None:
    with contextlib.suppress(OSError):
        marker.unlink(missing_ok=True)


def is_busy(folder: Path) -> bool:
    """Whether a living process uses a cache; on another machine: was started in the last day."""
    for marker in folder.glob(".used.*"):
        host, _, process = marker.name.removeprefix(".used.").rpartition(".")
        if host == socket.gethostname():
            if process.isdigit() and _alive(int(process)):
                return True
            _unmark(marker)
        else:
            with contextlib.suppress(OSError):
                if time.time() - marker.stat().st_mtime < DAY:
                    return True
    return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def size_of(folder: Path) -> int:
    """Bytes of a cache's shards."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def folders(root: Path) -> list[Folder]:
    """All caches under a root, the least recently used first."""
    found = []
    for path in sorted((root / "features").glob("*/key.json")):
        try:
            key, used = read_json(path), path.stat().st_mtime
        except (UserError, OSError):
            key, used = {}, 0.0  # unreadable: the first to go
        key = key if isinstance(key, dict) else {}
        folder = path.parent
        found.append(Folder(folder, key, size_of(folder), used, is_busy(folder)))
    return sorted(found, key=lambda f: f.used)


def remove(folder: Folder) -> None:
    """Delete a cache. Raises UserError when the file system refuses."""
    try:
        shutil.rmtree(folder.path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"cannot delete the cache {folder.path}: {error.strerror}") from error


def make_room(root: Path, limit: float, wanted: float, keep: Path) -> list[Folder]:
    """Delete the least recently used caches until ``wanted`` more bytes fit under ``limit``.

    Raises:
        UserError: they do not fit although nothing is left that may be deleted.
    """
    found = folders(root)
    total = sum(f.bytes for f in found)
    gone = []
    for folder in found:
        if total + wanted <= limit:
            break
        if folder.path != keep and not folder.busy:
            remove(folder)
            total -= folder.bytes
            gone.append(folder)
    if total + wanted > limit:
        raise UserError(
            f"the frozen part needs {(total + wanted) / 1e9:.3g} GB under {root}, and cache.limit "
            f"is {limit / 1e9:.3g} GB; raise it, take cache.dtype=fp16 (half the size), or "
            "cache.enabled=false (nothing is kept, all is computed in every step)"
        )
    return gone


def table(found: Sequence[Folder]) -> str:
    """What `list` prints."""
    rows = []
    for f in sorted(found, key=lambda f: -f.used):
        when = datetime.datetime.fromtimestamp(f.used).strftime("%Y-%m-%d %H:%M")
        kept = f"{f.key.get('start', '?')}, {f.key.get('states', '?')}"
        rows.append(
            [f.path.name[:8], f.key.get("name", "?"), kept, f.key.get("dtype", "?"), clips(f),
             f"{f.bytes / 1e6:,.1f} MB", when, "in use" if f.busy else ""]
        )  # fmt: skip
    headers = ["id", "upstream", "starts at, states", "format", "clips", "size", "last use", ""]
    total = sum(f.bytes for f in found)
    lines = [tabulate(rows, headers, tablefmt="simple", colalign=("left",) * 4 + ("right",) * 2)]
    return "\n".join([*lines, f"{len(found)} caches, {total / 1e9:.3g} GB"])


def clips(folder: Folder) -> int:
    """How many utterances a cache holds."""
    names: set[str] = set()
    for path in folder.path.glob("*.safetensors"):
        unreadable = contextlib.suppress(SafetensorError, OSError, ValueError, TypeError, KeyError)
        with unreadable, safe_open(path, framework="pt") as shard:
            names |= set(json.loads(shard.metadata()["items"]))
    return len(names)
