"""The frozen part of utterances: what it depends on, and how it is computed."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.downstream.feature_cache.store import Item
from emopeft.files import digest
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM, SAMPLE_RATE, Upstream
from emopeft.upstream.states import HiddenStates, States, pad

AUDIO = f"{SAMPLE_RATE} Hz, channels averaged, soxr HQ"


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
    upstream: Upstream,
    start: int,
    pooled: bool,
    parts: Sequence[str] | None = None,
    numerics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the kept part of an utterance depends on beside its audio.

    Args:
        parts: `part_digests` of the upstream, where they are known.
        numerics: how the frozen part is computed (`Numerics.describe_frozen`).
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
        "library": _version(upstream.loader),
        "code": upstream.code,
        "options": upstream.options,
        "numerics": dict(numerics or {}),
        "start": {FROM_FEATURES: "features", upstream.num_blocks: "end"}.get(start, start),
        "states": "none" if start <= 0 and not everything else "means" if pooled else "frames",
        "audio": AUDIO,
    }


def _version(loader: str) -> str:
    """The version of the library whose code the upstream runs; "" where it is all ours."""
    if loader == "emopeft":  # `Upstream.code` is its revision
        return ""
    try:
        return importlib.metadata.version(loader)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# ---- the frozen part of utterances ----------------------------------------------------------


def frozen_item(upstream: Upstream, start: int, pooled: bool, wav: Tensor) -> Item:
    """What is kept of one waveform (samples,): see `downstream.feature_cache.batch.Batch`."""
    return frozen_items(upstream, start, pooled, [wav])[0]


@torch.no_grad()
def frozen_items(
    upstream: Upstream, start: int, pooled: bool, wavs: Sequence[Tensor]
) -> list[Item]:
    """What is kept of each waveform (samples,), all computed in one padded and masked batch.

    Whatever comes back is on the device of the waveforms.
    """
    start_inputs, below = upstream.prefix(start, wavs)
    if below.layers:
        states = per_utterance(below, pooled)
    else:
        states = [no_states(upstream, pooled, wavs[0].device)] * len(wavs)
    return [(s, start_inputs[i] if start_inputs else None) for i, s in enumerate(states)]


@torch.no_grad()
def continued_items(
    upstream: Upstream,
    lower: int,
    items: Sequence[Item],
    start: int,
    pooled: bool,
    device: torch.device,
) -> list[Item]:
    """The items at ``start`` made of those that are kept at the ``lower`` start: nothing twice."""
    known = [states.to(device) for states, _ in items]
    entering = [start_input.to(device) for _, start_input in items if start_input is not None]
    frozen: list[Tensor | None] = [None] * len(items)
    if start == upstream.num_blocks:
        hidden = upstream.forward_from(lower, entering)
    else:
        layers = []
        now: States = pad(upstream.embed(entering) if lower < 0 else entering)
        for i in range(max(lower, 0), start):
            layers.append(now.frames)
            now = upstream.block(i, now)
        hidden = HiddenStates(layers, now.lengths)
        frozen = [x[:n] for x, n in zip(now.frames, now.lengths.tolist(), strict=True)]
    new = per_utterance(hidden, pooled)
    states = [torch.cat([a, b]) if a.shape[0] else b for a, b in zip(known, new, strict=True)]
    return list(zip(states, frozen, strict=True))


def continued_item(
    upstream: Upstream, lower: int, item: Item, start: int, pooled: bool, device: torch.device
) -> Item:
    """`continued_items` of one."""
    return continued_items(upstream, lower, [item], start, pooled, device)[0]


def per_utterance(hidden: HiddenStates, pooled: bool) -> list[Tensor]:
    """Of each utterance the time means (states, width), or the frames (states, time, width)."""
    if pooled:
        return list(hidden.means())
    stacked = torch.stack(hidden.layers, dim=1)
    return [x[:, :n] for x, n in zip(stacked, hidden.lengths.tolist(), strict=True)]


def no_states(upstream: Upstream, pooled: bool, device: torch.device | str) -> Tensor:
    """The states of one utterance below the first block: none."""
    shape = (0, upstream.width) if pooled else (0, 0, upstream.width)
    return torch.zeros(shape, device=device)


def empty_states(
    upstream: Upstream, pooled: bool, count: int, device: torch.device | str
) -> Tensor | list[Tensor]:
    """The states of some utterances below the first block."""
    nothing = no_states(upstream, pooled, device)
    return nothing.expand(count, -1, -1) if pooled else [nothing] * count
