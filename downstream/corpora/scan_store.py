"""What was found out about audio files, kept in one small database in the cache."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import soundfile

from emopeft.downstream.corpora.audio import Clip

logger = logging.getLogger(__name__)

NAME = "scans.sqlite3"
FORMAT = f"1, libsndfile {soundfile.__libsndfile_version__}"  # raised with what `examine` does
YOUNG = 2.0  # seconds: a file may change again without its time of change telling
WAIT = 30.0  # seconds for other writers
CHUNK = 500  # paths in a query
KINDS = {"str": str, "int": int, "float": float}
FIELDS = {
    f.name: KINDS[str(f.type)]
    for f in dataclasses.fields(Clip)
    if f.name not in ("path", "kind", "problem")
}


class ScanStore:
    """Clips by path, for as long as a file's size and times of change are what they were.

    It is a cache: whatever is wrong with it, the files are decoded instead.

    Args:
        folder: where the database lies; made when something is first kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / NAME
        self._database: sqlite3.Connection | None = None
        self._reading_only = True
        self._off = False

    @staticmethod
    def state(path: Path) -> str | None:
        """What tells that a file has changed; None where that cannot be told."""
        with contextlib.suppress(OSError, ValueError):
            status = path.stat()
            # A time of change in the future may come again.
            if max(status.st_mtime, status.st_ctime) <= time.time() - YOUNG:
                times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
                return f"{FORMAT}, {status.st_size} {times}"
        return None

    def get(self, paths: Sequence[Path]) -> dict[Path, Clip]:
        """What is kept of those files that have not changed since."""
        if self._off or not self.path.exists():
            return {}
        by_name = {name_of(path): path for path in paths}
        names, clips = list(by_name), {}
        try:
            database = self._connect(write=False)
            for first in range(0, len(names), CHUNK):
                chunk = names[first : first + CHUNK]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT path, state, facts, crc FROM clips WHERE path IN ({marks})"
                for name, state, facts, crc in database.execute(query, chunk):
                    path = by_name[name]
                    clip = _clip(path, state, facts, crc)
                    if clip is not None and state == self.state(path):
                        clips[path] = clip
        except sqlite3.Error as error:
            if "no such table" not in str(error):  # whoever was to make it was killed
                self._fail(error)
        return clips

    def put(self, clips: Iterable[tuple[Path, str | None, Clip]]) -> None:
        """Keep what is known of usable files, each in a state that `state` gave (not None)."""
        rows = []
        for path, state, clip in clips:
            if state is not None and clip.problem is None:
                facts = json.dumps({name: getattr(clip, name) for name in FIELDS})
                rows.append((name_of(path), state, facts, _crc(name_of(path), state, facts)))
        if not rows or self._off:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            database = self._connect(write=True)
            with database:
                database.executemany("INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _connect(self, write: bool) -> sqlite3.Connection:
        if self._database is None:
            if write:
                self._database = sqlite3.connect(self.path, timeout=WAIT)
            else:
                place = f"{self.path.absolute().as_uri()}?mode=ro"
                self._database = sqlite3.connect(place, timeout=WAIT, uri=True)
            self._reading_only = not write
        elif write and self._reading_only:
            self.close()
            return self._connect(write=True)
        if write:
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS clips "
                "(path TEXT PRIMARY KEY, state TEXT, facts TEXT, crc INTEGER)"
            )
        return self._database

    def _fail(self, error: Exception) -> None:
        """Go on without; a database that is none is taken out, one that is only busy stays."""
        self.close()
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        )
        logger.warning(
            "what was found out about the audio cannot be kept in %s (%s); the files are read anew",
            self.path,
            error,
        )
        self._off = not damaged
        if damaged:
            for suffix in ("", "-journal"):
                with contextlib.suppress(OSError):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def name_of(path: Path) -> str:
    """The path in full, as text that any database takes (names need not be UTF-8)."""
    name = str(path.absolute()).encode("utf-8", "surrogatepass")
    return name.decode("utf-8", "backslashreplace")


def _crc(name: str, state: str, facts: str) -> int:
    return zlib.crc32("\n".join((name, state, facts)).encode())


def _clip(path: Path, state: Any, facts: Any, crc: Any) -> Clip | None:
    """A clip from its row; None where the row is not what was written."""
    if not (isinstance(state, str) and isinstance(facts, str)):
        return None
    if crc != _crc(name_of(path), state, facts):
        return None
    with contextlib.suppress(ValueError, TypeError, KeyError):
        values = json.loads(facts)
        return Clip(path=path, **{name: kind(values[name]) for name, kind in FIELDS.items()})
    return None
