"""The kinds of values that records hold: bounded, finite, valid Unicode. Imports no torch."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field

LARGEST = 2**63 - 1  # a whole number beyond it is damage, and float() may overflow
DEEPEST = 40  # levels of the free-form parts
MOST = 1_000_000  # values of one free-form part


def plain(value: Any) -> Any:
    """Free-form JSON: finite numbers of a sane size, valid Unicode, neither deep nor endless.

    Raises ValueError with the place.
    """
    for count, (item, place, depth) in enumerate(_leaves(value, "", 0)):
        if count > MOST:
            raise ValueError(f"must hold at most {MOST} values")
        if depth > DEEPEST:
            raise ValueError("is nested too deeply")
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"holds a text that is not valid Unicode{place}") from error
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"must hold finite numbers only, not {item}{place}")
        elif isinstance(item, int):
            if abs(item) > LARGEST:
                raise ValueError(f"holds a whole number that is too large{place}")
        elif item is not None and not isinstance(item, (list, dict)):
            raise ValueError(f"holds a {type(item).__name__}, which JSON cannot hold{place}")
    return value


def _leaves(value: Any, place: str, depth: int) -> Iterator[tuple[Any, str, int]]:
    """Every value below ``value``, itself and the names included, with where it stands."""
    yield value, place, depth
    if depth > DEEPEST:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"holds a name that is no text{place}")
            yield name, place, depth
            yield from _leaves(item, f" at {ascii(name)[1:61]}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item, place, depth + 1)


def without_nan(value: Any) -> Any:
    """The same value with null for every number that is not finite, and lists for tuples."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same keys but some: what is not there is left out, as records from before it have it."""
    return {key: value for key, value in data.items() if key not in names}


def parse_moment(value: str) -> datetime.datetime:
    """The moment, in UTC; without a zone it counts as UTC. Raises ValueError."""
    try:
        parsed = datetime.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
        if parsed.tzinfo is None:
            return parsed.replace(tzinfo=datetime.timezone.utc)
        return parsed.astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError) as error:
        raise ValueError("must be a date and time in ISO 8601") from error


def _moment(value: str) -> str:
    parse_moment(value)
    return value


def _unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode") from error
    return value


def no_truth_value(value: Any) -> Any:
    if value is True:  # which python takes for a 1
        raise ValueError("must be a whole number")
    return value


Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_unicode)]
Text = Annotated[str, Field(max_length=20_000), AfterValidator(_unicode)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$")]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_moment)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]  # sums over any number of folds stay finite
Hours = Annotated[float, Field(ge=0, le=1e9)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Object = Annotated[dict[str, Any], AfterValidator(plain)]
Names = Annotated[list[Name], Field(max_length=100_000)]
Sentences = Annotated[list[Text], Field(max_length=100_000)]
