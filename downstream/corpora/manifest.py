"""A corpus of your own: one table that lists its clips.

``--corpus manifest --data FILE`` where FILE is a CSV with a header (``.csv``; split by tabs in a
``.tsv``) or JSON lines (``.jsonl``), in UTF-8::

    id,path,speaker,label,session,sex,style,valence,arousal,dominance,split
    anna_001,audio/anna_001.wav,anna,angry,1,female,natural,1.5,4.5,4,train
    ben_001,audio/ben_001.flac,ben,neutral,2,male,natural,3,2.5,3,test

The same as JSON lines, one object per line::

    {"id": "anna_001", "path": "audio/anna_001.wav", "speaker": "anna", "label": "angry"}
    {"id": "ben_001", "path": "audio/ben_001.flac", "speaker": "ben", "label": "neutral"}

========= ======== ============================================================================
column    required value
========= ======== ============================================================================
id        yes      any text, once in the table
path      yes      a .wav or .flac file; a relative path counts from the table's folder
speaker   yes      any text: folds keep a speaker on one side. Left empty: not known, which only
                   protocols with ``unknown_speakers`` take
label     yes      the emotion, any text ("happy"); the same word for the same class
session   no       any text: the unit of leave-one-session-out
sex       no       female or male (f and m will do)
style     no       acted or natural
valence   no       a number, high meaning pleasant, on any scale
arousal   no       a number, high meaning excited
dominance no       a number, high meaning dominant
split     no       the side of a split of your own, for example train, dev or test
========= ======== ============================================================================

Values may be left empty (or be null) in columns that are not required; columns may stand in any
order; empty lines are passed over. Every mistake is listed with its line and column. A row of the
JSON lines is `ManifestRow`, which gives it as a JSON Schema.
"""

from __future__ import annotations

import csv
import json
import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from emopeft.downstream.corpora.audio import AUDIO_SUFFIXES, is_audio
from emopeft.downstream.corpora.base import Corpus, TreeError, Utterance, printable, register
from emopeft.errors import UserError, unknown
from emopeft.files import read_text
from emopeft.validation import Strict

LARGEST_FILE = 256 << 20  # bytes: over a million rows
LONGEST = 1000  # characters of a cell
MOST_PROBLEMS = 1000  # after which a table is not read on


def _cell(raw: Any) -> str | None:
    """A cell as text, None when it is empty; ValueError with a sentence when it is neither.

    Line breaks and other white space within it become spaces: names stand in tables of one line.
    """
    text = _text_of(raw)
    if text is None:
        return None
    text = "".join(" " if c.isspace() else c for c in text)
    if not text.isprintable():  # NUL, ESC, halves of characters
        raise ValueError(f"{text!r:.60} holds a character that cannot be shown")
    return text


def _text_of(raw: Any) -> str | None:
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(f"{raw!r:.60} is neither text nor a number")
    text = str(raw).strip()
    if len(text) > LONGEST:
        raise ValueError(f"{text[:20]!r}… has {len(text)} characters, more than {LONGEST}")
    return text


def _required(raw: Any) -> str:
    text = _cell(raw)
    if text is None:
        raise ValueError("a value is required")
    return text


def _audio_path(raw: Any) -> str:
    text = _text_of(raw)
    if text is None:
        raise ValueError("a value is required")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError(f"{text!r:.60} holds a character that no file name should have")
    if not is_audio(Path(text)):
        raise ValueError(f"'{text}' does not end in {' or '.join(AUDIO_SUFFIXES)}")
    return text


def _number(raw: Any) -> float | None:
    text = _cell(raw)
    try:
        number = None if text is None else float(text)
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ValueError(f"'{text}' is not a number")
    return number


def _choice(*names: str, short: bool = False) -> BeforeValidator:
    """One of ``names``, in any case, or (``short``) its first letter."""
    known = {name: name for name in names} | {name[0]: name for name in names if short}

    def check(raw: Any) -> str | None:
        text = _cell(raw)
        if text is not None and text.lower() not in known:
            raise ValueError(f"'{text}' is not {' or '.join(names)}")
        return None if text is None else known[text.lower()]

    return BeforeValidator(check)


Required = Annotated[str, BeforeValidator(_required, json_schema_input_type=str | float)]
Cell = Annotated[str | None, BeforeValidator(_cell, json_schema_input_type=str | float | None)]
Rating = Annotated[
    float | None, BeforeValidator(_number, json_schema_input_type=str | float | None)
]


class ManifestRow(Strict):
    """One row, as a line of a .jsonl has it."""

    id: Required
    path: Annotated[str, BeforeValidator(_audio_path)]
    speaker: Cell = None
    label: Required
    session: Cell = None
    sex: Annotated[str | None, _choice("female", "male", short=True)] = None
    style: Annotated[str | None, _choice("acted", "natural")] = None
    valence: Rating = None
    arousal: Rating = None
    dominance: Rating = None
    split: Cell = None


REQUIRED = ("id", "path", "speaker", "label")  # in the header
RATINGS = ("valence", "arousal", "dominance")
COLUMNS = tuple(ManifestRow.model_fields)


def _text(file: Path) -> list[str]:
    if file.is_dir():
        raise UserError(f"{file} is a folder; --data must name the manifest file itself")
    text = read_text(file, LARGEST_FILE).removeprefix("\ufeff")
    # Not splitlines(): that would also split at characters that may stand in a value.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _check_columns(file: Path, line: int, columns: list[str], missing: bool) -> None:
    for column in columns:
        if column not in COLUMNS:
            error = unknown("column", column, COLUMNS)
            raise UserError(f"{file}, line {line}: {error}")
    if len(set(columns)) < len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        raise UserError(f"{file}, line {line}: the column '{twice}' stands twice")
    absent = [c for c in REQUIRED if c not in columns]
    if missing and absent:
        raise UserError(
            f"{file}, line {line}: the column{'s' * (len(absent) > 1)} {', '.join(absent)} "
            f"{'are' if len(absent) > 1 else 'is'} missing; the header must name "
            f"{', '.join(REQUIRED)}"
        )


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and row, or what is wrong with it."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.reader((line + "\n" for line in _text(file)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                if header is None:
                    header = [field.strip() for field in fields]
                    _check_columns(file, line, header, missing=True)
                elif len(fields) != len(header):
                    yield line, f"{len(fields)} values under a header of {len(header)} columns"
                else:
                    yield line, dict(zip(header, fields, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}, line {line}: not valid CSV ({error})") from error
    if header is None:
        raise UserError(f"{file} is empty; its first line must name {', '.join(REQUIRED)}")


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and row, or what is wrong with it."""
    for line, text in enumerate(_text(file), start=1):
        if not text.strip():
            continue
        try:
            pairs = json.loads(text, object_pairs_hook=lambda pairs: tuple(pairs))
        except (ValueError, RecursionError) as error:
            yield line, f"not valid JSON ({error})"
            continue
        if not isinstance(pairs, tuple):
            yield line, "not a JSON object"
            continue
        _check_columns(file, line, [key for key, _ in pairs], missing=False)
        yield line, dict(pairs)


def _problem(error: Any) -> str:
    """What is wrong with one cell."""
    if error["type"] == "missing":
        return f"column {error['loc'][0]}: a value is required"
    return f"column {error['loc'][0]}: {error['msg'].partition(', ')[2]}"


def read(file: Path) -> list[Utterance]:
    """The utterances of a manifest, in its order.

    Raises:
        UserError: a header or file that cannot be used at all.
        TreeError: listing every wrong row, with line and column.
    """
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl") and not file.is_dir():
        raise UserError(f"{file} is not a manifest: its name must end in .csv, .tsv or .jsonl")
    rows = _json_rows(file) if suffix == ".jsonl" else _csv_rows(file)
    utterances: list[Utterance] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        if len(problems) >= MOST_PROBLEMS:
            problems.append(f"line {line}: not read on after so many problems")
            break
        if isinstance(row, str):
            problems.append(f"line {line}: {row}")
            continue
        values: dict[str, Any] = {}
        try:
            values = ManifestRow.model_validate(row).model_dump()
        except ValidationError as error:
            problems += [f"line {line}, {_problem(one)}" for one in error.errors()]
        name = str(row.get("id") or "").strip()
        if name in lines:
            problems.append(
                f"line {line}, column id: '{printable(name)}' already stands in line {lines[name]}"
            )
            continue
        lines[name] = line
        if not values:
            continue
        path = file.parent / values.pop("path")
        speaker = values.pop("speaker") or ""
        emotion = values.pop("label")
        rated = {name: values.pop(name) for name in RATINGS}
        ratings = {name: value for name, value in rated.items() if value is not None}
        utterances.append(
            Utterance(path=path, speaker=speaker, emotion=emotion, ratings=ratings, **values)
        )
    if problems:
        raise TreeError(file, problems, utterances)
    return utterances


register(
    Corpus(
        name="manifest",
        title="a manifest of your own",
        licence="yours",
        citation="",
        read=read,
        emotions=(),
        protocol="manifest-speakers",
        folder="a CSV or JSONL file with the columns id, path, speaker, label",
        language="any",
    )
)
