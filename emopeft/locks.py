"""Locks that die with their owner: the system's, on a file, never a process id written down.

A process id says nothing to another machine or container. What the system locks is released when
its owner ends, however it ends.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emopeft.errors import UserError

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows has none: there, nothing is known to be held
    import fcntl


class Busy(UserError):
    """Somebody else holds a lock."""


@contextlib.contextmanager
def locked(path: Path, wait: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``, which is made where it is missing and stays.

    Args:
        wait: seconds to wait for another owner; None: not at all; ``math.inf``: for ever.

    Raises:
        Busy: another process, or another part of this one, holds it.
        UserError: the file cannot be made.
    """
    import filelock  # not cheap, and most commands lock nothing

    seconds = 0.0 if wait is None else -1.0 if math.isinf(wait) else wait
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
        lock = filelock.FileLock(path)
        lock.acquire(timeout=seconds)
    except filelock.Timeout:
        raise Busy(f"{path} is locked by another process; wait for it to end") from None
    except RuntimeError as error:  # this thread holds it already, so waiting would never end
        raise Busy(f"{path} is locked by this process already") from error
    except OSError as error:
        raise UserError(f"cannot lock {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _make(path: Path) -> None:
    """Whoever may write into the folder may lock the file, and so open it for writing."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(file, 0o600 | path.parent.stat().st_mode & 0o666)
    finally:
        os.close(file)


# ---- in use, by any number of processes -----------------------------------------------------


class Held:
    """A file that this object keeps in use until it is closed, collected, or its process ends."""

    def __init__(self, file: int):
        self._file: int | None = file

    def close(self) -> None:
        """No longer in use by this object."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def hold(path: Path) -> Held | None:
    """Keep an existing file in use, which needs no more than reading it.

    Returns:
        None where the file system has no locks.

    Raises:
        OSError: the file is not there (any more), or cannot be read.
    """
    if fcntl is None:
        return None
    while True:
        lock = Held(os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
        try:
            assert lock._file is not None
            fcntl.flock(lock._file, fcntl.LOCK_SH)
        except OSError:
            return None
        if _same(lock._file, path):
            return lock  # else whoever had it locked has deleted it meanwhile


@contextlib.contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether no process holds a file; while the block runs, none can begin to.

    A file that cannot be read, or is on a file system without locks, counts as not held.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        yield True
        return
    try:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:
            free = True
        yield free
    finally:
        os.close(file)


def is_held(path: Path) -> bool:
    """Whether some process, this one included, holds a file (`hold`)."""
    with unused(path) as free:
        return not free


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
