"""A corpus of your own: one table that lists its clips.

``--corpus manifest --data FILE`` where FILE is a CSV with a header (``.csv``; split by tabs in a
``.tsv``) or JSON lines (``.jsonl``), in UTF-8::

    id,path,speaker,label,session,sex,style,valence,arousal,dominance,split
    anna_001,audio/anna_001.wav,anna,angry,1,female,natural,1.5,4.5,4,train
    ben_001,audio/ben_001.flac,ben,neutral,2,male,natural,3,2.5,3,test

The same as JSON lines, one object per line::

    {"id": "anna_001", "path": "audio/anna_001.wav", "speaker": "anna", "label": "angry"}
    {"id": "ben_001", "path": "audio/ben_001.flac", "speaker": "ben", "label": "neutral"}

=========== ======== ==========================================================================
column      required value
=========== ======== ==========================================================================
id          yes      any text, once in the table
path        yes      a .wav or .flac file; a relative path counts from the table's folder
speaker     yes      any text: folds keep a speaker on one side. Left empty: not known, which only
                     protocols with ``unknown_speakers`` take
label       no       the emotion, any text ("happy"); the same word for the same class. Empty: not
                     known, or the raters found no consensus
session     no       any text: the unit of leave-one-session-out
sex         no       female or male (f and m will do)
style       no       acted or natural
valence     no       a number, high meaning pleasant, on any scale
arousal     no       a number, high meaning excited
dominance   no       a number, high meaning dominant
rating:NAME no       a number: any other rating, for example rating:intensity
label:NAME  no       how many raters chose NAME ("label:happy"), or the share of them: whole
                     numbers, or shares of 1 in each row (0.6, 0.4). Empty: none
trait:NAME  no       any text that is known of speaker or recording, for example trait:age
split       no       the side of a split of your own: train, dev or test, in any case. Several tests
                     have names: test1, Test2, test-phone; each is a test of its own, called as
                     it is here in small letters
=========== ======== ==========================================================================

There must be a label, a rating or votes; a row without any takes no part, unless it stands in a
test that the protocol has unscored. The nominal ends of a rating's scale stand in no column: they
are the option ``scale``, for example ``-o 'corpus.options={scale: {valence: [1, 5]}}'``. Ratings
beyond it are kept as they are.

Values may be left empty (or be null) in columns that are not required; columns may stand in any
order; empty lines are passed over. Every mistake is listed with its line and column. A row of the
JSON lines is `ManifestRow`, which gives it as a JSON Schema.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance, printable, register
from emopeft.downstream.corpora.manifest_row import RATINGS, column_problem
from emopeft.downstream.corpora.manifest_rows import COLUMNS, KNOWN, is_named, utterances_of
from emopeft.errors import UserError, unknown
from emopeft.files import read_text

LARGEST_FILE = 256 << 20  # bytes: over a million rows

REQUIRED = ("id", "path", "speaker")  # in the header

logger = logging.getLogger(__name__)


def _text(file: Path) -> list[str]:
    if file.is_dir():
        raise UserError(f"{file} is a folder; --data must name the manifest file itself")
    text = read_text(file, LARGEST_FILE).removeprefix("\ufeff")
    # Not splitlines(): that would also split at characters that may stand in a value.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _check_columns(file: Path, line: int, columns: list[str], missing: bool) -> None:
    for column in columns:
        if problem := column_problem(column):
            raise UserError(f"{file}, line {line}: the column {problem}")
        if column not in COLUMNS and not is_named(column):
            error = unknown("column", column, KNOWN)
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
    if missing and not any(c in ("label", *RATINGS) or is_named(c) for c in columns):
        raise UserError(
            f"{file}, line {line}: there is nothing to learn; the header must name label, a rating "
            "(valence, arousal, dominance, rating:NAME) or votes (label:NAME)"
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


def read(file: Path, scale: Mapping[str, Any] | None = None) -> list[Utterance]:
    """The utterances of a manifest, in its order.

    Raises:
        UserError: a header or file that cannot be used at all.
        TreeError: listing every wrong row, with line and column.
    """
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl") and not file.is_dir():
        raise UserError(f"{file} is not a manifest: its name must end in .csv, .tsv or .jsonl")
    scales = _scales(scale)
    rows = _json_rows(file) if suffix == ".jsonl" else _csv_rows(file)
    utterances = utterances_of(file, ((f"line {line}", row) for line, row in rows), file.parent)
    _check_use(file, utterances, scales)
    return utterances


def _check_use(
    file: Path, utterances: Sequence[Utterance], scales: Mapping[str, tuple[float, float]]
) -> None:
    """Say once what takes no part; a scale must be that of a rating."""
    idle = [u.id for u in utterances if not (u.emotion or u.ratings or u.votes)]
    if idle:
        logger.warning(
            "%d rows of %s have neither a label nor a rating nor a vote and take no part other "
            "than in unscored tests, for example %s", len(idle), file, printable(idle[0]),
        )  # fmt: skip
    rated = {name for u in utterances for name in u.ratings}
    if scales and not rated:
        raise UserError(f"the option 'scale' is for ratings, and {file} has none; leave it out")
    for name in scales:
        if name not in rated:
            raise UserError(f"{file}: {unknown('rating in the option scale', name, rated)}")


def _scales(scale: Any) -> dict[str, tuple[float, float]]:
    """The option ``scale``, checked."""
    way_out = "give it as -o 'corpus.options={scale: {valence: [1, 5]}}'"
    if not isinstance(scale, Mapping | None):
        raise UserError(f"the option 'scale' must be a lowest and highest per rating; {way_out}")
    for name, ends in (scale or {}).items():
        good = isinstance(ends, Sequence) and not isinstance(ends, str) and len(ends) == 2
        if not good or not all(_finite(end) for end in ends) or ends[0] >= ends[1]:
            raise UserError(
                f"the scale of '{name}' must be two numbers, the lowest first, not {ends!r:.60}; "
                f"{way_out}"
            )
    return {str(name): (float(low), float(high)) for name, (low, high) in (scale or {}).items()}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def adjust(scale: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The nominal scales of the ratings, which the table itself does not say."""
    return {"scales": _scales(scale)}


register(
    Corpus(
        name="manifest",
        title="a manifest of your own",
        licence="yours",
        citation="",
        read=read,
        emotions=(),
        protocol="manifest-speakers",
        folder="a CSV or JSONL file with the columns id, path, speaker and label (or ratings)",
        language="any",
        options={"scale": "nominal lowest and highest of each rating: {valence: [1, 5]}"},
        adjust=adjust,
    )
)
