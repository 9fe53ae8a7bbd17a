"""The rows of a plan: what stands in a fold's examples.csv, and the hashes made of it alone.

A reader of the file, with neither corpus nor protocol at hand, can compute a fold's hash again and
audit it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emopeft.errors import UserError
from emopeft.files import read_text, write_text

PARTS = ("train", "dev", "test")
UNSCORED = "unscored"  # the part of a test without targets; what it shares is shared by a test
FIELDS = ("part", "set", "id", "speaker", "view", "weight", "audio")
TARGET = "target_"  # before the names of the task's targets, in the header
LARGEST = 512 << 20  # bytes of examples.csv: some millions of rows
LONGEST = 1000  # characters of a cell
SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
DIGEST = re.compile(r"[0-9a-f]{64}")


class PlanRow(NamedTuple):
    """One example in one set of one fold.

    Attributes:
        part: "train", "dev", "test" or "unscored". set: the stage's name, or that of the test.
        id: corpus/id. speaker: corpus/speaker, "" where unknown.
        view: "clean", or the transformation that is applied. weight: in its stage's loss.
        audio: SHA-256 of the decoded audio ("" where it was not read).
        target: the task's, NaN where something is not rated and throughout an unscored test.
    """

    part: str
    set: str
    id: str
    speaker: str
    view: str
    weight: float
    audio: str
    target: tuple[float, ...]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, sort_keys=True).encode("ascii") + b"\n"


def fold_hash_of(heads: Sequence[Mapping[str, Any]], rows: Iterable[PlanRow]) -> str:
    """SHA-256 (64 hex digits) of a fold: its stages' heads, and its rows in order but for audio.

    Args:
        heads: per stage name, method, freeze and keys, as `Stage.head` gives them.
    """
    sha = hashlib.sha256(_json([dict(head) for head in heads]))
    for row in rows:
        target = [None if math.isnan(x) else float(x) for x in row.target]
        sha.update(_json([row.part, row.set, row.id, row.speaker, row.view, row.weight, target]))
    return sha.hexdigest()


def fold_audio_hash_of(rows: Iterable[PlanRow]) -> str:
    """SHA-256 (64 hex digits) over (part, set, id, view, audio) of a fold's rows in order."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(_json([row.part, row.set, row.id, row.view, row.audio]))
    return sha.hexdigest()


def write_rows(path: Path, rows: Iterable[PlanRow], target_names: Sequence[str]) -> None:
    """Write examples.csv; numbers with every digit, NaN as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIELDS, *(TARGET + name for name in target_names)])
    for row in rows:
        writer.writerow([*(str(x) for x in row[:-1]), *(_cell(x) for x in row.target)])
    write_text(path, text.getvalue())


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def read_rows(path: Path) -> list[PlanRow]:
    """Read examples.csv as untrusted data.

    Raises:
        UserError: naming the file and the line.
    """
    text = read_text(path, LARGEST)
    rows: list[PlanRow] = []
    line = 1
    try:
        # strict: a stray quote is an error, not a cell of a million characters.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        targets = header[len(FIELDS) :]
        named = all(t.startswith(TARGET) for t in targets) and len(set(targets)) == len(targets)
        if tuple(header[: len(FIELDS)]) != FIELDS or not named or not targets:
            raise ValueError(f"the header must be {','.join(FIELDS)} and targets")
        for cells in reader:
            line = reader.line_num
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} values under a header of {len(header)}")
            rows.append(_row(cells))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}, line {line}: {error}; restore the file or run again") from error
    return rows


def _row(cells: Sequence[str]) -> PlanRow:
    part, name, uid, speaker, view, weight, audio, *target = cells
    if part not in (*PARTS, UNSCORED):
        raise ValueError(f"the part {part[:60]!r} is not train, dev, test or unscored")
    if not SET_NAME.fullmatch(name):
        raise ValueError(f"the set {name[:60]!r} is no name")
    for what, cell in (("id", uid), ("speaker", speaker), ("view", view)):
        if len(cell) > LONGEST or not cell.isprintable() or not (cell or what == "speaker"):
            raise ValueError(f"the {what} {cell[:60]!r} is no name")
    if audio and not DIGEST.fullmatch(audio):
        raise ValueError(f"the audio {audio[:60]!r} is not a SHA-256")
    number = _number("weight", weight)
    if not 0 <= number < math.inf:
        raise ValueError(f"the weight {weight[:60]!r} is not a number from 0")
    values = tuple(math.nan if cell == "" else _number("target", cell) for cell in target)
    return PlanRow(part, name, uid, speaker, view, number, audio, values)


def _number(what: str, cell: str) -> float:
    try:
        value = float(cell) if len(cell) < 40 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"the {what} {cell[:60]!r} is not a number")
    return value
