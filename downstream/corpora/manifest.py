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
speaker   yes      any text: folds keep a speaker on one side
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
order; empty lines are passed over. Every mistake is listed with its line and column.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.audio import AUDIO_SUFFIXES, is_audio
from emopeft.downstream.corpora.base import Corpus, TreeError, Utterance, register
from emopeft.errors import UserError, unknown

REQUIRED = ("id", "path", "speaker", "label")
RATINGS = ("valence", "arousal", "dominance")
COLUMNS = (*REQUIRED, "session", "sex", "style", *RATINGS, "split")
CHOICES = {
    "sex": {"female": "female", "f": "female", "male": "male", "m": "male"},
    "style": {"acted": "acted", "natural": "natural"},
}


def _text(file: Path) -> list[str]:
    if file.is_dir():
        raise UserError(f"{file} is a folder; --data must name the manifest file itself")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
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
        except ValueError as error:
            yield line, f"not valid JSON ({error})"
            continue
        if not isinstance(pairs, tuple):
            yield line, "not a JSON object"
            continue
        _check_columns(file, line, [key for key, _ in pairs], missing=False)
        yield line, dict(pairs)


def _value(column: str, raw: Any) -> str | float | None:
    """A cell's value, None when empty; ValueError with a sentence when it cannot be one."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        if column in REQUIRED:
            raise ValueError("a value is required")
        return None
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise ValueError(f"{raw!r} is neither text nor a number")
    text = str(raw).strip()
    if column in RATINGS:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"'{text}' is not a number")
        return number
    if column in CHOICES:
        known = CHOICES[column]
        if text.lower() not in known:
            raise ValueError(f"'{text}' is not {' or '.join(dict.fromkeys(known.values()))}")
        return known[text.lower()]
    if column == "path" and not is_audio(Path(text)):
        raise ValueError(f"'{text}' does not end in {' or '.join(AUDIO_SUFFIXES)}")
    return text


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
        if isinstance(row, str):
            problems.append(f"line {line}: {row}")
            continue
        values: dict[str, Any] = {}
        good = True
        for column in COLUMNS:
            try:
                values[column] = _value(column, row.get(column))
            except ValueError as error:
                problems.append(f"line {line}, column {column}: {error}")
                good = False
        name = values.get("id")
        if name in lines:
            problems.append(
                f"line {line}, column id: '{name}' already stands in line {lines[name]}"
            )
            good = False
        elif name is not None:
            lines[name] = line
        if good:
            path = file.parent / values.pop("path")
            utterances.append(Utterance(path=path, emotion=values.pop("label"), **values))
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
