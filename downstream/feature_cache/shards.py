"""Shards of a cache: what stands in one, and when one is damaged rather than out of reach."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

NUMBERS = ("crc", "bytes", "seconds", "drift")  # that stand in the facts of every item

# What is kept of one utterance: states below the start (or their time means), and the start itself
# (None when everything is frozen).
Item = tuple[Tensor, Tensor | None]
Facts = dict[str, Any]


class Damaged(Exception):
    """A shard whose content is wrong. That it cannot be read at all (too many open files, no
    permission, a network file that is stale) is an OSError, and says nothing about its content."""


class Shard:
    """One file of items, memory-mapped: an item's numbers are read when they are used.

    Attributes:
        facts: of each item its checksum, bytes, seconds, rounding error, seconds of its batch.

    Raises:
        OSError: it cannot be read.
        Damaged: its content is wrong.
    """

    def __init__(self, path: Path):
        # safetensors answers "no such file" whatever the reason why a file cannot be opened.
        with path.open("rb") as file:
            file.read(1)
        try:
            self._file = safe_open(path, framework="pt")
            self.facts = _facts(self._file.metadata())
        except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise Damaged(str(error) or type(error).__name__) from error

    def get(self, audio: str, check: bool = True) -> Item:
        """The item of one audio digest (float32); raises Damaged when its checksum is wrong."""
        try:
            stored = {f"{audio}/states": self._file.get_tensor(f"{audio}/states")}
            if self.facts[audio]["bytes"] > _bytes(stored.values()):
                stored[f"{audio}/kept"] = self._file.get_tensor(f"{audio}/kept")
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise Damaged(str(error)) from error
        if not all(t.is_floating_point() for t in stored.values()):
            raise Damaged("its numbers are no floats")
        if check and checksum(stored) != self.facts[audio]["crc"]:
            raise Damaged("a checksum is wrong")
        start_input = stored.get(f"{audio}/kept")
        states = stored[f"{audio}/states"].float()
        return states, None if start_input is None else start_input.float()

    def check(self) -> None:
        """Read all of it; raises OSError or Damaged."""
        for audio in self.facts:
            self.get(audio)


def write_shard(path: Path, items: Mapping[str, Tensor], facts: Mapping[str, Facts]) -> None:
    """Write tensors named ``DIGEST/states`` and ``DIGEST/kept``; raises OSError."""
    text = json.dumps(facts)
    try:
        save_file(dict(items), path, metadata={"items": text, "crc": str(_crc(text))})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def rounded(item: Item, audio: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], Facts]:
    """The tensors of an item as they are stored, and what is to be known of them."""
    states, start_input = item
    tensors = {f"{audio}/states": states} | (
        {} if start_input is None else {f"{audio}/kept": start_input}
    )
    stored = {k: t.detach().to("cpu", dtype).contiguous() for k, t in tensors.items()}
    facts = {
        "crc": checksum(stored),
        "bytes": _bytes(stored.values()),
        "drift": _drift(tensors, stored),
    }
    return stored, facts


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over all numbers, by name."""
    crc = 0
    for _, tensor in sorted(tensors.items()):
        if tensor.numel():
            crc = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _facts(metadata: Mapping[str, str] | None) -> dict[str, Facts]:
    text = (metadata or {})["items"]
    if (metadata or {})["crc"] != str(_crc(text)):
        raise ValueError("the checksum of its list of items is wrong")
    listing = json.loads(text)
    if not isinstance(listing, dict):
        raise ValueError("its list of items is none")
    for name, facts in listing.items():
        numbers = [facts[key] for key in NUMBERS] + [facts.get("batch", 0)]
        # A bool is an int, and NaN a float.
        if not all(type(x) in (int, float) and math.isfinite(x) and x >= 0 for x in numbers):
            raise ValueError(f"what it says of item {name[:12]!r} are no numbers")
    return listing


def _crc(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _drift(exact: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> float:
    wrong = sum(
        float((stored[k].float() - t.detach().float().cpu()).square().sum())
        for k, t in exact.items()
    )
    right = sum(float(t.detach().float().square().sum()) for t in exact.values())
    return (wrong / right) ** 0.5 if right else 0.0
