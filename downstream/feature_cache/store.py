"""What is frozen, computed once per utterance and kept on disk, shared by folds, seeds and methods.

A cache is a folder named by the hash of what its contents depend on: the weights below the start,
the preprocessing, where training starts and the number format. In it are shards in safetensors
format, which are memory-mapped when read; an utterance is found by the digest of its audio.
Items are stored unpadded, so nothing depends on batches. Shards are written to a temporary name
and renamed, under a lock: several processes may fill one cache, and an interrupted fill goes on.
A shard carries a checksum, the seconds it took and the rounding error of each item. A cache that
holds all that is wanted is used without being written to.

    python -m downstream.feature_cache list
    python -m downstream.feature_cache clean [--keep-gb N] [ID ...]
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from emopeft.downstream.feature_cache.contents import ELSEWHERE, Contents
from emopeft.downstream.feature_cache.folders import KEY, holding, make_room
from emopeft.downstream.feature_cache.shards import Damaged, Facts, Item, rounded, write_shard
from emopeft.errors import UserError
from emopeft.files import Busy, digest, locked, orphans, remove_all, writing

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHARD_BYTES = 64 << 20
SHARD_SECONDS = 60.0  # how much work an interruption may cost
FORMAT = 3


class Made(NamedTuple):
    """A newly computed item: what it took, and the seconds of audio of its batch (0: alone)."""

    name: str
    item: Item
    seconds: float
    batch: float = 0.0


Compute = Callable[[Sequence[str]], Iterator[Made]]


class FeatureCache(Contents):
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
        super().__init__(_folder(root, key))
        self._held = holding(self.folder, {"name": name, **key})
        self._source: tuple[Mapping[str, Path], Compute] | None = None
        self._lock = threading.RLock()  # a batch may be read ahead in a thread
        self.look()

    @staticmethod
    def exists(root: Path, key: Mapping[str, Any], dtype: str = "fp32") -> bool:
        """Whether there is such a cache already."""
        folder = _folder(root, {**key, "dtype": dtype, "format": FORMAT})
        return (folder / KEY).exists()

    # ---- filling ----------------------------------------------------------------------------

    def fill(
        self, audio: Mapping[str, Path], compute: Compute, description: str = "features"
    ) -> int:
        """Compute and store what is missing; returns how many items were computed.

        Args:
            audio: digest of each clip's audio to its path.
            compute: makes the items of some of these digests.
        """
        self._source = (audio, compute)
        if not self.missing(audio):
            return 0
        with self._locked():
            self.take_out_damaged()
            # Shards are written under the lock only, so nobody is at work on these.
            remove_all([p for p in orphans(self.folder, 0) if ".safetensors." in p.name])
            self.look()
            return self._compute(self.missing(audio), audio, compute, description)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The right to change the shards; waits, and says so."""
        with contextlib.ExitStack() as stack:
            path = self.folder / ".lock"
            try:
                try:
                    stack.enter_context(locked(path, wait=1))
                except Busy:
                    logger.warning("waiting for another process that fills %s", self.folder)
                    stack.enter_context(locked(path, wait=math.inf))
            except UserError as error:
                raise UserError(
                    f"the cache {self.folder} lacks some clips and cannot be written to "
                    f"({error}); {ELSEWHERE}"
                ) from error
            yield

    def _compute(
        self, todo: list[str], audio: Mapping[str, Path], compute: Compute, description: str
    ) -> int:
        shard: dict[str, Tensor] = {}
        facts: dict[str, Facts] = {}
        size, done, began = 0, 0, time.monotonic()
        items = tqdm(compute(todo) if todo else (), description, len(todo), unit="clip",
                     disable=None, leave=False)  # fmt: skip
        for number, (name, item, seconds, batch) in enumerate(items):
            started = time.monotonic()
            self._check_range(item, audio[name])
            tensors, facts[name] = rounded(item, name, self.dtype)
            facts[name] |= {"seconds": seconds + time.monotonic() - started, "batch": batch}
            shard |= tensors
            size += int(facts[name]["bytes"])
            full = size >= SHARD_BYTES or time.monotonic() - began >= SHARD_SECONDS
            if full or number == len(todo) - 1:
                done += size
                # What is still to come is judged by what has been seen.
                self._make_room(size, done / (number + 1) * (len(todo) - number - 1))
                self._write(shard, facts)
                shard, facts, size, began = {}, {}, 0, time.monotonic()
        return len(todo)

    def _check_range(self, item: Item, path: Path) -> None:
        if self.dtype != torch.float16:
            return
        sizes = (float(t.abs().max()) for t in item if t is not None and t.numel())
        largest = max(sizes, default=0.0)
        if largest > torch.finfo(torch.float16).max:
            raise UserError(
                f"the states of {path} do not fit into fp16 (the largest is {largest:.3g}); take "
                "cache.dtype=bf16 or fp32"
            )

    def _make_room(self, now: int, later: float) -> None:
        if self.limit is None:
            return
        # Several caches may be filled at once: each looks at the sum.
        with locked(self.root / "features" / ".lock", wait=math.inf):
            make_room(self.root, self.limit, now + later, keep=self.folder)

    def _write(self, shard: dict[str, Tensor], facts: dict[str, Facts]) -> None:
        path = self.folder / f"{digest(sorted(shard))[:24]}.safetensors"
        with writing(path, f"free some space or {ELSEWHERE}") as temporary:
            write_shard(temporary, shard, facts)
        self._facts |= facts
        self._place |= dict.fromkeys(facts, path)

    # ---- reading ----------------------------------------------------------------------------

    def get(self, audio: str) -> Item:
        """The item of one audio digest (float32).

        Its checksum is compared when it is first read; what is damaged is computed again.
        """
        with self._lock:
            for attempt in (1, 2, 3):
                try:
                    return self.read(audio)
                except Damaged as error:
                    if self._source is None or attempt == 3:
                        raise UserError(
                            f"the cache {self.folder} is damaged ({error}); delete it and run again"
                        ) from error
                self.fill(*self._source)
            raise AssertionError

    def by_shard(self, audio: Iterable[str]) -> Iterator[tuple[str, Item]]:
        """Each item once, shard by shard, no shard kept open behind its last item."""
        shards: dict[Path, list[str]] = {}
        for name in dict.fromkeys(audio):
            shards.setdefault(self._place[name], []).append(name)
        for path, names in shards.items():
            for name in names:
                yield name, self.get(name)
            self._open.pop(path, None)


def _folder(root: Path, key: Mapping[str, Any]) -> Path:
    return root / "features" / digest(key)[:24]
