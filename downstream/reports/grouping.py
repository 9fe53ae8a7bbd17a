"""Which clips make a group: by what is known of speaker and recording, its spellings merged.

What is not known makes no group: such clips are left out, and how many they are is said.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.records.corpora_apart import corpus_of
from emopeft.downstream.records.predictions import Prediction
from emopeft.errors import UserError, unknown
from emopeft.text import plain

SPEAKER, CORPUS, LANGUAGE = "speaker", "corpus", "language"
AGE = "age"
BANDS = {AGE: (18.0, 30.0, 45.0, 60.0)}  # where bands begin
LIMITS = {AGE: (0.0, 130.0)}  # what can be one
EVERY = -math.inf, math.inf
MOST = 20  # groups of a trait that nobody named
ANY = "any"  # the language of a format
SAME = {
    "sex": {"female": ("f", "woman", "women", "girl", "fem"), "male": ("m", "man", "men", "boy")}
}
SAME["gender"] = SAME["sex"]
UNKNOWN = {"unknown", "not known", "n/a", "na", "nan", "none", "null", "?", "-", "unspecified",
           "not stated", "not specified", "prefer not to say", "undefined"}  # fmt: skip
Bands = Mapping[str, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A tested clip: whose it is, and what is known, by names in small letters."""

    speaker: str
    traits: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Groups of clips.

    Attributes:
        name: the trait. names: of the groups, in their order.
        of: clip to the place of its group; clips of none are not in it.
        notes: what a reader should know of it, a sentence each.
    """

    name: str
    names: tuple[str, ...]
    of: Mapping[str, int]
    notes: tuple[str, ...] = ()


def clips_of(tables: Iterable[Sequence[Prediction]], corpora: Iterable[str]) -> dict[str, Clip]:
    """The clips of some runs of one plan, by id; of a trait that they tell differently, what the
    first says.

    Args:
        corpora: names of those that the runs are of.
    """
    names = list(corpora)
    clips: dict[str, Clip] = {}
    for row in (row for rows in tables for row in rows):
        known = {_small(name): value for name, value in row.traits.items() if _small(name)}
        known[CORPUS] = corpus_of(row.id, names)
        known.setdefault(LANGUAGE, _language(known[CORPUS]))
        first = clips.get(row.id)
        clips[row.id] = Clip(row.speaker, known | dict(first.traits) if first else known)
    return clips


@functools.cache
def _language(corpus: str) -> str:
    """What a corpus that is known here is spoken in; "" where that is not known."""
    try:
        language = CORPORA[corpus].language if corpus in CORPORA else ""
    except UserError:  # another corpus of a format, or of a package that is not there
        return ""
    return "" if language == ANY else language


@functools.lru_cache(1 << 16)
def _small(text: str) -> str:
    """Small letters, single blanks."""
    return plain(re.sub(r"[\s_]+", " ", text)).casefold()


def known_traits(clips: Mapping[str, Clip]) -> list[str]:
    """The traits of which any clip has a value, sorted; not the speaker."""
    return sorted({n for clip in clips.values() for n, v in clip.traits.items() if value_of(n, v)})


def value_of(trait: str, text: str) -> str:
    """A trait's value as groups are called; "" where it is not known."""
    value = _small(text)
    for name, spellings in SAME.get(trait, {}).items():
        if value.rstrip(".") in spellings:
            return name
    return "" if value in UNKNOWN else value


# ---- bands ------------------------------------------------------------------------------------


def bands_of(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """``age=30,45`` of each: the bands of a trait that holds numbers; raises UserError."""
    bands: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        try:
            edges = tuple(float(edge) for edge in rest.split(","))
        except ValueError:
            edges = ()
        rising = all(a < b for a, b in zip(edges, edges[1:], strict=False))
        if not (equals and _small(name) and edges and rising and all(map(math.isfinite, edges))):
            raise UserError(
                f"--bands {plain(text)}: expected TRAIT=NUMBER,NUMBER,... rising, where bands "
                "begin, such as age=30,45,60"
            )
        if _small(name) in bands:
            raise UserError(f"--bands names {_small(name)} twice; give each trait once")
        bands[_small(name)] = edges
    return bands


def band_names(edges: Sequence[float]) -> list[str]:
    """``under 18``, ``18–29``, ``60 or more`` of 18, 30, 60; a band holds its beginning."""
    whole = all(edge == int(edge) for edge in edges)
    middle = [
        f"{low:g}–{high - 1:g}" if whole and high - 1 > low else f"{low:g} to under {high:g}"
        for low, high in zip(edges, edges[1:], strict=False)
    ]
    return [f"under {edges[0]:g}", *middle, f"{edges[-1]:g} or more"]


def _banded(
    values: Mapping[str, str], edges: Sequence[float], limits: tuple[float, float]
) -> dict[str, str]:
    """The values as bands; what is no number within the limits is not known."""
    names, found = band_names(edges), {}
    for clip, value in values.items():
        try:
            number = float(value)
        except ValueError:
            continue
        low, high = limits
        if low <= number <= high and math.isfinite(number):  # NaN fails, too
            found[clip] = names[sum(number >= edge for edge in edges)]
    return found


# ---- groupings --------------------------------------------------------------------------------


def groupings(
    clips: Mapping[str, Clip], by: Sequence[str] = (), bands: Bands = BANDS
) -> tuple[list[Grouping], list[str]]:
    """The groups of the traits that are named, or of all that make several; and which of those
    are left out, a sentence each.

    Raises:
        UserError: a trait that no clip has, or one to be banded whose values are no numbers.
    """
    known = known_traits(clips)
    wanted = list(dict.fromkeys(_small(name) for name in by)) or known
    for name in (*(n for n in wanted if n != SPEAKER), *(n for n in bands if n not in BANDS)):
        if name not in known:
            raise unknown("trait of the tested clips", name, [*known, SPEAKER])
    found, left = [], []
    for name in (n for n in wanted if n != SPEAKER):
        grouping = group_by(name, clips, bands)
        if by or 1 < len(grouping.names) <= MOST:
            found.append(grouping)
        elif len(grouping.names) > MOST:
            left.append(
                f"left out: {name}, which makes {len(grouping.names)} groups; --by {name} shows it"
            )
    return found, left


def group_by(trait: str, clips: Mapping[str, Clip], bands: Bands = BANDS) -> Grouping:
    """The groups of a trait; raises UserError as `groupings`."""
    texts = {clip: value_of(trait, of.traits.get(trait, "")) for clip, of in clips.items()}
    values = {clip: value for clip, value in texts.items() if value}
    notes: list[str] = []
    order: dict[str, int] = {}
    if trait in bands:
        numbers = _banded(values, bands[trait], LIMITS.get(trait, EVERY))
        others = sorted({values[clip] for clip in values.keys() - numbers.keys()})
        if numbers and others:
            notes.append(f"no {trait} in numbers, so not known: {_some(others)}")
        if numbers:
            values, order = numbers, {n: i for i, n in enumerate(band_names(bands[trait]))}
        elif bands[trait] != BANDS.get(trait):
            raise UserError(
                f"--bands {trait}: its values are no numbers ({_some(others)}); leave it out"
            )
    if unknown_ones := len(clips.keys() - values.keys()):
        notes.append(
            f"left out, as their {trait} is not known: {unknown_ones} of {len(clips)} clips"
        )
    values, more = _steady(trait, values, clips)
    names = sorted(set(values.values()), key=lambda name: (order.get(name, 0), name))
    place = {name: i for i, name in enumerate(names)}
    return Grouping(
        trait, tuple(names), {clip: place[v] for clip, v in values.items()}, (*notes, *more)
    )


def _steady(
    trait: str, values: Mapping[str, str], clips: Mapping[str, Clip]
) -> tuple[dict[str, str], list[str]]:
    """Without the speakers who have several values of a trait that most have one of. Where most
    have several it is one of recordings: each clip counts where it belongs."""
    own: dict[str, set[str]] = {}
    for clip, value in values.items():
        own.setdefault(clips[clip].speaker, set()).add(value)
    varying = sorted(speaker for speaker, of in own.items() if len(of) > 1)
    if not varying:
        return dict(values), []
    if 2 * len(varying) > len(own):
        return dict(values), [
            f"{len(varying)} of {len(own)} speakers have clips in several groups: they are drawn "
            "as one, with all their clips"
        ]
    kept = {clip: v for clip, v in values.items() if clips[clip].speaker not in varying}
    return kept, [f"left out, as their {trait} varies: {_some(varying)}"]


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(plain(name, 40) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
