"""What an encoder sees of a clip: all of it, one stretch of it, or several whose outputs are
averaged (the recipe's section ``clips``).

``crop``: of a longer clip one stretch of ``clips.seconds``. In training it begins at one of
``clips.starts`` places, spaced evenly from the clip's beginning to the last that fits, drawn anew
in each epoch; dev and test take the clip's beginning. With one start that is "the first seconds",
as the challenge baseline of Odyssey 2024 (12 s) and PEFT-SER's code (6 s; its dataloader.py at
4565eb2 cuts training, dev and test alike) have it.

``segments``: as few stretches of ``clips.seconds`` as cover the clip, spaced evenly (they overlap
where they do not fit exactly). A clip's outputs are the mean of theirs, in training as in tests.

A clip that is not longer is taken whole, and its frozen part is that of every other run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.data.keys import ClipKeys
from emopeft.upstream.base import SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of a clip, in samples at 16 kHz."""

    start: int
    length: int

    def of(self, wav: Tensor) -> Tensor:
        """It in a waveform (samples,)."""
        return wav[self.start : self.start + self.length]


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A clip's audio, or a stretch of it.

    Attributes:
        name: what its frozen part is kept by. seconds: how long it is.
        span: None for the whole clip.
    """

    name: str
    path: Path
    seconds: float
    span: Span | None = None

    def read(self) -> Tensor:
        """The waveform (samples,) at 16 kHz."""
        wav = torch.from_numpy(decode(self.path, SAMPLE_RATE))
        return wav if self.span is None else self.span.of(wav)


Row = tuple[Excerpt, ...]  # whose outputs are averaged; as a rule one


def spans(keys: ClipKeys, seconds: float, training: bool = False) -> list[list[Span]]:
    """What is taken of a clip of so many seconds: the ways to take it, each a list of stretches.

    The first way is that of dev and test; the others are drawn in training. [] for a clip that is
    taken whole.
    """
    if keys.mode == "whole" or keys.seconds is None:
        return []
    length = round(keys.seconds * SAMPLE_RATE)
    rest = round(seconds * SAMPLE_RATE) - length
    if rest <= 0:
        return []
    if keys.mode == "segments":
        return [[Span(at, length) for at in _spaced(rest, math.ceil(rest / length) + 1)]]
    return [[Span(at, length)] for at in _spaced(rest, keys.starts if training else 1)]


def _spaced(last: int, count: int) -> list[int]:
    """``count`` whole numbers from 0 to ``last``, spaced evenly; of one the first."""
    if count == 1:
        return [0]
    return list(dict.fromkeys(round(i * last / (count - 1)) for i in range(count)))


def rows_of(
    keys: ClipKeys, path: Path, audio: str, seconds: float, training: bool = False
) -> list[Row]:
    """`spans` of a clip as excerpts; of a clip that is taken whole, one.

    Args:
        audio: the digest of the clip's decoded audio.
    """
    ways = spans(keys, seconds, training)
    if not ways:
        return [(Excerpt(audio, path, seconds),)]
    return [
        tuple(Excerpt(_name(audio, s), path, s.length / SAMPLE_RATE, s) for s in way)
        for way in ways
    ]


def _name(audio: str, span: Span) -> str:
    return hashlib.sha256(f"{audio} {span.start} {span.length}".encode()).hexdigest()


def drawn(ways: Sequence[Sequence[int]], seed: int, epoch: int) -> list[int]:
    """One of each one's ways, by seed and epoch alone (as `batching.epoch_order`)."""
    if all(len(way) == 1 for way in ways):
        return [way[0] for way in ways]
    generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + epoch + 500_000_009)
    numbers = torch.rand(len(ways), generator=generator, dtype=torch.float64).tolist()
    return [way[int(x * len(way))] for way, x in zip(ways, numbers, strict=True)]
