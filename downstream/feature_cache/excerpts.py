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

Before any of that a clip may be drawn in a view: in noise, over a telephone, ... (room ``views``).
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
from emopeft.downstream.views.base import Drawing
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
        span: None for the whole clip. drawing: the view of the clip; None: as it was recorded.
        kept: whether its frozen part is; else it is computed whenever it is wanted.
    """

    name: str
    path: Path
    seconds: float
    span: Span | None = None
    drawing: Drawing | None = None
    kept: bool = True

    def read(self) -> Tensor:
        """The waveform (samples,) at 16 kHz."""
        recorded = decode(self.path, SAMPLE_RATE)
        wav = torch.from_numpy(recorded if self.drawing is None else self.drawing.of(recorded))
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
    keys: ClipKeys,
    path: Path,
    audio: str,
    seconds: float,
    training: bool = False,
    drawing: Drawing | None = None,
    kept: bool = True,
) -> list[Row]:
    """`spans` of a clip as excerpts; of a clip that is taken whole, one.

    Args:
        audio: the digest of the clip's decoded audio. seconds: how long that is.
        drawing, kept: see `Excerpt`.
    """
    if drawing is not None:
        audio = drawing.name
        seconds = drawing.length(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    ways = spans(keys, seconds, training)
    if not ways:
        return [(Excerpt(audio, path, seconds, None, drawing, kept),)]
    return [
        tuple(Excerpt(_name(audio, s), path, s.length / SAMPLE_RATE, s, drawing, kept) for s in way)
        for way in ways
    ]


def _name(audio: str, span: Span) -> str:
    return hashlib.sha256(f"{audio} {span.start} {span.length}".encode()).hexdigest()


def drawn(ways: Sequence[Sequence[int]], seed: int, epoch: int, in_turn: bool = False) -> list[int]:
    """One of each one's ways, by seed and epoch alone (as `batching.epoch_order`).

    Args:
        in_turn: each epoch takes the next of them, where there is one for each epoch.
    """
    if all(len(way) == 1 for way in ways):
        return [way[0] for way in ways]
    if in_turn:
        return [way[epoch % len(way)] for way in ways]
    generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + epoch + 500_000_009)
    numbers = torch.rand(len(ways), generator=generator, dtype=torch.float64).tolist()
    return [way[int(x * len(way))] for way, x in zip(ways, numbers, strict=True)]
