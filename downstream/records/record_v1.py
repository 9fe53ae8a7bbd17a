"""What a result.json must hold, as data, and the check of a file that nobody vouches for.

Every check takes a value and its key path and raises ``Mismatch``. Keys beyond the schema are
allowed (a newer minor writer may add some), except that every number must be finite and every
text valid Unicode wherever it stands.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

VERSION = 1
LARGEST = 2**63  # beyond it a whole number in a record is damage, and float() may overflow
Check = Callable[[Any, str], None]


class Mismatch(ValueError):
    """A value that is not what the schema says; the text begins with the key path."""


def text(value: Any, key: str) -> None:
    """Any string that is not empty."""
    if not isinstance(value, str) or not value:
        raise Mismatch(f"'{key}' must be a text that is not empty")


def string(value: Any, key: str) -> None:
    """Any string."""
    if not isinstance(value, str):
        raise Mismatch(f"'{key}' must be a text")


def hexadecimal(value: Any, key: str) -> None:
    """8 to 64 lower-case hexadecimal digits, as ``emopeft.files.digest`` makes them."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{8,64}", value):
        raise Mismatch(f"'{key}' must be 8 to 64 hexadecimal digits")


def moment(value: Any, key: str) -> None:
    """A date and time in ISO 8601."""
    try:
        parse_moment(value)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Mismatch(f"'{key}' must be a date and time in ISO 8601") from error


def parse_moment(value: str) -> datetime.datetime:
    """The moment, in UTC; without a zone it counts as UTC. Raises ValueError."""
    parsed = datetime.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=datetime.timezone.utc)
    return parsed.astimezone(datetime.timezone.utc)


def whole(low: int | None = None) -> Check:
    """A whole number, at least ``low``."""

    def check(value: Any, key: str) -> None:
        if type(value) is not int or (low is not None and value < low):
            least = "" if low is None else f" of at least {low}"
            raise Mismatch(f"'{key}' must be a whole number{least}")

    return check


def number(low: float | None = None, high: float | None = None) -> Check:
    """A finite number within the bounds; true and false are not numbers."""

    def check(value: Any, key: str) -> None:
        good = type(value) in (int, float) and math.isfinite(value)
        if not good or (low is not None and value < low) or (high is not None and value > high):
            bounds = "" if low is None else f", at least {low}"
            bounds += "" if high is None else f", at most {high}"
            raise Mismatch(f"'{key}' must be a finite number{bounds}")

    return check


def one_of(*allowed: Any) -> Check:
    """One of a few values, of the same type."""

    def check(value: Any, key: str) -> None:
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise Mismatch(f"'{key}' must be {' or '.join(map(repr, allowed))}")

    return check


def maybe(inner: Check) -> Check:
    """null, or what ``inner`` says."""
    return lambda value, key: None if value is None else inner(value, key)


def anything(value: Any, key: str) -> None:
    """Whatever JSON can hold."""


def listed(inner: Check, least: int = 0, distinct: bool = False) -> Check:
    """A list of ``inner``, at least ``least`` long."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise Mismatch(f"'{key}' must be a list of at least {least}")
        for index, item in enumerate(value):
            inner(item, f"{key}[{index}]")
        if distinct and len(set(value)) != len(value):
            raise Mismatch(f"'{key}' names something twice")

    return check


def mapping(inner: Check) -> Check:
    """An object with any keys whose values are ``inner``."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, dict):
            raise Mismatch(f"'{key}' must be an object")
        for name, item in value.items():
            inner(item, f"{key}.{name}")

    return check


def table(**fields: Check) -> Check:
    """An object that has all of ``fields``."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, dict):
            raise Mismatch(f"'{key}' must be an object" if key else "it must be an object")
        for name, inner in fields.items():
            path = f"{key}.{name}" if key else name
            if name not in value:
                raise Mismatch(f"'{path}' is missing")
            inner(value[name], path)

    return check


def clean(value: Any, key: str = "") -> None:
    """Finite numbers of a sane size and valid Unicode everywhere below ``value``."""
    if isinstance(value, dict):
        for name, item in value.items():
            path = f"{key}.{name}" if key else str(name)
            clean(name, path)
            clean(item, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            clean(item, f"{key}[{index}]")
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Mismatch(f"{ascii(key)} holds a text that is not valid Unicode") from error
    elif isinstance(value, float) and not math.isfinite(value):
        raise Mismatch(f"'{key}' is {value}, and every number must be finite")
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise Mismatch(f"'{key}' is too large a whole number")
    elif value is not None and not isinstance(value, (str, float, int)):
        raise Mismatch(f"'{key}' is a {type(value).__name__}, which JSON cannot hold")


SCORE = number(0, 1)
METRICS = table(accuracy=SCORE, uar=SCORE, macro_f1=SCORE, confusion=listed(listed(whole(0))))
FOLD = table(
    fold=text,
    seed=whole(0),
    metrics=METRICS,
    dev=mapping(anything),
    lr=maybe(number(0)),
    steps=whole(0),
    best_step=maybe(whole(0)),
    seconds=mapping(number(0)),
)
STATISTIC = table(mean=SCORE, std=maybe(number(0)), n=whole(1))


def statistic(value: Any, key: str) -> None:
    """Mean, std and n over folds; with several seeds also seed_std."""
    STATISTIC(value, key)
    maybe(number(0))(value.get("seed_std"), f"{key}.seed_std")


COUNT = whole(0)
SECONDS = number(0)

RECORD = table(
    schema=one_of(VERSION),
    status=one_of("finished", "incomplete"),
    name=text,
    identity=hexadecimal,
    task=one_of("emotion"),
    created=moment,
    command=text,
    corpus=table(name=text, title=text, licence=text, utterances=COUNT, hours=number(0)),
    protocol=table(
        name=text,
        version=whole(0),
        hash=hexadecimal,
        classes=listed(text, least=2, distinct=True),
        folds=listed(text, least=1, distinct=True),
        speaker_overlap=listed(text),
        audit=mapping(anything),
    ),
    upstream=table(
        name=text,
        loader=text,
        source=maybe(string),
        revision=maybe(string),
        weights=maybe(hexadecimal),  # null: an upstream without weights, as fbank
        licence=maybe(string),
        parameters=COUNT,
        note=maybe(string),
    ),
    method=table(
        spec=text, parts=listed(table(name=text, options=mapping(anything), parameters=COUNT))
    ),
    head=table(name=text, layers=anything),
    training=mapping(anything),
    folds=listed(FOLD, least=1),
    summary=table(accuracy=statistic, uar=statistic, macro_f1=statistic),
    parameters=table(trainable=COUNT, method=COUNT, head=COUNT, total=whole(1), share=number(0, 1)),
    cost=table(
        seconds=table(load=SECONDS, features=SECONDS, train=SECONDS, test=SECONDS),
        audio_hours_per_second=maybe(number(0)),
        peak_memory_bytes=maybe(COUNT),
        cache_bytes=maybe(COUNT),
        cache_bytes_per_hour=maybe(number(0)),
    ),
    device=table(name=text, precision=text, processes=whole(1)),
    packages=mapping(text),
)


def check_fold(value: Any, classes: int | None = None, key: str = "") -> None:
    """One entry of ``folds``. Raises Mismatch."""
    if not key:
        clean(value)
    FOLD(value, key)
    shape = value["metrics"]["confusion"]
    rows = len(shape) if classes is None else classes
    if len(shape) != rows or any(len(row) != rows for row in shape):
        path = f"{key}.metrics.confusion" if key else "metrics.confusion"
        raise Mismatch(f"'{path}' must have as many rows and columns as there are classes")


def check_record(value: Any) -> None:
    """A whole record: types, then what must fit together. Raises Mismatch."""
    clean(value)
    RECORD(value, "")
    protocol, folds = value["protocol"], value["folds"]
    seen = set()
    for index, fold in enumerate(folds):
        check_fold(fold, len(protocol["classes"]), f"folds[{index}]")
        name, seed = fold["fold"], fold["seed"]
        if name not in protocol["folds"]:
            raise Mismatch(f"'folds[{index}].fold' is '{name}', which the protocol does not have")
        if (name, seed) in seen:
            raise Mismatch(f"'folds[{index}]' repeats fold {name} of seed {seed}")
        seen.add((name, seed))
    if value["parameters"]["trainable"] > value["parameters"]["total"]:
        raise Mismatch("'parameters.trainable' is more than 'parameters.total'")
    lacking = missing(protocol["folds"], folds)
    if value["status"] == "finished" and lacking:
        names = ", ".join(f"{fold} (seed {seed})" for fold, seed in lacking[:6])
        raise Mismatch(f"'status' is finished, but these folds are missing: {names}")


def missing(
    expected: Sequence[str], folds: Sequence[Mapping[str, Any]], seeds: Sequence[int] | None = None
) -> list[tuple[str, int]]:
    """The (fold, seed) pairs that are not there yet.

    ``expected``: the protocol's fold names; ``seeds``: those of the run, else those in ``folds``.
    """
    have = {(fold["fold"], fold["seed"]) for fold in folds}
    wanted = sorted({seed for _, seed in have}) if seeds is None else seeds
    return [(fold, seed) for seed in wanted for fold in expected if (fold, seed) not in have]
