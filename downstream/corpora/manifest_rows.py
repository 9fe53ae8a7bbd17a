"""The manifest's columns, wherever rows come from: checked, and turned into utterances.

A format of one's own data (a database, a data set, a folder) gives rows with the manifest's
columns, see `manifest`. What its own columns are called is the option ``columns``, from the
manifest's to its own: ``-o 'corpus.options={columns: {label: emotion, "trait:age": years}}'``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from emopeft.downstream.corpora.base import TreeError, Utterance, printable
from emopeft.downstream.corpora.manifest_row import (
    NAMED,
    RATINGS,
    ManifestRow,
    column_of,
    column_problem,
)
from emopeft.errors import UserError, unknown

MOST_PROBLEMS = 1000  # after which a table is not read on
MOST_NAMED = 50  # different columns of a table that are called rating:, label: or trait:, each
GATHERED = tuple(NAMED.values())
COLUMNS = (*(name for name in ManifestRow.model_fields if name not in GATHERED), *RATINGS)
KNOWN = (*COLUMNS, *(f"{kind}:NAME" for kind in NAMED))
# What others call a column that goes by another name here; the first that is there.
USUAL = {"label": ("emotion",), "sex": ("gender",), "speaker": ("speaker_id", "spk")}
COLUMNS_HELP = "what its columns are called: {label: emotion, speaker: spk, 'trait:age': age}"


def is_named(column: str) -> bool:
    """Whether it is a column ``rating:NAME``, ``label:NAME`` or ``trait:NAME``."""
    kind, colon, _ = column.partition(":")
    return bool(colon) and kind in NAMED


def is_learned(column: str) -> bool:
    """Whether a task may have its targets from the column."""
    return column in ("label", *RATINGS) or column.startswith(("rating:", "label:"))


def utterances_of(
    where: Path, rows: Iterable[tuple[str, Mapping[str, Any] | str]], folder: Path
) -> list[Utterance]:
    """The utterances of rows, in their order.

    Args:
        rows: the place of each ("line 3") and its cells by the manifest's columns, or what is wrong
            with it.
        folder: what relative paths count from.

    Raises:
        TreeError: listing every wrong row, with place and column.
    """
    utterances: list[Utterance] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    named: set[str] = set()
    for place, row in rows:
        if len(problems) >= MOST_PROBLEMS:
            problems.append(f"{place}: not read on after so many problems")
            break
        if isinstance(row, str):
            problems.append(f"{place}: {row}")
            continue
        _check_number(where, named, row)
        values: dict[str, Any] = {}
        try:
            values = ManifestRow.model_validate(row).fields()
        except ValidationError as error:
            problems += [f"{place}, {_problem(one)}" for one in error.errors()]
        except ValueError as error:
            problems.append(f"{place}: {error}")
        name = str(row.get("id") or "").strip()
        if name in places:
            problems.append(
                f"{place}, column id: '{printable(name)}' already stands in {places[name]}"
            )
            continue
        places[name] = place
        if not values:
            continue
        path = folder / values.pop("path")
        speaker = values.pop("speaker") or ""
        emotion = values.pop("label")
        utterances.append(Utterance(path=path, speaker=speaker, emotion=emotion, **values))
    if problems:
        raise TreeError(where, problems, utterances)
    return utterances


def _problem(error: Any) -> str:
    """What is wrong with one cell."""
    if error["type"] == "missing":
        return f"column {column_of(error['loc'])}: a value is required"
    return f"column {column_of(error['loc'])}: {error['msg'].partition(', ')[2]}"


def _check_number(where: Path, named: set[str], row: Mapping[str, Any]) -> None:
    """No more columns of any name than a table needs; ``named``: those of the rows before."""
    more = {column for column in row if is_named(column)} - named
    named |= more
    for kind in NAMED if more else ():
        if sum(column.startswith(f"{kind}:") for column in named) > MOST_NAMED:
            raise UserError(f"{where} has more than {MOST_NAMED} different columns '{kind}:NAME'")


# ---- columns that are called otherwise -------------------------------------------------------


def columns_of(where: object, chosen: Any, present: Sequence[str]) -> dict[str, str]:
    """The manifest's columns that there are, and what each is called there.

    Args:
        where: the tables, for messages.
        chosen: the option ``columns``; a column that it does not name is found by its own name, or
            by one of `USUAL`.
        present: the columns of the tables.

    Raises:
        UserError: a column that the manifest or the tables do not have, or nothing to learn from.
    """
    if not isinstance(chosen, Mapping | None):
        raise UserError("the option 'columns' must be {label: COLUMN, …}, the manifest's first")
    there = ", ".join(map(printable, map(str, present))) or "none"
    found: dict[str, str] = {}
    for column, name in (chosen or {}).items():
        if column not in COLUMNS and not is_named(str(column)):
            raise unknown("column in the option columns", str(column), KNOWN)
        if problem := column_problem(column):
            raise UserError(f"the option 'columns': {problem}")
        if name not in present:
            raise UserError(f"{where} has no column '{name}' for {column}; its columns are {there}")
        found[column] = name
    for column in (*COLUMNS, *filter(is_named, present)):
        names = (column, *USUAL.get(column, ()))
        if first := next((n for n in names if n in present), None):
            found.setdefault(column, first)
    if not any(map(is_learned, found)):
        raise UserError(
            f"{where} has nothing to learn: name a label, a rating or votes with "
            f"-o 'corpus.options={{columns: {{label: COLUMN}}}}'; its columns are {there}"
        )
    return found


def cells(columns: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """A row of others' values by the manifest's columns.

    What is no sex that the manifest knows becomes the trait "gender".
    """
    row = {column: plain(values.get(name)) for column, name in columns.items()}
    if str(row.get("sex") or "f").strip().lower() not in ("female", "male", "f", "m"):
        row.setdefault("trait:gender", row.pop("sex"))
    return row


def plain(value: Any) -> str | int | float | None:
    """A cell of a library's table as text or number; None where it is not there."""
    if hasattr(value, "item"):  # numpy's
        value = value.item()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if isinstance(value, str | int | float) else str(value)


def short_names(files: Sequence[str]) -> list[str]:
    """Ids of files: what each is called, or its whole path where several are called the same."""
    paths = [PurePosixPath(file) for file in files]
    alone = all(number == 1 for number in Counter(path.stem for path in paths).values())
    return [path.stem if alone else path.with_suffix("").as_posix() for path in paths]
