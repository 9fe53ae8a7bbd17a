"""The values of a recipe's keys: types, choices and ranges, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
import unicodedata
from typing import Any

from emopeft.errors import UserError, unknown

LONGEST = 10_000  # characters of a text


@dataclasses.dataclass(frozen=True)
class Range:
    """Which numbers a key takes: from ``low`` to ``high``, both included unless open."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def check(self, dotted: str, value: float) -> None:
        """Raises UserError naming the key."""
        if value < self.low or (self.open_low and value == self.low):
            limit = f"{'greater than' if self.open_low else 'at least'} {self.low:,}"
        elif value > self.high or (self.open_high and value == self.high):
            limit = f"{'below' if self.open_high else 'at most'} {self.high:,}"
        else:
            return
        raise UserError(f"{dotted} = {value} must be {limit}")


def positive(high: float) -> Range:
    """Above zero, up to ``high``."""
    return Range(0, high, open_low=True)


SHARE = Range(0, 1, open_high=True)


def key(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    range: Range | None = None,
    numbered: str = "",
) -> typing.Any:
    """A field of a recipe with its documentation, choices and range.

    Args:
        numbered: what a whole number stands for that a text may be beside the choices.
    """
    metadata = {"help": help, "choices": choices, "range": range, "numbered": numbered}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def checked(dotted: str, value: Any, field_type: Any, field: dataclasses.Field[Any]) -> Any:
    """``value`` as the type a key wants, among its choices and in its range.

    YAML reads ``1e-3`` as text, which counts as a number.

    Raises:
        UserError: one sentence that names the key.
    """
    value = _typed(dotted, value, field_type)
    if isinstance(value, str) and not value.strip() and field.default != "":
        raise UserError(f"{dotted} is empty; give a value, or leave it out")
    choices, limits = field.metadata.get("choices"), field.metadata.get("range")
    if choices and value not in choices:
        numbered = field.metadata.get("numbered")
        if numbered and re.fullmatch("[0-9]{1,4}", value):
            return str(int(value))
        more = [f"0, 1, ... ({numbered})"] if numbered else []
        raise unknown(f"value of {dotted}", str(value), [*choices, *more])
    if limits is not None:
        for number in value if isinstance(value, list) else [value]:
            if number is not None:
                limits.check(dotted, number)
    return value


def _typed(dotted: str, value: Any, field_type: Any) -> Any:
    if isinstance(field_type, types.UnionType):
        allowed = typing.get_args(field_type)
        if value is None and type(None) in allowed:
            return None
        if isinstance(value, dict) and dict[str, str] in allowed:
            return _typed(dotted, value, dict[str, str])
        return _typed(dotted, value, allowed[0])
    origin = typing.get_origin(field_type)
    if origin is list:
        items = value if isinstance(value, list) else [value]
        if len(items) > 1000:
            raise UserError(f"{dotted} holds {len(items)} values; take at most 1000")
        return [_typed(dotted, item, typing.get_args(field_type)[0]) for item in items]
    if origin is dict:
        inner = typing.get_args(field_type)[1]
        if isinstance(value, dict):
            named = {_name(dotted, name): item for name, item in value.items()}
            if inner is Any:
                return {name: _plain(f"{dotted}.{name}", item) for name, item in named.items()}
            return {name: _typed(f"{dotted}.{name}", item, inner) for name, item in named.items()}
    elif field_type is bool:
        if isinstance(value, bool):
            return value
    elif field_type is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return _whole(dotted, value)
    elif field_type is float:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return _number(dotted, value)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return text(
            dotted,
            value
            if isinstance(value, str)
            else str(_whole(dotted, value) if isinstance(value, int) else value),
        )
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise UserError(f"{dotted} = {_shown(value)} must be {names.get(field_type, 'a list of keys')}")


def _whole(dotted: str, value: int) -> int:
    if abs(value) > 2**64:  # the key's range says the rest, where it has one
        raise UserError(f"{dotted} = {_shown(value)} must be a whole number below 2^64")
    return value


def _number(dotted: str, value: int | float | str) -> float:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise UserError(f"{dotted} = {_shown(value)} must be a number") from None
    if not math.isfinite(number):
        raise UserError(f"{dotted} = {_shown(value)} must be a finite number")
    return number


def text(dotted: str, value: str) -> str:
    """A text that can stand in a file and on a terminal; raises UserError naming the key."""
    if len(value) > LONGEST:
        raise UserError(f"{dotted} is longer than {LONGEST:,} characters; shorten it")
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            raise UserError(
                f"{dotted} = {_shown(value)} holds {ascii(character)}, which is a control "
                "character or not UTF-8; leave it out"
            )
    return value


def _name(dotted: str, name: Any) -> str:
    if not isinstance(name, (str, int, float)):
        raise UserError(f"{dotted} holds the key {_shown(name)}; keys must be text")
    return text(f"a key of {dotted}", str(_whole(dotted, name) if isinstance(name, int) else name))


def _plain(dotted: str, value: Any) -> Any:
    """Nested plain data, every number finite, every text printable."""
    if isinstance(value, dict):
        named = {_name(dotted, name): item for name, item in value.items()}
        return {name: _plain(f"{dotted}.{name}", item) for name, item in named.items()}
    if isinstance(value, list):
        return [_plain(dotted, item) for item in value]
    if isinstance(value, str):
        return text(dotted, value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return _whole(dotted, value)
    return _number(dotted, value)


def _shown(value: Any) -> str:
    """A value as an error shows it: short, printable, whatever it is."""
    try:
        shown = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return shown if len(shown) <= 60 else shown[:57] + "..."
