"""All audio decoded and described once, before training: one error lists all broken files.

What a file turned out to hold is kept in the cache (``scans.sqlite3``), and counts for as long as
its size and its times of change stay the same. Processes and runs share it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from emopeft.downstream.corpora.audio import MINIMUM_SECONDS, Clip, examine
from emopeft.downstream.corpora.base import Utterance, listing
from emopeft.downstream.corpora.scan_store import ScanStore, name_of
from emopeft.errors import UserError
from emopeft.files import Busy, digest, locked

logger = logging.getLogger(__name__)

KEPT_AT_ONCE = 500  # clips: what an interrupted scan loses at most


@dataclasses.dataclass(frozen=True)
class Scan:
    """What reading every file once gave, by the utterances' uid.

    Attributes:
        seconds: durations of the usable ones.
        digests: SHA-256 of the file's bytes, for those that could be read.
        audio: SHA-256 of the decoded samples (`Clip.audio`), for the usable ones.
        problems: one sentence per unusable file, in the order of the utterances.
        clips: everything found out.
    """

    seconds: dict[str, float]
    digests: dict[str, str]
    audio: dict[str, str]
    problems: list[str]
    clips: dict[str, Clip]

    def raise_if_broken(self) -> None:
        """Raise one UserError that lists the problems, 20 of them at most."""
        if self.problems:
            count = f"{len(self.problems)} audio files" if self.problems[1:] else "1 audio file"
            raise UserError(
                f"{count} cannot be used; restore or remove them:\n{listing(self.problems)}"
            )


def scan(
    utterances: Sequence[Utterance],
    minimum_seconds: float = MINIMUM_SECONDS,
    progress: bool | None = None,
    store: Path | None = None,
    verify: bool = False,
) -> Scan:
    """Decode every utterance's file once, in a few threads, and collect what is wrong.

    Args:
        minimum_seconds: clips below this are a problem.
        progress: whether to show a bar; None: only on a terminal.
        store: the cache's folder, where what is found out is kept; None: nowhere.
        verify: decode all files anew, and warn where one is no longer what was kept of it.
    """
    paths = list(dict.fromkeys(u.path for u in utterances))
    if store is None:
        by_path = _decode(paths, minimum_seconds, progress, None)
    else:
        with contextlib.closing(ScanStore(store)) as database:
            by_path = _kept_or_decoded(paths, minimum_seconds, progress, database, verify)
    clips = {u.uid: by_path[u.path] for u in utterances}
    return Scan(
        seconds={name: clip.seconds for name, clip in clips.items() if not clip.problem},
        digests={name: clip.digest for name, clip in clips.items() if clip.digest},
        audio={name: clip.audio for name, clip in clips.items() if not clip.problem},
        problems=[clip.problem for u in utterances if (clip := by_path[u.path]).problem],
        clips=clips,
    )


def _kept_or_decoded(
    paths: list[Path], minimum: float, progress: bool | None, store: ScanStore, verify: bool
) -> dict[Path, Clip]:
    clips = _usable(store, paths, minimum)
    if verify:
        fresh = _decode(paths, minimum, progress, store)
        for path, clip in clips.items():
            if clip != fresh[path]:
                logger.warning(
                    "%s is not what was kept of it, although its size and times are the same: "
                    "the disk may be failing",
                    path,
                )
        return fresh
    todo = [path for path in paths if path not in clips]
    if not todo:
        return clips
    # Several processes of one run ask for the same files: one decodes, the others read what it
    # kept. Who asks for other files is not held up.
    with _alone(store.folder / f".scan-{digest([name_of(p) for p in paths])[:16]}.lock"):
        clips |= _usable(store, todo, minimum)
        todo = [path for path in todo if path not in clips]
        clips |= _decode(todo, minimum, progress, store)
    return clips


def _usable(store: ScanStore, paths: Sequence[Path], minimum: float) -> dict[Path, Clip]:
    """What is kept of unchanged files; a clip that is too short is decoded again, to be told so."""
    return {path: clip for path, clip in store.get(paths).items() if clip.seconds >= minimum}


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            try:
                stack.enter_context(locked(lock))
            except Busy:
                logger.warning("waiting for another process that reads the same audio")
                stack.enter_context(locked(lock, wait=math.inf))
        except UserError:  # a disk that cannot be written to: everyone decodes
            yield
            return
        yield
        with contextlib.suppress(OSError):  # one lock for each set of files: they would add up
            lock.unlink(missing_ok=True)


def _decode(
    paths: Sequence[Path], minimum: float, progress: bool | None, store: ScanStore | None
) -> dict[Path, Clip]:
    bar = tqdm(
        total=len(paths),
        desc="reading audio",
        unit="file",
        disable=None if progress is None else not progress,
    )
    clips: dict[Path, Clip] = {}
    fresh: list[tuple[Path, str | None, Clip]] = []

    def look(path: Path) -> tuple[Path, str | None, Clip]:
        state = None if store is None else store.state(path)
        clip = examine(path, minimum)
        unchanged = state is not None and store is not None and store.state(path) == state
        return path, state if unchanged else None, clip

    # Decoding and hashing release the interpreter lock.
    with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for path, state, clip in pool.map(look, paths):
                clips[path] = clip
                fresh.append((path, state, clip))
                if store is not None and len(fresh) >= KEPT_AT_ONCE:
                    store.put(fresh)
                    fresh = []
                bar.update()
        finally:
            if store is not None:
                store.put(fresh)
    return clips
