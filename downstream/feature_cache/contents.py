"""What a cache's folder holds: where each item lies, reading it, and what is damaged."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

from emopeft.downstream.feature_cache.folders import ELSEWHERE, size_of
from emopeft.downstream.feature_cache.shards import Damaged, Facts, Item, Shard
from emopeft.errors import UserError

logger = logging.getLogger(__name__)


class Contents:
    """The items in a folder, by the digest of their audio."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._place: dict[str, Path] = {}  # the shard of an item
        self._facts: dict[str, Facts] = {}
        self._open: dict[Path, Shard] = {}
        self._checked: set[str] = set()
        self._damaged: set[Path] = set()

    def look(self) -> None:
        """Take in the shards that are there and not known yet.

        Raises:
            UserError: one cannot be read. That says nothing about its content: it stays.
        """
        known = set(self._place.values())
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in known or path in self._damaged:
                continue
            try:
                facts = Shard(path).facts
            except FileNotFoundError:
                continue  # another process has just taken it out
            except OSError as error:
                raise unreadable(path, error) from error
            except Damaged as error:
                self._note_damage(path, error)
                continue
            self._facts |= facts
            self._place |= dict.fromkeys(facts, path)

    def missing(self, audio: Iterable[str]) -> list[str]:
        """The audio digests that have no item yet, each once, in order."""
        return [a for a in dict.fromkeys(audio) if a not in self._place]

    def read(self, audio: str) -> Item:
        """The item of one audio digest (float32); its checksum is compared the first time.

        Raises:
            Damaged: it is wrong, or not there any more; nothing of its shard is used any longer.
            UserError: it cannot be read.
        """
        path = self._place.get(audio)
        if path is None:
            raise Damaged("an item is gone")
        try:
            if path not in self._open:
                self._open[path] = Shard(path)
            item = self._open[path].get(audio, check=audio not in self._checked)
        except FileNotFoundError as error:  # another process found it damaged
            self._forget(path)
            raise Damaged(f"{path.name} is gone") from error
        except OSError as error:
            raise unreadable(path, error) from error
        except Damaged as error:
            self._note_damage(path, error)
            raise
        self._checked.add(audio)
        return item

    def take_out_damaged(self) -> None:
        """Delete what was found damaged, unless it was made again since. Under the lock only."""
        for path in self._damaged:
            try:
                Shard(path).check()
            except Damaged:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            except FileNotFoundError:
                pass
            except OSError as error:
                raise unreadable(path, error) from error
        self._damaged.clear()

    def _note_damage(self, path: Path, reason: object) -> None:
        logger.warning("the cache file %s is damaged (%s); its items are made again", path, reason)
        self._damaged.add(path)
        self._forget(path)

    def _forget(self, path: Path) -> None:
        self._open.pop(path, None)
        for name in [name for name, place in self._place.items() if place == path]:
            del self._place[name]
            self._checked.discard(name)

    # ---- what it cost -----------------------------------------------------------------------

    def bytes(self, audio: Iterable[str] | None = None) -> int:
        """Size of some items, or of the whole folder on disk."""
        if audio is None:
            return size_of(self.folder)
        return int(sum(self._facts[a]["bytes"] for a in set(audio)))

    def seconds(self, audio: Iterable[str]) -> float:
        """How long these items took to compute, whichever process did it."""
        return sum(self._facts[a]["seconds"] for a in set(audio))

    def drift(self, audio: Iterable[str]) -> dict[str, float]:
        """Relative rounding error |stored - exact| / |exact| of the items: mean and largest."""
        errors = [self._facts[a]["drift"] for a in set(audio)]
        return {"mean": sum(errors) / len(errors), "max": max(errors)}

    def batch_seconds(self, audio: Iterable[str]) -> float:
        """The largest budget of a batch in which one of these items was computed; 0: all alone."""
        return max((self._facts[a].get("batch", 0.0) for a in audio), default=0.0)


def unreadable(path: Path, error: OSError) -> UserError:
    """The error for a file that cannot be read now: it may be perfectly good."""
    return UserError(
        f"cannot read the cache file {path}: {error.strerror or error}; nothing was deleted, run "
        f"again when it can be read, or {ELSEWHERE}"
    )
