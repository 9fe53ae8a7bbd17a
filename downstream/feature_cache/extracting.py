"""Computing the frozen part of many clips: decoded ahead, in batches where a device gains by it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from emopeft.downstream.feature_cache.excerpts import Excerpt
from emopeft.downstream.feature_cache.frozen import continued_items, frozen_items
from emopeft.downstream.feature_cache.store import FeatureCache, Item, Made
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from emopeft.upstream.base import FROM_WAVEFORM, SAMPLE_RATE, Upstream

# Seconds of audio in a batch, padding included. A CPU gains nothing by batches, and one clip at a
# time gives what it gave before, to the bit.
BATCH_SECONDS = {"cuda": 600.0}
AHEAD = 4  # batches that are being decoded while one is computed
DECODERS = 4


def device_of(upstream: Upstream) -> torch.device:
    """Where an upstream's weights lie."""
    return next((p.device for p in upstream.parameters()), torch.device("cpu"))


def batches_on(device: torch.device, asked: float | None) -> float:
    """Seconds of audio in a batch; 0: one clip at a time."""
    return BATCH_SECONDS.get(device.type, 0.0) if asked is None else asked


@dataclasses.dataclass
class Extraction:
    """Makes items of clips (`FeatureCache.fill`).

    Attributes:
        excerpts: each clip, or stretch of one, by the name that the cache knows it by.
        without_states: whether no state lies below the start.
        lower: a start below, and the cache that holds the items there.
        batch_seconds: how much goes through the upstream at once (0: one clip).
    """

    upstream: Upstream
    start: int
    pooled: bool
    excerpts: Mapping[str, Excerpt]
    without_states: bool = False
    lower: tuple[int, FeatureCache] | None = None
    numerics: Numerics = dataclasses.field(default_factory=Numerics)
    batch_seconds: float = 0.0

    def __call__(self, names: Sequence[str]) -> Iterator[Made]:
        """The items of some clips, in any order."""
        in_lower = set(names)
        if self.lower is not None:
            in_lower -= set(self.lower[1].missing(names))
            yield from self._continued([name for name in names if name in in_lower])
            names = [name for name in names if name not in in_lower]
        yield from self._from_audio(names)

    def _continued(self, names: Sequence[str]) -> Iterator[Made]:
        assert self.lower is not None
        for group in self.groups(names):
            started = time.monotonic()
            inputs = [self.lower[1].get(name) for name in group]
            yield from self._made(group, inputs, started)

    def _from_audio(self, names: Sequence[str]) -> Iterator[Made]:
        groups = decoded(self.groups(names), self.excerpts)
        started = time.monotonic()
        for group, wavs in groups:
            yield from self._made(group, wavs, started)
            started = time.monotonic()

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """Batches of similar length, in an order that says nothing about length."""
        if not self.batch_seconds or self.start == FROM_WAVEFORM:
            return [[name] for name in names]
        cost = {name: self._cost(self.excerpts[name].seconds) for name in names}
        place = {name: number for number, name in enumerate(names)}
        groups: list[list[str]] = []
        for name in sorted(names, key=lambda name: (-cost[name], place[name])):
            if groups and cost[groups[-1][0]] * (len(groups[-1]) + 1) <= self.batch_seconds:
                groups[-1].append(name)
            else:
                groups.append([name])
        return sorted(groups, key=lambda group: min(place[name] for name in group))

    def _cost(self, seconds: float) -> float:
        """Seconds of audio that a clip counts as: Whisper's windows of 30 s are longer than it."""
        if not self.upstream.has_blocks:
            return seconds
        frames = self.upstream.frames_of(int(seconds * SAMPLE_RATE))
        return max(seconds, frames * self.upstream.stride / SAMPLE_RATE)

    def _made(
        self, group: list[str], inputs: Sequence[Tensor] | Sequence[Item], started: float
    ) -> Iterator[Made]:
        try:
            items = self._run(inputs)
        except torch.OutOfMemoryError:
            if len(group) == 1:
                excerpt = self.excerpts[group[0]]
                raise UserError(
                    f"{excerpt.path} ({excerpt.seconds:.1f} s) does not fit into the memory of "
                    f"{device_of(self.upstream)}; cut it (clips.mode=segments, clips.seconds=20), "
                    "take it out, or take another device"
                ) from None
            items = None
        if items is None:  # outside of the handler, whose traceback holds the tensors
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            for part in (slice(None, len(group) // 2), slice(len(group) // 2, None)):
                yield from self._made(group[part], inputs[part], started)
                started = time.monotonic()
            return
        items = [
            (states.cpu(), None if start_input is None else start_input.cpu())
            for states, start_input in items
        ]
        elapsed = time.monotonic() - started
        whole = sum(self.excerpts[name].seconds for name in group) or 1.0
        for name, item in zip(group, items, strict=True):
            if not all(bool(t.isfinite().all()) for t in item if t is not None):
                path = self.excerpts[name].path
                raise UserError(
                    f"{self.upstream.name} gives NaN or infinity for {path}; check the clip, and "
                    "the weights with another clip"
                )
            item = (torch.zeros(0), item[1]) if self.without_states else item
            share = elapsed * self.excerpts[name].seconds / whole
            yield Made(name, item, share, self.batch_seconds if len(group) > 1 else 0.0)

    def _run(self, inputs: Sequence[Tensor] | Sequence[Item]) -> list[Item]:
        device = device_of(self.upstream)
        with self.numerics.freezing(device):
            if isinstance(inputs[0], Tensor):
                wavs = [wav.to(device) for wav in inputs]  # type: ignore[union-attr]
                return frozen_items(self.upstream, self.start, self.pooled, wavs)
            assert self.lower is not None
            return continued_items(
                self.upstream, self.lower[0], inputs, self.start, self.pooled, device  # type: ignore[arg-type]
            )  # fmt: skip


def decoded(
    groups: Sequence[list[str]], excerpts: Mapping[str, Excerpt]
) -> Iterator[tuple[list[str], list[Tensor]]]:
    """Groups of clips with their waveforms (samples,), a few groups ahead, in threads."""
    todo = iter(groups)
    waiting: deque[tuple[list[str], list[Future[Tensor]]]] = deque()
    pool = ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1))
    try:
        while True:
            while len(waiting) < AHEAD and (group := next(todo, None)) is not None:
                jobs = [pool.submit(excerpts[name].read) for name in group]
                waiting.append((group, jobs))
            if not waiting:
                return
            group, jobs = waiting.popleft()
            yield group, [job.result() for job in jobs]
    finally:
        pool.shutdown(cancel_futures=True)
