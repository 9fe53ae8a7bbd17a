"""Conditions that differ in one number, which a curve joins: noise at several ratios, ..."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from emopeft.downstream.records.conditions import AppliedFacts
from emopeft.downstream.views.base import TRANSFORMS

AXES = {
    "snr": "signal-to-noise ratio, dB",
    "seconds": "seconds of the clip",
    "rt60": "RT60, seconds",
    "kbps": "kbit/s",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """One transformation with one option in several sizes.

    Attributes:
        title: in words. axis: what the sizes are. file: part of the name of a picture's file.
        places: size -> condition.
    """

    title: str
    axis: str
    file: str
    places: Mapping[float, str]


def families_of(conditions: Mapping[str, Sequence[AppliedFacts]]) -> list[Family]:
    """The families of conditions (name -> what each is), in the order of their first; one of
    several transformations, or whose main option is a range or no number, is in none."""
    found: dict[tuple[str, ...], dict[float, str]] = {}
    for name, transforms in conditions.items():
        size = _size(transforms)
        if size is not None:
            (of,) = transforms
            main = TRANSFORMS[of.name].main
            rest = (f"{key}={v}" for key, v in sorted(of.options.items()) if key != main)
            found.setdefault((of.name, *rest, of.outside), {}).setdefault(size, name)
    return [_family(places, key[0]) for key, places in found.items()]


def _size(transforms: Sequence[AppliedFacts]) -> float | None:
    if len(transforms) != 1:
        return None
    try:
        return float(transforms[0].options[TRANSFORMS[transforms[0].name].main])
    except (KeyError, ValueError):  # it has no main option, or a range
        return None


def _family(places: Mapping[float, str], transform: str) -> Family:
    main = TRANSFORMS[transform].main
    spelled = next(iter(places.values())).partition(":")[2].split(",")
    other = [option for option in spelled if option and not option.startswith(f"{main}=")]
    title = f"{transform} ({', '.join(other)})" if other else transform
    file = re.sub("[^a-z0-9.=-]+", "-", "-".join([transform, *other]).lower())[:80]
    return Family(title, AXES.get(main, main), file, places)
