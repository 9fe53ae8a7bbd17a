"""The utterances of a protocol as training examples: what is frozen of them, and batches of it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.data.recipe import CacheKeys
from emopeft.downstream.feature_cache.frozen import (
    Live,
    cache_key,
    continued_item,
    empty_states,
    frozen_item,
    part_digests,
)
from emopeft.downstream.feature_cache.store import FeatureCache, Item
from emopeft.downstream.models.model import Batch
from emopeft.errors import UserError
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM, SAMPLE_RATE, Upstream

logger = logging.getLogger(__name__)

DRIFT_CLIPS = 4  # on which the effect of a rounded cache is measured


@dataclasses.dataclass
class Examples:
    """Utterances, in a fixed order, with their labels, durations and frozen parts.

    Either ``cache`` holds the frozen parts, or ``live`` makes them in every step.
    """

    utterances: Sequence[Utterance]
    labels: Tensor  # (N,) class indices
    seconds: list[float]
    audio: list[str]  # SHA-256 of each file
    cache: FeatureCache | None = None
    preloaded: Tensor | None = None  # (N, states, width) when nothing but means is kept
    live: Live | None = None
    empty: tuple[Upstream, bool] | None = None  # where no states lie below the start
    drift: dict[str, float] | None = None  # of a cache in a shorter format
    off: str | None = None  # why nothing is kept

    @classmethod
    def prepare(
        cls,
        upstream: Upstream,
        start: int,
        pooled: bool,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        seconds: Sequence[float],
        audio: Sequence[str],
        root: Path,
        keys: CacheKeys,
    ) -> Examples:
        """Compute and store what is frozen of each utterance.

        Raises:
            UserError: a clip is too short for the upstream (all of them are named), or the cache
                would outgrow its limit.
        """
        check_lengths(upstream, utterances, seconds)
        examples = cls(utterances, torch.tensor(labels), list(seconds), list(audio))
        if not keys.enabled:
            examples.off = "cache.enabled=false"
            examples.live = Live(upstream, start, pooled, [u.path for u in utterances])
            logger.warning(
                "nothing is kept of the frozen part (%s): it is computed in every step",
                examples.off,
            )
            return examples
        parts = [] if start == FROM_WAVEFORM else part_digests(upstream)
        limit = None if keys.limit is None else keys.limit * 1e9
        what = "waveforms" if start == FROM_WAVEFORM else upstream.name

        def cache_at(at: int) -> FeatureCache:
            key = cache_key(upstream, at, pooled, parts)
            return FeatureCache(root, key, keys.dtype, limit, what)

        cache = examples.cache = cache_at(start)
        paths = {a: u.path for a, u in zip(audio, utterances, strict=True)}
        has_none = start <= 0 and start != upstream.num_blocks
        if has_none:
            examples.empty = (upstream, pooled)
        if cache.missing(audio):
            lower = _lower(upstream, start, pooled, parts, root, keys) if not has_none else None
            names = {path: name for name, path in paths.items()}
            compute = _computer(upstream, start, pooled, has_none, names, lower)
            title = what if start == FROM_WAVEFORM else f"frozen part of {what}"
            cache.fill(paths, compute, title)
        else:
            cache.fill(paths, _computer(upstream, start, pooled, has_none, {}, None))
        if keys.dtype != "fp32":
            examples.drift = examples._drift(upstream, start, pooled)
        if pooled and start == upstream.num_blocks:
            examples.preloaded = torch.stack([cache.get(a)[0] for a in audio])
        return examples

    def __len__(self) -> int:
        return len(self.utterances)

    def batch(self, indices: Sequence[int], device: torch.device | str) -> Batch:
        """The inputs of some utterances, on a device."""
        labels = self.labels[list(indices)].to(device)
        if self.preloaded is not None:
            return Batch(self.preloaded[list(indices)].to(device), [], labels)
        if self.live is not None:
            return self.live.batch(indices, labels, device)
        assert self.cache is not None
        items = [self.cache.get(self.audio[i]) for i in indices]
        kept = [k.to(device) for _, k in items if k is not None]
        if self.empty is not None:
            return Batch(empty_states(*self.empty, len(items), device), kept, labels)
        states = [s.to(device) for s, _ in items]
        if states[0].dim() == 2:
            return Batch(torch.stack(states), kept, labels)
        return Batch(states, kept, labels)

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
            return {"enabled": False, "why": self.off}
        facts: dict[str, Any] = {"enabled": True, "id": self.cache.folder.name}
        return facts | ({} if self.drift is None else {"drift": self.drift})

    def _drift(self, upstream: Upstream, start: int, pooled: bool) -> dict[str, float]:
        """Rounding of the stored numbers, and what it does to the time means of all states."""
        assert self.cache is not None
        drift = {f"stored_{k}": v for k, v in self.cache.drift(self.audio).items()}
        device = next((p.device for p in upstream.parameters()), torch.device("cpu"))
        if not pooled or start == upstream.num_blocks:
            return drift
        wrong = right = 0.0
        chosen = range(0, len(self), max(1, len(self) // DRIFT_CLIPS))[:DRIFT_CLIPS]
        for i in chosen:
            wav = torch.from_numpy(decode(self.utterances[i].path, SAMPLE_RATE)).to(device)
            with torch.no_grad():
                exact = upstream.forward_from(FROM_WAVEFORM, [wav]).means()[:, max(start, 0) :]
                batch = self.batch([i], device)
                rounded = upstream.forward_from(start, batch.kept).means()
            wrong += float((exact - rounded).square().sum())
            right += float(exact.square().sum())
        return drift | {"state_means": (wrong / right) ** 0.5}


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


def _computer(
    upstream: Upstream,
    start: int,
    pooled: bool,
    without_states: bool,
    names: dict[Path, str],
    lower: tuple[int, FeatureCache] | None,
) -> Callable[[Path], Item]:
    """What makes the item of a file: from a lower cache where that has it, else from the audio."""
    device = next((p.device for p in upstream.parameters()), torch.device("cpu"))

    def compute(path: Path) -> Item:
        name = names.get(path, "")
        if lower is not None and not lower[1].missing([name]):
            item = continued_item(upstream, lower[0], lower[1].get(name), start, pooled, device)
        else:
            wav = torch.from_numpy(decode(path, SAMPLE_RATE)).to(device)
            item = frozen_item(upstream, start, pooled, wav)
        if not all(bool(t.isfinite().all()) for t in item if t is not None):
            raise UserError(
                f"{upstream.name} gives NaN or infinity for {path}; check the clip, and the "
                "weights with another clip"
            )
        return (torch.zeros(0), item[1]) if without_states else item

    return compute


def _lower(
    upstream: Upstream,
    start: int,
    pooled: bool,
    parts: Sequence[str],
    root: Path,
    keys: CacheKeys,
) -> tuple[int, FeatureCache] | None:
    """The highest start below for which there is an exact cache, and that cache."""
    if keys.dtype != "fp32" or not upstream.has_blocks:
        return None
    for at in range(start - 1, FROM_FEATURES - 1, -1):
        key = cache_key(upstream, at, pooled, parts)
        if FeatureCache.exists(root, key):
            return at, FeatureCache(root, key)
    return None
