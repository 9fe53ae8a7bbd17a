"""Reading what others wrote: regular files of a bounded size, and the one reader of JSON."""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from emopeft.errors import UserError
from emopeft.units import size

MAX_JSON = 64 << 20
MAX_DEPTH = 100  # levels of nested JSON
MAX_DIGITS = 400  # of a number in JSON


def open_regular(path: Path, limit: int | None = None) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        UserError: there is none (its cause is the OSError), or it is a folder, a pipe or a device,
            which might never end, or it is larger than ``limit`` bytes.
    """
    path = Path(path)
    try:
        _refuse_special(path, path.stat())  # before opening, which may do something to a device
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        # Should it have become a pipe since: without waiting for somebody to write into it.
        file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(file)
            _refuse_special(path, status)
            if limit is not None and status.st_size > limit:
                raise UserError(
                    f"{path} has {size(status.st_size)}, more than the {size(limit)} that such a "
                    "file may have; is it the right one?"
                )
            return os.fdopen(file, "rb")
        except BaseException:
            os.close(file)
            raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # NUL, or half a character, in the name
        raise UserError(f"{str(path)!r:.200} cannot be the name of a file ({error})") from error


def _refuse_special(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise UserError(f"{path} is {kind}, not a file; give a regular file")


def read_bytes(path: Path, limit: int = MAX_JSON) -> bytes:
    """The bytes of a regular file of at most ``limit``; raises UserError as `open_regular`."""
    with open_regular(path, limit) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > limit:  # it grew, or has a size that the file system does not tell
        raise UserError(f"{path} has more than the {size(limit)} that such a file may have")
    return data


def read_text(path: Path, limit: int = MAX_JSON) -> str:
    """The text of a regular UTF-8 file, its line ends as they are; raises UserError."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8"
        ) from error


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """Read JSON that has one meaning and can be handled.

    Raises:
        UserError: naming the file when it is missing or not JSON, or has a key twice, NaN or
            infinity, a number of over 400 digits, over 100 levels, or half a character.
    """
    text = read_text(path, limit)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        _check_values(value)
        return value
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; restore it or run again") from error
    except ValueError as error:  # covers JSONDecodeError
        raise UserError(
            f"{path} is not valid JSON ({error}); restore it or delete it and run again"
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.60} stands twice")
    return mapping


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits) if len(digits) <= MAX_DIGITS else math.inf
    if math.isinf(value):
        raise ValueError(f"the number {digits[:20]} is too large or too long")
    return value


def _check_values(value: Any) -> None:
    """Depth, and halves of surrogate pairs, which no file can be written with."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = below


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"half a character in {text!r:.60}") from None
