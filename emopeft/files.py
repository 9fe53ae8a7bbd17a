"""Files: whole or not there, regular and bounded when read, locked, hashed.

Everything that is written goes to a unique temporary name and is then renamed. A process that is
killed leaves at most a temporary file, which a later writer of the same target removes after a
day. Reading is in `emopeft.reading` and locks in `emopeft.locks`; both are used from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emopeft.errors import UserError
from emopeft.locks import Busy, Held, hold, is_held, locked
from emopeft.reading import MAX_JSON, open_regular, read_bytes, read_json, read_text

__all__ = [
    "MAX_JSON", "Busy", "Held", "cache_root", "default_root", "digest", "file_digest", "hold",
    "is_held", "locked", "open_regular", "orphans", "read_bytes", "read_json", "read_text",
    "remove_all", "write_json", "write_text", "writing", "writing_folder",
]  # fmt: skip

ORPHAN_SECONDS = 86400.0  # a temporary file older than this belongs to nobody
PROBE_BYTES = 1 << 20
ELSEWHERE = "free some space or choose another place with --out"


def default_root() -> Path:
    """Where things are kept between runs: $EMOPEFT_CACHE, else ~/.cache/emopeft."""
    return Path(os.environ.get("EMOPEFT_CACHE") or Path.home() / ".cache" / "emopeft")


def cache_root(place: str | None) -> Path:
    """Where caches are kept: at the place that a recipe names, else `default_root`."""
    return Path(place).expanduser() if place else default_root()


# ---- writing --------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: Path, way_out: str = ELSEWHERE) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is renamed to ``path``.

    The temporary file is there, empty, with the mode that the umask asks for; whoever writes may
    replace it (safetensors makes files that only their owner can read) and the mode is restored.
    A failure (a full disk, an interrupt) leaves whatever was at ``path`` untouched and removes
    the temporary file. An OSError, or whatever a library makes of one, becomes a UserError naming
    the path.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
        mode = _create(temporary)
        yield temporary
        _set_mode(temporary, mode)
        temporary.replace(path)
    except UserError:
        raise
    except Exception as error:
        reason = _reason(error, temporary)
        if reason is None:
            raise
        raise UserError(f"cannot write {path}: {reason}; {way_out}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(path: Path, way_out: str = ELSEWHERE) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it is renamed to ``path``.

    A failure leaves nothing behind. Raises UserError when ``path`` holds something already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already; give a new directory")
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
        temporary.mkdir()
        mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
        yield temporary
        for place, _, names in os.walk(temporary):
            for name in names:
                _set_mode(Path(place) / name, mode)
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    except UserError:
        raise
    except Exception as error:
        reason = _reason(error, temporary / "probe")
        if reason is None:
            raise
        raise UserError(f"cannot write {path}: {reason}; {way_out}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, all or nothing."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, all or nothing. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def orphans(folder: Path, older: float = ORPHAN_SECONDS, of: str | None = None) -> list[Path]:
    """Temporary files and folders that killed writers left in ``folder``.

    Args:
        older: seconds since they were last written to.
        of: the name of the target they were meant for; None: of any.
    """
    target = ".+" if of is None else re.escape(of)
    pattern = re.compile(rf"\.{target}\.[0-9a-f]+\.tmp")
    latest, leftovers = time.time() - older, []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime <= latest:
                        leftovers.append(Path(entry.path))
    return leftovers


def remove_all(paths: list[Path]) -> None:
    """Delete files and folders, as far as the file system lets us."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    # Process ids repeat: two containers that share a disk both have a process 1.
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _remove_orphans(path: Path) -> None:
    remove_all(orphans(path.parent, of=path.name))


def _create(path: Path) -> int:
    """Make an empty file; the mode that the umask left it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(file).st_mode)
    finally:
        os.close(file)


def _set_mode(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.lstat().st_mode) != mode:
        path.chmod(mode)


def _reason(error: Exception, probe: Path) -> str | None:
    """Why a file could not be written; None where the error is about something else.

    torch and safetensors have errors of their own for a full disk ("unexpected pos 32832"): whether
    it was one is seen by writing a little more.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    try:
        with probe.open("ab") as file:
            file.write(b"\0" * PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as failure:
        return failure.strerror or str(failure)
    return None


# ---- hashes ---------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file's bytes; raises UserError as `open_regular` does."""
    sha = hashlib.sha256()
    with open_regular(path) as file:
        try:
            while chunk := file.read(1 << 20):
                sha.update(chunk)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return sha.hexdigest()
