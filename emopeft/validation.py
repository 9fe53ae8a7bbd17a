"""Data from files against pydantic models: the model's instance, or one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from emopeft.errors import UserError, nearest

RESTORE = "correct it, or restore the file"
Model = TypeVar("Model", bound=pydantic.BaseModel)


class Strict(pydantic.BaseModel):
    """Base of what stands in files: no other keys, no conversions, no NaN, not to be changed."""

    model_config = pydantic.ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False
    )


def validated(path_or_name: object, model: type[Model], data: Any, way_out: str = RESTORE) -> Model:
    """The instance of ``model`` that ``data`` describes.

    Args:
        path_or_name: what the data came from, for the message.
        data: as read from JSON or YAML. Lists do for tuples, text for dates, as in JSON.

    Raises:
        UserError: naming the file and the first key that is wrong.
    """
    try:
        text = json.dumps(data, allow_nan=False)
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        problem = _sentence(model, {**first, "loc": _keys_in(data, first["loc"], first["type"])})
    except RecursionError:
        problem = "is nested too deeply"
    except (TypeError, ValueError) as error:  # not JSON
        problem = _not_json(data) or f"holds what JSON cannot say ({error})"
    raise UserError(f"{path_or_name}: {problem}; {way_out}")


def _sentence(model: type[pydantic.BaseModel], error: Mapping[str, Any]) -> str:
    """``key 'a.b' must be a valid integer, not 'x'``."""
    where, kind, message = _path(error["loc"]), error["type"], str(error["msg"])
    if kind == "missing":
        return f"key '{where}' is missing"
    if kind == "extra_forbidden":
        near = nearest(str(error["loc"][-1]), _keys(model, error["loc"][:-1]))
        return f"unknown key '{where}'" + (f" (did you mean {', '.join(near)}?)" if near else "")
    if kind in ("value_error", "assertion_error"):
        message = message.partition(", ")[2]  # ours, behind "Value error"
        return f"key '{where}': {message}" if where else message
    what, should, rule = message.partition(" should ")
    message = f"must {rule}" if should else f"is wrong: {message}"
    subject = f"key '{where}'" if where else "the whole"
    value = error["input"]
    if isinstance(value, dict | list):
        return f"{subject} {message}"
    return f"{subject} {message}, not {_plain(repr(value))}"


def _keys(model: type[pydantic.BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys that a model has at the end of a path, as far as that is plain."""
    for part in path:
        field = model.model_fields.get(str(part))
        kind = None if field is None else field.annotation
        if not (isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)):
            return []
        model = kind
    return list(model.model_fields)


def _keys_in(data: Any, parts: Sequence[int | str], kind: str) -> list[int | str]:
    """The way to a value as the file has it: without the names of a union's branches."""
    path: list[int | str] = []
    for place, part in enumerate(parts, start=1):
        if isinstance(data, Mapping):
            known = part in data or (kind == "missing" and place == len(parts))
            value = data.get(part)
        else:
            known = isinstance(data, list | tuple) and isinstance(part, int)
            value = data[part] if known and part < len(data) else None  # type: ignore
        if known:
            path.append(part)
            data = value
    return path


def _path(parts: Sequence[int | str]) -> str:
    return ".".join(_plain(str(part)) for part in parts)


def _plain(text: str) -> str:
    """At most 60 characters that a terminal shows as they are."""
    text = text if len(text) <= 60 else text[:57] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _not_json(data: Any) -> str | None:
    """The first number that is not finite, with its path."""
    todo: list[tuple[tuple[int | str, ...], Any]] = [((), data)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return f"key '{_path(path)}' must be a finite number, not {value}"
        if len(path) < 100 and isinstance(value, Mapping):
            todo += [((*path, str(key)), item) for key, item in value.items()]
        elif len(path) < 100 and isinstance(value, list | tuple):
            todo += [((*path, number), item) for number, item in enumerate(value)]
    return None
