"""The frozen part of utterances: what it depends on, how it is computed, once or in every step."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.feature_cache.store import Item
from emopeft.downstream.models.model import Batch
from emopeft.files import digest
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM, SAMPLE_RATE, Upstream
from emopeft.upstream.states import States, pad

AUDIO = f"{SAMPLE_RATE} Hz, channels averaged, soxr HQ"
HELD_SAMPLES = SAMPLE_RATE * 3600 * 4  # waveforms kept in memory where nothing is kept on disk


# ---- keys -----------------------------------------------------------------------------------


def part_digests(upstream: Upstream) -> list[str]:
    """SHA-256 of the weights that decide the states from each start to the next.

    Front end (extract, embed), block 0, 1, ..., and the end, patched-in modules included: also
    what is frozen may have been patched (the second stage of a training). The names that peft
    gives to a layer that it wraps are not part of it.
    """
    if not upstream.has_blocks:
        return [_digest([upstream])]
    parts = upstream.parts()
    groups = [[*parts["extract"], upstream.inside_front, *parts["embed"]]]
    groups += [upstream.block_modules(i) for i in range(upstream.num_blocks)]
    return [_digest(group) for group in [*groups, parts["finish"]]]


def _digest(modules: Sequence[nn.Module]) -> str:
    sha = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            tensor = tensor.detach().cpu().contiguous()
            name = name.replace(".base_layer", "")
            sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            sha.update(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return sha.hexdigest()


def cache_key(
    upstream: Upstream, start: int, pooled: bool, parts: Sequence[str] | None = None
) -> dict[str, Any]:
    """What the kept part of an utterance depends on beside its audio.

    Args:
        parts: `part_digests` of the upstream, where they are known.
    """
    if start == FROM_WAVEFORM:  # of no upstream in particular
        return {"start": "waveform", "states": "none", "audio": AUDIO}
    parts = part_digests(upstream) if parts is None else parts
    everything = start == upstream.num_blocks
    return {
        "weights": upstream.weights,
        "below": digest(list(parts) if everything else list(parts[: max(start, 0) + 1])),
        "patched": upstream.patched_below(start),  # a frozen adapter's mode and scale
        "loader": upstream.loader,
        "options": upstream.options,
        "start": {FROM_FEATURES: "features", upstream.num_blocks: "end"}.get(start, start),
        "states": "none" if start <= 0 and not everything else "means" if pooled else "frames",
        "audio": AUDIO,
    }


# ---- the frozen part of utterances ----------------------------------------------------------


def frozen_item(upstream: Upstream, start: int, pooled: bool, wav: Tensor) -> Item:
    """What is kept of one waveform (samples,): see `downstream.models.model.Batch`."""
    kept, below = upstream.prefix(start, [wav])
    states = no_states(upstream, pooled)
    if below.layers:
        states = below.means()[0] if pooled else torch.stack([x[0] for x in below.layers])
    return states, kept[0] if kept else None


def no_states(upstream: Upstream, pooled: bool) -> Tensor:
    """The states below the first block: none."""
    return torch.zeros(0, upstream.width) if pooled else torch.zeros(0, 0, upstream.width)


@torch.no_grad()
def continued_item(
    upstream: Upstream, lower: int, item: Item, start: int, pooled: bool, device: torch.device
) -> Item:
    """The item at ``start`` made of one that is kept at the ``lower`` start: nothing twice."""
    states, kept = item
    assert kept is not None
    kept = kept.to(device)
    frozen: Tensor | None = None
    if start == upstream.num_blocks:
        layers = upstream.forward_from(lower, [kept]).layers
    else:
        layers = []
        now: States = pad(upstream.embed([kept]) if lower < 0 else [kept])
        for i in range(max(lower, 0), start):
            layers.append(now.frames)
            now = upstream.block(i, now)
        frozen = now.frames[0]
    new = torch.stack([x[0].float().mean(0) for x in layers]) if pooled else torch.cat(layers)
    return (torch.cat([states.to(device), new]) if states.shape[0] else new), frozen


@dataclasses.dataclass
class Live:
    """The frozen part computed anew for every batch, padded and masked, nothing kept on disk."""

    upstream: Upstream
    start: int
    pooled: bool
    paths: list[Path]
    held: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    samples: int = 0

    def wav(self, i: int, device: torch.device | str) -> Tensor:
        """A waveform (samples,), decoded once as long as memory allows."""
        if i in self.held:
            return self.held[i].to(device)
        wav = torch.from_numpy(decode(self.paths[i], SAMPLE_RATE))
        if self.samples + len(wav) <= HELD_SAMPLES:
            self.held[i] = wav
            self.samples += len(wav)
        return wav.to(device)

    def batch(self, indices: Sequence[int], labels: Tensor, device: torch.device | str) -> Batch:
        """The inputs of some utterances."""
        wavs = [self.wav(i, device) for i in indices]
        kept, below = self.upstream.prefix(self.start, wavs)
        if not below.layers:
            return Batch(empty_states(self.upstream, self.pooled, len(wavs), device), kept, labels)
        if self.pooled:
            return Batch(below.means(), kept, labels)
        stacked = torch.stack(below.layers, dim=1)
        frames = zip(stacked, below.lengths.tolist(), strict=True)
        return Batch([x[:, :n] for x, n in frames], kept, labels)


def empty_states(
    upstream: Upstream, pooled: bool, count: int, device: torch.device | str
) -> Tensor | list[Tensor]:
    nothing = no_states(upstream, pooled).to(device)
    return nothing.expand(count, -1, -1) if pooled else [nothing] * count
