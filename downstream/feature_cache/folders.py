"""The folders of all caches under a root: which there are, which are used, making room, cleaning.

Who uses a cache holds its key file (`emopeft.locks`), which needs no more than reading it and ends
with the process. So nothing that a run reads is ever deleted under it, whoever asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from emopeft.downstream.feature_cache.shards import Damaged, Shard
from emopeft.errors import UserError
from emopeft.files import Held, hold, is_held, orphans, read_json, remove_all, writing
from emopeft.locks import unused

KEY = "key.json"  # what a cache is of; its time is that of the last use
# Where the keys of folders of kept states (kept_states.py) say that they start.
PROBE, STAGE, FISHER = "probe", "stage", "fisher"
ELSEWHERE = "choose another place with -o cache.dir=DIR"
YOUNG = 3600.0  # a folder that has no key file yet may be in the making


@dataclasses.dataclass
class Folder:
    """One cache on disk."""

    path: Path
    key: dict[str, Any]
    bytes: int
    used: float  # seconds since the epoch
    busy: bool  # whether a living process uses it


def holding(folder: Path, key: Mapping[str, Any]) -> Held | None:
    """Keep a cache's folder from being deleted while what comes back lives; made if needed.

    Raises UserError where the file system refuses.
    """
    path = folder / KEY
    text = json.dumps(key, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        while True:
            if not path.exists():
                with writing(path, ELSEWHERE) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            try:
                lock = hold(path)
            except FileNotFoundError:
                continue  # somebody has just cleaned up
            with contextlib.suppress(OSError):  # a disk that cannot be written to
                os.utime(path)  # the time of the last use
            return lock
    except OSError as error:
        raise UserError(
            f"cannot use the cache folder {folder}: {error.strerror}; {ELSEWHERE}"
        ) from error


def size_of(folder: Path) -> int:
    """Bytes of all that lies in a cache's folder, the leftovers of killed processes included."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def folders(root: Path) -> list[Folder]:
    """All caches under a root, the least recently used first."""
    caches = []
    with contextlib.suppress(OSError):
        caches = [_folder(p) for p in sorted((root / "features").iterdir()) if _is_cache(p)]
    return sorted(caches, key=lambda f: f.used)


def _is_cache(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _folder(path: Path) -> Folder:
    key: Any = {}
    used, busy = 0.0, False
    with contextlib.suppress(OSError):
        used = path.stat().st_mtime
    try:
        used = (path / KEY).stat().st_mtime
        key = read_json(path / KEY)
    except FileNotFoundError:  # being made just now, or whoever made it was killed
        busy = time.time() - used < YOUNG
    except (UserError, OSError):
        used = 0.0  # unreadable: the first to go
    busy = busy or is_held(path / KEY)
    return Folder(path, key if isinstance(key, dict) else {}, size_of(path), used, busy)


def remove(folder: Folder) -> bool:
    """Delete a cache, unless a process has begun to use it; whether it is gone.

    Raises UserError when the file system refuses.
    """
    with unused(folder.path / KEY) as free:
        if not free:
            return False
        # Renamed first: who comes now begins a new one, and a network disk deletes no open file.
        gone = folder.path.with_name(f".{folder.path.name}.{secrets.token_hex(8)}.tmp")
        try:
            folder.path.rename(gone)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise UserError(f"cannot delete the cache {folder.path}: {error.strerror}") from error
    shutil.rmtree(gone, ignore_errors=True)
    return True


def remove_leftovers(root: Path) -> None:
    """Delete what killed processes left behind: half removed caches, and old half written files."""
    remove_all(orphans(root / "features", 0))
    for path in (root / "features").glob("*/"):
        remove_all(orphans(path))


def make_room(root: Path, limit: float, bytes_needed: float, keep: Path) -> list[Folder]:
    """Delete the least recently used caches until ``bytes_needed`` more bytes fit under ``limit``.

    Raises:
        UserError: they do not fit although nothing is left that may be deleted.
    """
    remove_leftovers(root)
    caches = folders(root)
    total = sum(f.bytes for f in caches)
    removed = []
    for folder in caches:
        if total + bytes_needed <= limit:
            break
        if folder.path != keep and not folder.busy and remove(folder):
            total -= folder.bytes
            removed.append(folder)
    if total + bytes_needed > limit:
        raise UserError(
            f"the frozen part needs {(total + bytes_needed) / 1e9:.3g} GB under {root}, and "
            f"cache.limit is {limit / 1e9:.3g} GB; raise it, take cache.dtype=fp16 (half the "
            "size), or cache.enabled=false (nothing is kept, all is computed in every step)"
        )
    return removed


def table(caches: Sequence[Folder]) -> str:
    """What `list` prints."""
    rows = []
    for f in sorted(caches, key=lambda f: -f.used):
        when = datetime.datetime.fromtimestamp(f.used).strftime("%Y-%m-%d %H:%M")
        extent = f"{f.key.get('start', '?')}, {f.key.get('states', '?')}"
        rows.append(
            [f.path.name[:8], f.key.get("name", "?"), extent, f.key.get("dtype", "?"), clips(f),
             f"{f.bytes / 1e6:,.1f} MB", when, "in use" if f.busy else ""]
        )  # fmt: skip
    headers = ["id", "upstream", "starts at, states", "format", "holds", "size", "last use", ""]
    total = sum(f.bytes for f in caches)
    lines = [tabulate(rows, headers, tablefmt="simple", colalign=("left",) * 4 + ("right",) * 2)]
    return "\n".join([*lines, f"{len(caches)} caches, {total / 1e9:.3g} GB"])


def clips(folder: Folder) -> int:
    """How many utterances a cache holds, or how many kept states."""
    if folder.key.get("start") in (PROBE, STAGE, FISHER):
        return sum(1 for _ in folder.path.glob("*.json")) - 1  # the key's own
    names: set[str] = set()
    for path in folder.path.glob("*.safetensors"):
        with contextlib.suppress(OSError, Damaged):
            names |= set(Shard(path).facts)
    return len(names)
