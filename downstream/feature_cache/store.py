"""What is frozen, computed once per utterance and kept on disk, shared by folds, seeds and methods.

A cache is a folder named by the hash of what its contents depend on: the weights below the start,
the preprocessing, where training starts and the number format. In it are shards in safetensors
format, which are memory-mapped when read; an utterance is found by the SHA-256 of its audio file.
Items are stored unpadded, so nothing depends on batches. Shards are written to a temporary name
and renamed, under a lock: several processes may fill one cache, and an interrupted fill goes on.
A shard carries a checksum, the seconds it took and the rounding error of each item.

    python -m downstream.feature_cache list
    python -m downstream.feature_cache clean [--keep-gb N] [ID ...]
"""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from emopeft.downstream.feature_cache.folders import in_use, make_room, size_of
from emopeft.errors import UserError
from emopeft.files import digest, write_json, writing

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHARD_BYTES = 64 << 20
SHARD_SECONDS = 60.0  # how much work an interruption may cost
FORMAT = 2

# What is kept of one utterance: states below the start (or their time means), and the start itself
# (None when everything is frozen).
Item = tuple[Tensor, Tensor | None]


class FeatureCache:
    """The kept items of one frozen prefix.

    Args:
        root: the folder of all caches.
        key: JSON-able; all that the items depend on beside the audio.
        dtype: "fp32", "fp16" or "bf16", the format on disk.
        limit: bytes that all caches under ``root`` may take (None: no limit). The least recently
            used ones make room, never one that a running process uses.
        name: what `list` shows; not part of the key.
    """

    def __init__(
        self,
        root: Path,
        key: Mapping[str, Any],
        dtype: str = "fp32",
        limit: float | None = None,
        name: str = "?",
    ):
        self.root, self.limit = root, limit
        self.dtype = DTYPES[dtype]
        key = {**key, "dtype": dtype, "format": FORMAT}
        self.folder = _folder(root, key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            in_use(self.folder)
        except OSError as error:
            raise UserError(
                f"cannot make the cache folder {self.folder}: {error.strerror}; choose another "
                "place with -o cache.dir=DIR"
            ) from error
        if not (self.folder / "key.json").exists():
            write_json(self.folder / "key.json", {"name": name, **key})
        os.utime(self.folder / "key.json")  # the time of the last use
        self._shard: dict[str, Path] = {}  # where an item lies
        self._facts: dict[str, dict[str, float]] = {}  # crc, bytes, seconds, drift of an item
        self._open: dict[Path, Any] = {}
        self._checked: set[str] = set()
        self._source: tuple[dict[str, Path], Callable[[Path], Item]] | None = None
        self._read_index()

    @staticmethod
    def exists(root: Path, key: Mapping[str, Any], dtype: str = "fp32") -> bool:
        """Whether there is such a cache already."""
        folder = _folder(root, {**key, "dtype": dtype, "format": FORMAT})
        return (folder / "key.json").exists()

    def _read_index(self) -> None:
        known = set(self._shard.values())
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in known:
                continue
            try:
                with safe_open(path, framework="pt") as shard:
                    facts = json.loads(shard.metadata()["items"])
            except FileNotFoundError:
                continue  # another process has just repaired it
            except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
                self._discard(path, str(error))
                continue
            self._facts |= facts
            self._shard |= dict.fromkeys(facts, path)

    def _discard(self, path: Path, reason: str) -> None:
        """Take a damaged shard out; its items are computed again."""
        logger.warning("the cache file %s is damaged (%s); its items are made again", path, reason)
        path.unlink(missing_ok=True)
        self._open.pop(path, None)
        lost = [name for name, place in self._shard.items() if place == path]
        for name in lost:
            del self._shard[name]
            self._checked.discard(name)

    def missing(self, audio: Iterable[str]) -> list[str]:
        """The audio hashes that have no item yet, each once, in order."""
        return [a for a in dict.fromkeys(audio) if a not in self._shard]

    def fill(
        self,
        audio: Mapping[str, Path],
        compute: Callable[[Path], Item],
        description: str = "features",
    ) -> int:
        """Compute and store what is missing; returns how many items were computed.

        Args:
            audio: SHA-256 of each file's bytes to its path.
            compute: makes the item of one file.
        """
        self._source = (dict(audio), compute)
        if not self.missing(audio):
            return 0
        lock = filelock.FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            logger.warning("waiting for another process that fills %s", self.folder)
            lock.acquire()
        try:
            self._read_index()
            return self._compute(self.missing(audio), audio, compute, description)
        finally:
            lock.release()

    def _compute(
        self,
        todo: list[str],
        audio: Mapping[str, Path],
        compute: Callable[[Path], Item],
        description: str,
    ) -> int:
        shard: dict[str, Tensor] = {}
        facts: dict[str, dict[str, float]] = {}
        size, done, began = 0, 0, time.monotonic()
        bar = tqdm(todo, desc=description, unit="clip", disable=None, leave=False)
        for number, name in enumerate(bar):
            started = time.monotonic()
            states, kept = compute(audio[name])
            tensors = {f"{name}/states": states} | ({} if kept is None else {f"{name}/kept": kept})
            rounded = {key: self._rounded(t, audio[name]) for key, t in tensors.items()}
            facts[name] = {
                "crc": _checksum(rounded[key] for key in sorted(rounded)),
                "bytes": sum(t.numel() * t.element_size() for t in rounded.values()),
                "drift": _drift(tensors, rounded),
                "seconds": time.monotonic() - started,
            }
            shard |= rounded
            size += int(facts[name]["bytes"])
            full = size >= SHARD_BYTES or time.monotonic() - began >= SHARD_SECONDS
            if full or number == len(todo) - 1:
                done += size
                # What is still to come is judged by what has been seen.
                self._make_room(size, done / (number + 1) * (len(todo) - number - 1))
                self._write(shard, facts)
                shard, facts, size, began = {}, {}, 0, time.monotonic()
        return len(todo)

    def _rounded(self, tensor: Tensor, path: Path) -> Tensor:
        result = tensor.detach().to("cpu", self.dtype).contiguous()
        if self.dtype == torch.float16 and not bool(result.isfinite().all()):
            raise UserError(
                f"the states of {path} do not fit into fp16 (the largest is "
                f"{float(tensor.abs().max()):.3g}); take cache.dtype=bf16 or fp32"
            )
        return result

    def _make_room(self, now: int, later: float) -> None:
        if self.limit is None:
            return
        # Several caches may be filled at once: each looks at the sum.
        with filelock.FileLock(self.root / "features" / ".lock"):
            make_room(self.root, self.limit, now + later, keep=self.folder)

    def _write(self, shard: dict[str, Tensor], facts: dict[str, dict[str, float]]) -> None:
        path = self.folder / f"{digest(sorted(shard))[:24]}.safetensors"
        with writing(path) as temporary:
            try:
                save_file(shard, temporary, metadata={"items": json.dumps(facts)})
            except SafetensorError as error:
                raise OSError(str(error)) from error
        self._facts |= facts
        self._shard |= dict.fromkeys(facts, path)

    def get(self, audio: str) -> Item:
        """The item of one audio file (float32).

        Its checksum is compared when it is first read; what is damaged is computed again.
        """
        for attempt in (1, 2):
            path = self._shard[audio]
            try:
                return self._read(audio, path)
            except (SafetensorError, OSError, ValueError) as error:
                if self._source is None or attempt == 2:
                    raise UserError(
                        f"the cache file {path} is damaged ({error}); delete it and run again"
                    ) from error
                self._discard(path, str(error))
                self.fill(*self._source)
        raise AssertionError

    def _read(self, audio: str, path: Path) -> Item:
        if path not in self._open:
            self._open[path] = safe_open(path, framework="pt")
        shard = self._open[path]
        names = [f"{audio}/states"]
        stored = {names[0]: shard.get_tensor(names[0])}
        kept = f"{audio}/kept"
        if self._facts[audio]["bytes"] > _bytes(stored.values()):
            stored[kept] = shard.get_tensor(kept)
        if audio not in self._checked:
            if _checksum(stored[key] for key in sorted(stored)) != self._facts[audio]["crc"]:
                raise ValueError("a checksum is wrong")
            self._checked.add(audio)
        return stored[names[0]].float(), stored[kept].float() if kept in stored else None

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


def _folder(root: Path, key: Mapping[str, Any]) -> Path:
    return root / "features" / digest(key)[:24]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _checksum(tensors: Iterable[Tensor]) -> int:
    crc = 0
    for tensor in tensors:
        if tensor.numel():
            crc = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _drift(exact: Mapping[str, Tensor], rounded: Mapping[str, Tensor]) -> float:
    wrong = sum(
        float((rounded[k].float() - t.detach().float().cpu()).square().sum())
        for k, t in exact.items()
    )
    right = sum(float(t.detach().float().square().sum()) for t in exact.values())
    return (wrong / right) ** 0.5 if right else 0.0
