"""The contract of a view: transformations of a waveform, one after another, each with options.

``noise:snr=10``, ``pitch:semitones=-2..2+reverb``: written as methods are, a range where a value is
drawn. What is drawn depends on the clip's audio, the transformation's place and name, and the
number of the drawing, and on nothing else: a view of a clip is the same in every fold, run and
process, and the noise at 0 dB is that at 20 dB, louder. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from emopeft.downstream.corpora.audio import SAMPLE_RATE
from emopeft.errors import UserError, unknown
from emopeft.files import digest
from emopeft.options import shortened
from emopeft.registry import Registry
from emopeft.values import Range

CLEAN = "clean"  # the view of an utterance as it was recorded
LONGEST = 200  # characters of a view as it is written
Samples = np.ndarray  # (samples,) float32 at SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Between:
    """A number, or a range from which one is drawn evenly for each clip."""

    low: float
    high: float

    @classmethod
    def of(cls, text: str, where: str, limits: Range) -> Between:
        """``10`` or ``5..20``; raises UserError that begins with ``where``."""
        first, dots, last = text.partition("..")
        try:
            low, high = float(first), float(last if dots else first)
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(f"{where} = {shortened(text)} must be a number, or a range as 5..20")
        if low > high:
            raise UserError(f"{where} = {text}: a range goes from low to high")
        for end in (low, high):
            limits.check(where, end)
        return cls(*(float(f"{end:.10g}") for end in (low, high)))  # what is written is applied

    def __str__(self) -> str:
        ends = [f"{end:.10g}" for end in (self.low, self.high)]
        return ends[0] if self.low == self.high else "..".join(ends)

    def draw(self, rng: np.random.Generator) -> Between:
        """One number of the range."""
        if self.low == self.high:
            return self
        value = float(rng.uniform(self.low, self.high))
        return Between(value, value)

    @property
    def value(self) -> float:
        """The number; of a range the larger end in size, which acts most."""
        return max(self.low, self.high, key=abs)


@dataclasses.dataclass(frozen=True)
class Voice:
    """A clip that may be heard behind another."""

    path: Path
    audio: str  # digest of its decoded audio
    speaker: str


@dataclasses.dataclass(frozen=True)
class Crowd:
    """The clips of which babble is made, with the digest of what they are."""

    voices: tuple[Voice, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Of all of them in order."""
        return digest([[v.audio, v.speaker] for v in self.voices])


@dataclasses.dataclass(frozen=True)
class Clip:
    """Whose waveform is transformed. crowd: who may babble behind it; None: nobody is there."""

    audio: str
    speaker: str = ""
    crowd: Crowd | None = None


class Transform:
    """One transformation; subclasses are frozen dataclasses of options (`option`).

    Attributes:
        name: as it is written. summary: what it does, in a line.
        revision: raised when the same options begin to give another waveform.
        library: the distribution that computes it, whose version then counts; "" for none.
        crowded: whether it needs other clips (`Clip.crowd`).
        main: the option that is always written, "" for none.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    revision: ClassVar[int] = 1
    library: ClassVar[str] = ""
    crowded: ClassVar[bool] = False
    main: ClassVar[str] = ""

    def length(self, samples: int) -> int:
        """How long a clip of so many samples becomes, all options drawn."""
        return samples

    def apply(self, wav: Samples, rng: np.random.Generator, clip: Clip) -> Samples:
        """The waveform (samples,) transformed, all options drawn; ``wav`` stays as it is.

        Raises:
            UserError: what it needs is not installed or not there.
        """
        raise NotImplementedError

    def outside(self) -> str:
        """Digest of what the options point to beside the clip; "" where it is nothing."""
        return ""

    def drawn(self, rng: np.random.Generator) -> Transform:
        """Itself with a value drawn from each range, in the order of the options."""
        values = {
            field.name: getattr(self, field.name).draw(rng)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if isinstance(getattr(self, field.name), Between)
        }
        return dataclasses.replace(self, **values)  # type: ignore[type-var]

    def options(self) -> dict[str, str]:
        """All options, as they are written."""
        return {f.name: str(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """All that decides what it gives of a clip, as JSON, without places of this machine."""
        told = {name: value for name, value in self.options().items() if name != "folder"}
        library = {self.library: version(self.library)} if self.library else {}
        return {
            "name": self.name, "options": told, "revision": self.revision, "library": library,
            "outside": self.outside(),
        }  # fmt: skip

    def __str__(self) -> str:
        """With `main` and the options that are not as by default; of a folder its last name."""
        parts = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default or field.name == self.main:
                shown = Path(value).name if field.name == "folder" else value
                parts.append(f"{field.name}={shown}")
        return self.name + (":" + ",".join(parts) if parts else "")


TRANSFORMS: Registry[type[Transform]] = Registry("transformation", "emopeft.downstream.views")
T = TypeVar("T", bound=type[Transform])


def register(cls: T) -> T:
    """Class decorator: make a transformation known under its name."""
    TRANSFORMS.add(cls.name, cls)
    return cls


def option(default: str, help: str, low: float = -math.inf, high: float = math.inf) -> Any:
    """A number or range with its documentation and limits."""
    limits = Range(low, high)
    made = Between.of(default, "default", limits)
    return dataclasses.field(default=made, metadata={"help": help, "limits": limits})


def choice(default: str, help: str, choices: Sequence[str] = ()) -> Any:
    """A text with its documentation; no ``choices``: any."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def version(distribution: str) -> str:
    """The version of an installed distribution; "" where it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclasses.dataclass(frozen=True)
class View:
    """Transformations in their order; none: the clip as it was recorded."""

    transforms: tuple[Transform, ...] = ()

    @functools.cached_property
    def spelling(self) -> str:
        """As ids and tables write it; ``clean`` for none."""
        return "+".join(map(str, self.transforms)) or CLEAN

    @functools.cached_property
    def described(self) -> list[dict[str, Any]]:
        """`Transform.describe` of each."""
        return [t.describe() for t in self.transforms]

    @property
    def crowded(self) -> bool:
        """Whether it needs other clips."""
        return any(t.crowded for t in self.transforms)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A view of a clip: the one of its many that has this number."""

    view: View
    clip: Clip
    number: int = 0

    @functools.cached_property
    def name(self) -> str:
        """Digest (64 hex digits) of the waveform that it gives."""
        crowd = self.clip.crowd
        who = [crowd.digest, self.clip.speaker] if self.view.crowded and crowd else []
        return digest([self.clip.audio, self.view.described, self.number, who])

    def length(self, samples: int) -> int:
        """How long a clip of so many samples becomes."""
        for transform, _ in self._drawn():
            samples = transform.length(samples)
        return samples

    def of(self, wav: Samples) -> Samples:
        """The clip's waveform (samples,) transformed; raises UserError as `Transform.apply`."""
        for transform, rng in self._drawn():
            expected = transform.length(len(wav))
            wav = np.ascontiguousarray(transform.apply(wav, rng, self.clip), dtype=np.float32)
            assert len(wav) == expected, f"{transform}: {len(wav)} samples, not {expected}"
        return wav

    def _drawn(self) -> list[tuple[Transform, np.random.Generator]]:
        return [
            (transform.drawn(rng), rng)
            for place, transform in enumerate(self.view.transforms)
            for rng in [self._rng(place, transform.name)]
        ]

    def _rng(self, place: int, name: str) -> np.random.Generator:
        told = f"{self.clip.audio} {place} {name} {self.number}"
        return np.random.default_rng(list(hashlib.sha256(told.encode()).digest()))


def parse_view(text: str) -> View:
    """``clean``, or transformations with their options.

    Raises:
        UserError: an unknown transformation or option (with the nearest), or a wrong value.
    """
    if len(text) > LONGEST:
        raise UserError(f"the view {shortened(text)} is longer than {LONGEST} characters")
    if text.strip() == CLEAN:
        return View()
    return View(tuple(_parse_one(piece.strip()) for piece in text.split("+")))


def _parse_one(text: str) -> Transform:
    name, _, rest = text.partition(":")
    cls = TRANSFORMS[name.strip()]
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for item in filter(None, (x.strip() for x in rest.split(","))):
        key, equals, value = (x.strip() for x in item.partition("="))
        if not equals:
            raise UserError(f"'{shortened(item)}' in '{shortened(text)}' is not option=value")
        if key not in fields:
            raise unknown(f"option of {cls.name}", key, fields)
        if key in values:
            raise UserError(f"option {key} stands twice in '{shortened(text)}'; give it once")
        values[key] = _value(f"{cls.name}:{key}", value, fields[key])
    return cls(**values)


def _value(where: str, text: str, field: dataclasses.Field[Any]) -> Any:
    if isinstance(field.default, Between):
        return Between.of(text, where, field.metadata["limits"])
    choices = field.metadata["choices"]
    if choices and text not in choices:
        raise unknown(f"value of {where}", text, choices)
    return text


def seconds_of(samples: int) -> float:
    """How long so many samples are."""
    return samples / SAMPLE_RATE
