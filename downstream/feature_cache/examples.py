"""The utterances of a protocol as training examples: what is frozen of them, and batches of it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.data.keys import CacheKeys
from emopeft.downstream.feature_cache.batch import Batch
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
    """Utterances, in a fixed order, with their targets, durations and frozen parts.

    Either ``cache`` holds the frozen parts, or ``live`` makes them in every step.
    """

    utterances: Sequence[Utterance]
    targets: Tensor  # (N, targets)
    seconds: list[float]
    audio: list[str]  # a digest of each one's audio
    cache: FeatureCache | None = None
    preloaded: Tensor | None = None  # (N, states, width) when nothing but means is kept
    live: Live | None = None
    stateless: tuple[Upstream, bool] | None = None  # where no states lie below the start
    drift: dict[str, float] | None = None  # of a cache in a shorter format
    batched: dict[str, float] | None = None  # where clips were computed in batches
    why_not_kept: str | None = None  # of the frozen part

    @classmethod
    def prepare(
        cls,
        upstream: Upstream,
        start: int,
        pooled: bool,
        utterances: Sequence[Utterance],
        targets: Tensor,
        seconds: Sequence[float],
        audio: Sequence[str],
        root: Path,
        keys: CacheKeys,
        numerics: Numerics | None = None,
        batch_seconds: float | None = None,
    ) -> Examples:
        """Compute and store what is frozen of each utterance.

        Args:
            targets: (N, targets). seconds, audio: duration, and a digest of the audio, of each.
            root: the folder of all caches.
            numerics: how the frozen part is computed.
            batch_seconds: seconds of audio that go through the upstream at once; 0: one clip;
                None: as suits the device.

        Raises:
            UserError: a clip is too short for the upstream (all of them are named), or the cache
                would outgrow its limit.
        """
        check_lengths(upstream, utterances, seconds)
        numerics = numerics or Numerics()
        examples = cls(utterances, targets, list(seconds), list(audio))
        if not keys.enabled:
            examples.why_not_kept = "cache.enabled=false"
            paths = [u.path for u in utterances]
            examples.live = Live(upstream, start, pooled, paths, numerics)
            logger.warning(
                "nothing is kept of the frozen part (%s): it is computed in every step",
                examples.why_not_kept,
            )
            return examples
        device = device_of(upstream)
        parts = [] if start == FROM_WAVEFORM else part_digests(upstream)
        limit = None if keys.limit is None else keys.limit * 1e9
        what = "waveforms" if start == FROM_WAVEFORM else upstream.name

        def key_at(at: int) -> dict[str, Any]:
            return cache_key(upstream, at, pooled, parts, numerics.describe_frozen(device))

        cache = examples.cache = FeatureCache(root, key_at(start), keys.dtype, limit, what)
        files = {a: u.path for a, u in zip(audio, utterances, strict=True)}
        has_none = start <= 0 and start != upstream.num_blocks
        if has_none:
            examples.stateless = (upstream, pooled)
        compute = Extraction(
            upstream, start, pooled, files, dict(zip(audio, seconds, strict=True)),
            has_none, None, numerics, batches_on(device, batch_seconds),
        )  # fmt: skip
        if not has_none and keys.dtype == "fp32" and upstream.has_blocks and cache.missing(audio):
            # The highest start below for which there is an exact cache.
            for at in range(start - 1, FROM_FEATURES - 1, -1):
                if FeatureCache.exists(root, key_at(at)):
                    compute.lower = (at, FeatureCache(root, key_at(at)))
                    break
        cache.fill(files, compute, what if start == FROM_WAVEFORM else f"frozen part of {what}")
        compute.lower = None  # no longer in use
        examples._measure(upstream, start, pooled, numerics, rounded=keys.dtype != "fp32")
        if pooled and start == upstream.num_blocks:
            examples.preloaded = examples._preload()
        return examples

    def __len__(self) -> int:
        return len(self.utterances)

    def _preload(self) -> Tensor:
        """All means (N, states, width), read one shard after the other into their place."""
        assert self.cache is not None
        where: dict[str, list[int]] = {}
        for i, audio in enumerate(self.audio):
            where.setdefault(audio, []).append(i)
        result = torch.empty(0)
        for audio, (states, _) in self.cache.by_shard(self.audio):
            if not len(result):
                result = torch.empty(len(self.audio), *states.shape)
            result[where[audio]] = states
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
        if self.live is not None:
            return self.live.waveforms(indices, targets)
        assert self.cache is not None
        items = [self.cache.get(self.audio[i]) for i in indices]
        start_inputs = [k for _, k in items if k is not None]
        if self.stateless is not None:
            return Batch([], start_inputs, targets)
        states = [s for s, _ in items]
        return Batch(torch.stack(states) if states[0].dim() == 2 else states, start_inputs, targets)

    def _inputs(self, batch: Batch) -> Batch:
        """What a model takes, of what was read and lies on the device."""
        if self.live is not None:
            return self.live.inputs(batch)
        if self.stateless is not None:
            count, device = len(batch.targets), batch.targets.device
            batch.states = empty_states(*self.stateless, count, device)
        return batch

    # ---- for the record ---------------------------------------------------------------------

    def stored_bytes(self) -> int:
        """What these utterances take in the cache."""
        return 0 if self.cache is None else self.cache.bytes(self.audio)

    def frozen_seconds(self) -> float:
        """What the frozen part of these utterances took, whenever it was computed."""
        return 0.0 if self.cache is None else self.cache.seconds(self.audio)

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
        seconds = self.cache.batch_seconds(self.audio)
        if rounded:
            self.drift = {f"stored_{k}": v for k, v in self.cache.drift(self.audio).items()}
        if not (seconds or (rounded and pooled and start != upstream.num_blocks)):
            return
        wavs = [
            torch.from_numpy(decode(self.utterances[i].path, SAMPLE_RATE)).to(device)
            for i in chosen
        ]
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


def check_lengths(
    upstream: Upstream, utterances: Sequence[Utterance], seconds: Sequence[float]
) -> None:
    """Raises UserError naming the clips that are too short for the upstream."""
    short = [
        f"{u.path} ({s * 1000:.0f} ms)"
        for u, s in zip(utterances, seconds, strict=True)
        if s * SAMPLE_RATE < upstream.min_samples
    ]
    if short:
        raise UserError(
            f"{len(short)} clips are shorter than the {upstream.min_samples} samples "
            f"({upstream.min_samples / SAMPLE_RATE * 1000:.0f} ms) that {upstream.name} "
            f"needs; remove them: {', '.join(short[:5])}"
        )
