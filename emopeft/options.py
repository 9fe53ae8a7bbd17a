"""Options in a name, as text (``r=16``, ``targets=q+v``, ``attention=true``) or as JSON."""

from __future__ import annotations

import re
import types
import typing
from typing import Any

from emopeft.errors import UserError, unknown

# Beyond these a number is a mistake, or somebody's attempt at our memory; seeds go to 2^63.
LARGEST_WHOLE, LARGEST = 2**63 - 1, 1e9
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    type(None): "none",
    str: "text",
}


def converted(where: str, text: str, option_type: Any) -> Any:
    """Text to the type of an option.

    Args:
        where: method and option, for the message.
        option_type: int, float, bool, str, None, a Literal, a tuple of str, or a union of these.

    Raises:
        UserError: it is none of what is wanted (with the nearest values where there is a choice).
    """
    kinds = alternatives(option_type)
    for kind in kinds:
        try:
            return _as(kind, text)
        except (KeyError, ValueError):
            continue
    choices = [str(c) for k in kinds if _is_literal(k) for c in typing.get_args(k)]
    if choices:
        raise unknown(f"value of {where}", shortened(text), choices)
    raise UserError(f"{where}={shortened(text)} must be {_kinds(kinds)}")


def checked(where: str, value: Any, option_type: Any) -> Any:
    """A value that a file holds (JSON) as the type of an option; a tuple is written ``q+v``.

    Raises:
        UserError: it is not what is wanted.
    """
    kinds = alternatives(option_type)
    for kind in kinds:
        try:
            if kind is type(None) and value is None:
                return None
            if kind in (bool, int) and type(value) is kind:
                return _bounded(value)
            if kind is float and type(value) in (int, float):
                return _bounded(float(value))
            if isinstance(value, str) and kind not in (bool, int, float, type(None)):
                return _as(kind, value)
            if _is_literal(kind) and any(
                type(value) is type(c) and value == c for c in typing.get_args(kind)
            ):
                return value
        except (ValueError, OverflowError):
            continue
    raise UserError(f"{where}={shortened(value)} must be {_kinds(kinds)}")


def shortened(value: Any) -> str:
    """For messages: a file or command line may hold anything."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # an int with more digits than Python writes
        text = "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."


def _kinds(kinds: list[Any]) -> str:
    names = [_NAMES.get(k) or ("one of " + ", ".join(map(str, typing.get_args(k))) if _is_literal(k)
             else "names joined by +") for k in kinds]  # fmt: skip
    return " or ".join(names)


def alternatives(option_type: Any) -> list[Any]:
    """The members of a union (text last, for everything is text), or the type itself."""
    if isinstance(option_type, types.UnionType) or typing.get_origin(option_type) is typing.Union:
        return sorted(typing.get_args(option_type), key=lambda kind: kind is str)
    return [option_type]


def simple(option_type: Any) -> bool:
    """Whether an option of this type can be written in a method's name."""
    return all(kind in _NAMES or _is_literal(kind) for kind in alternatives(option_type))


def written(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, tuple):
        return "+".join(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Literal


def _as(kind: Any, text: str) -> Any:
    if kind is type(None):
        return {"none": None, "null": None}[text.lower()]
    if kind is bool:
        return _TRUTH[text.lower()]
    if kind in (int, float):
        return _bounded(kind(text))
    if typing.get_origin(kind) is tuple:
        return tuple(x.strip() for x in text.split("+"))
    if _is_literal(kind):
        for choice in typing.get_args(kind):
            # peft writes some choices as patterns: pissa_niter_[number of iters].
            pattern = re.sub(r"\\\[.*?\\\]", r"\\d+", re.escape(str(choice)))
            if re.fullmatch(pattern, text):
                return choice if str(choice) == text else text
        raise ValueError(text)
    return text


def _bounded(value: Any) -> Any:
    """A number as it is; raises ValueError when it is not finite or absurdly large."""
    if not abs(value) <= (LARGEST if isinstance(value, float) else LARGEST_WHOLE):  # NaN fails, too
        raise ValueError(value)
    return value
