"""The utterances of a protocol as training examples: what is frozen of them, and batches of it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.keys import CacheKeys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.excerpts import Excerpt, Row
from emopeft.downstream.feature_cache.extracting import (
    Extraction,
    batches_on,
    device_of,
)
from emopeft.downstream.feature_cache.frozen import cache_key, empty_states, part_digests
from emopeft.downstream.feature_cache.live import Live
from emopeft.downstream.feature_cache.measuring import batching_difference, rounding_difference
from emopeft.downstream.feature_cache.store import FeatureCache
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM, SAMPLE_RATE, Upstream

logger = logging.getLogger(__name__)

SAMPLE_CLIPS = 4  # on which the effects of a rounded cache and of batches are measured


@dataclasses.dataclass
class Examples:
    """Utterances as an encoder sees them, in a fixed order, with targets and frozen parts.

    Either ``cache`` holds the frozen parts, or ``live`` makes them in every step; of some rows the
    one and of others the other, where views are drawn anew in each epoch.
    """

    rows: Sequence[Row]
    targets: Tensor  # (N, targets)
    ways: Sequence[Sequence[int]]  # of each row those that an epoch of training draws one from
    seconds: list[float]  # of audio in each row
    cache: FeatureCache | None = None
    preloaded: Tensor | None = None  # (N, states, width) when nothing but means is kept
    live: Live | None = None
    stateless: tuple[Upstream, bool] | None = None  # where no states lie below the start
    drift: dict[str, float] | None = None  # of a cache in a shorter format
    batched: dict[str, float] | None = None  # where clips were computed in batches
    why_not_kept: str | None = None  # of the frozen part
    crowded: Mapping[str, Mapping[int, Sequence[int]]] = dataclasses.field(default_factory=dict)
    in_turn: bool = False  # each epoch takes the next of the ways

    @classmethod
    def prepare(
        cls,
        upstream: Upstream,
        start: int,
        pooled: bool,
        rows: Sequence[Row],
        targets: Tensor,
        root: Path,
        keys: CacheKeys,
        numerics: Numerics | None = None,
        batch_seconds: float | None = None,
        ways: Sequence[Sequence[int]] | None = None,
    ) -> Examples:
        """Compute and store what is frozen of each utterance.

        Args:
            rows: what is taken of each utterance. targets: (N, targets).
            root: the folder of all caches.
            numerics: how the frozen part is computed.
            batch_seconds: seconds of audio that go through the upstream at once; 0: one clip;
                None: as suits the device.
            ways: see the class; None: each row is what its utterance is taken as.

        Raises:
            UserError: a clip is too short for the upstream (all of them are named), or the cache
                would outgrow its limit.
        """
        whole = {e.name: e for row in rows for e in row}
        check_lengths(upstream, list(whole.values()))
        excerpts = {name: e for name, e in whole.items() if e.kept}
        numerics = numerics or Numerics()
        seconds = [sum(e.seconds for e in row) for row in rows]
        examples = cls(rows, targets, ways or [[i] for i in range(len(rows))], seconds)
        if not keys.enabled:
            examples.why_not_kept = "cache.enabled=false"
            examples.live = Live(upstream, start, pooled, numerics)
            logger.warning(
                "nothing is kept of the frozen part (%s): it is computed in every step",
                examples.why_not_kept,
            )
            return examples
        if len(excerpts) < len(whole):
            examples.live = Live(upstream, start, pooled, numerics)
        device = device_of(upstream)
        parts = [] if start == FROM_WAVEFORM else part_digests(upstream)
        limit = None if keys.limit is None else keys.limit * 1e9
        what = "waveforms" if start == FROM_WAVEFORM else upstream.name

        def key_at(at: int) -> dict[str, Any]:
            return cache_key(upstream, at, pooled, parts, numerics.describe_frozen(device))

        cache = examples.cache = FeatureCache(root, key_at(start), keys.dtype, limit, what)
        has_none = start <= 0 and start != upstream.num_blocks
        if has_none:
            examples.stateless = (upstream, pooled)
        compute = Extraction(
            upstream, start, pooled, excerpts, has_none, None, numerics,
            batches_on(device, batch_seconds),
        )  # fmt: skip
        if (
            not has_none
            and keys.dtype == "fp32"
            and upstream.has_blocks
            and cache.missing(excerpts)
        ):
            # The highest start below for which there is an exact cache.
            for at in range(start - 1, FROM_FEATURES - 1, -1):
                if FeatureCache.exists(root, key_at(at)):
                    compute.lower = (at, FeatureCache(root, key_at(at)))
                    break
        frozen = what if start == FROM_WAVEFORM else f"frozen part of {what}"
        cache.fill({name: e.path for name, e in excerpts.items()}, compute, frozen)
        compute.lower = None  # no longer in use
        examples._measure(upstream, start, pooled, numerics, rounded=keys.dtype != "fp32")
        if pooled and start == upstream.num_blocks and examples.live is None:
            examples.preloaded = examples._preload()
        return examples

    def __len__(self) -> int:
        return len(self.rows)

    def names(self) -> list[str]:
        """What the frozen parts are kept by, row by row."""
        return [e.name for row in self.rows for e in row if e.kept]

    def ways_of(self, indices: Sequence[int], crowd: str = "") -> list[Sequence[int]]:
        """The rows that each of these may be trained as.

        Args:
            crowd: who babbles there, where anybody does.
        """
        if self.crowded:
            return [self.crowded[crowd][i] for i in indices]
        return [self.ways[i] for i in indices]

    def _preload(self) -> Tensor:
        """All means (N, states, width), read one shard after the other into their place.

        Of several stretches the mean: heads that take time means are affine in them.
        """
        assert self.cache is not None
        where: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            for excerpt in row:
                where.setdefault(excerpt.name, []).append(i)
        several = torch.tensor([len(row) for row in self.rows])[:, None, None]
        result = torch.empty(0)
        for name, (states, _) in self.cache.by_shard(self.names()):
            if not len(result):
                result = torch.zeros(len(self.rows), *states.shape)
            result[where[name]] += states / several[where[name]]
        return result

    # ---- batches ----------------------------------------------------------------------------

    def batch(self, indices: Sequence[int], device: torch.device | str) -> Batch:
        """The inputs of some utterances, on a device."""
        return self._inputs(self._read(indices).to(torch.device(device)))

    def prefetch(
        self, groups: Iterable[Sequence[int]], device: torch.device | str
    ) -> Iterator[Batch]:
        """The batch of each group; while one is used, a thread reads and copies the next.

        What the upstream itself has to compute is computed here, not in the thread, under whatever
        holds here (autocast, inference mode).
        """
        device = torch.device(device)
        todo = iter(groups)
        group, following = next(todo, None), next(todo, None)
        if group is None:
            return
        if following is None or self.preloaded is not None:
            rest = [] if following is None else [following, *todo]
            for one in (group, *rest):
                yield self.batch(one, device)
            return
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        try:
            jobs: list[Future[Batch]] = [
                pool.submit(self._fetch, one, device, stream) for one in (group, following)
            ]
            while jobs:
                batch = jobs.pop(0).result()
                if stream is not None:
                    _arrive(batch, stream)
                group = next(todo, None)
                if group is not None:
                    jobs.append(pool.submit(self._fetch, group, device, stream))
                yield self._inputs(batch)
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch(
        self, indices: Sequence[int], device: torch.device, stream: torch.cuda.Stream | None
    ) -> Batch:
        if stream is None:
            return self._read(indices).to(device)
        with torch.cuda.stream(stream):
            batch = self._read(indices).to(device)
        stream.synchronize()  # of this thread only; whoever trains goes on meanwhile
        return batch

    def _read(self, indices: Sequence[int]) -> Batch:
        """What is known of some utterances, on the CPU."""
        targets = self.targets[list(indices)]
        if self.preloaded is not None:
            return Batch(self.preloaded[list(indices)], [], targets)
        rows = [self.rows[i] for i in indices]
        excerpts = [e for row in rows for e in row]
        owners = None
        if len(excerpts) > len(rows):
            owners = torch.tensor([place for place, row in enumerate(rows) for _ in row])
        if self.cache is None or not all(e.kept for e in excerpts):
            assert self.live is not None
            wavs = [self.live.wav(e) for e in excerpts]
            return Batch([], wavs, targets, owners, waveforms=True)
        items = [self.cache.get(e.name) for e in excerpts]
        start_inputs = [k for _, k in items if k is not None]
        if self.stateless is not None:
            return Batch([], start_inputs, targets, owners)
        states = [s for s, _ in items]
        return Batch(
            torch.stack(states) if states[0].dim() == 2 else states, start_inputs, targets, owners
        )

    def _inputs(self, batch: Batch) -> Batch:
        """What a model takes, of what was read and lies on the device."""
        if batch.waveforms:
            assert self.live is not None
            return self.live.inputs(batch)
        if self.stateless is not None:
            count, device = len(batch.start_inputs), batch.targets.device
            batch.states = empty_states(*self.stateless, count, device)
        return batch

    # ---- for the record ---------------------------------------------------------------------

    def stored_bytes(self) -> int:
        """What these utterances take in the cache."""
        return 0 if self.cache is None else self.cache.bytes(self.names())

    def frozen_seconds(self) -> float:
        """What the frozen part of these utterances took, whenever it was computed."""
        return 0.0 if self.cache is None else self.cache.seconds(self.names())

    def facts(self) -> dict[str, Any]:
        """How the frozen part was kept."""
        if self.cache is None:
            return {"enabled": False, "why": self.why_not_kept}
        facts: dict[str, Any] = {"enabled": True, "id": self.cache.folder.name}
        facts |= {} if self.drift is None else {"drift": self.drift}
        return facts | ({} if self.batched is None else {"batched": self.batched})

    def _measure(
        self, upstream: Upstream, start: int, pooled: bool, numerics: Numerics, rounded: bool
    ) -> None:
        """What rounding and batches did, on a few clips."""
        assert self.cache is not None
        device = device_of(upstream)
        chosen = range(0, len(self), max(1, len(self) // SAMPLE_CLIPS))[:SAMPLE_CLIPS]
        seconds = self.cache.batch_seconds(self.names())
        if rounded:
            self.drift = {f"stored_{k}": v for k, v in self.cache.drift(self.names()).items()}
        if not (seconds or (rounded and pooled and start != upstream.num_blocks)):
            return
        wavs = [self.rows[i][0].read().to(device) for i in chosen]
        if seconds:
            difference = batching_difference(upstream, start, pooled, wavs, numerics)
            self.batched = {"seconds": seconds, "difference": difference}
        if self.drift is not None and pooled and start != upstream.num_blocks:
            start_inputs = [self.batch([i], device).start_inputs[0] for i in chosen]
            difference = rounding_difference(upstream, start, wavs, start_inputs, numerics)
            self.drift["state_means"] = difference


def _arrive(batch: Batch, stream: torch.cuda.Stream) -> None:
    """Tell the allocator that tensors made on one stream are now used on another."""
    current = torch.cuda.current_stream(batch.targets.device)
    current.wait_stream(stream)
    for tensor in batch.tensors():
        tensor.record_stream(current)


def check_lengths(upstream: Upstream, excerpts: Sequence[Excerpt]) -> None:
    """Raises UserError naming the clips that are too short for the upstream."""
    short = [
        f"{e.path} ({e.seconds * 1000:.0f} ms)"
        for e in excerpts
        if e.seconds * SAMPLE_RATE < upstream.min_samples
    ]
    if short:
        raise UserError(
            f"{len(short)} clips are shorter than the {upstream.min_samples} samples "
            f"({upstream.min_samples / SAMPLE_RATE * 1000:.0f} ms) that {upstream.name} "
            f"needs; remove them: {', '.join(short[:5])}"
        )
