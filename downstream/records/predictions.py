"""predictions.csv and its like: one row per tested example, written exactly, read with suspicion.

Columns: ``id,fold,seed,test,speaker,<traits...>,<the task's columns...>``. ``id`` is the example's
key (corpus/id, with @view where it is not clean), ``test`` the name of its test set ("dev" in
dev.csv), ``speaker`` corpus/speaker, empty where it is unknown. Traits are what the corpus knows of
speaker and recording (sex, session, age, ...), empty where it does not. What the task's columns
mean is the task's affair: its numbers have every digit. A cell that a spreadsheet would take for a
formula is written with a ' before it. unscored.csv, of the tests without targets, has no columns of
truths; in memory they are empty. Imports no torch.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from emopeft.downstream.measures.columns import Column
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError
from emopeft.files import read_text

COLUMNS = ("id", "fold", "seed", "test", "speaker")
DEV = "dev"  # what stands under "test" in dev.csv
LARGEST = 256 << 20  # bytes of a file
LONGEST = 2000  # characters of a text cell
MOST_TRAITS = 100
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One tested example. ``values``: the task's columns; ``traits``: name to value, "" unknown."""

    id: str
    fold: str
    seed: int
    test: str
    speaker: str
    traits: Mapping[str, str]
    values: Mapping[str, Any]


class _Utterance(Protocol):
    @property
    def speaker_uid(self) -> str: ...
    def all_traits(self) -> dict[str, str]: ...


class _Example(Protocol):  # of downstream.data.plan
    @property
    def key(self) -> str: ...
    @property
    def utterance(self) -> Any: ...


class _Damaged(ValueError):
    """Something wrong in a predictions.csv."""


def predictions_of(
    examples: Sequence[_Example],
    table: Mapping[str, Sequence[Any]],
    fold: str,
    seed: int,
    test: str,
) -> list[Prediction]:
    """The rows of a test set: its examples, and `Task.table` of the outputs on them."""
    rows = []
    for number, example in enumerate(examples):
        utterance: _Utterance = example.utterance
        values = {name: cells[number] for name, cells in table.items()}
        rows.append(
            Prediction(
                example.key, fold, seed, test, utterance.speaker_uid, utterance.all_traits(), values
            )
        )
    return rows


def table_of(rows: Sequence[Prediction], task: Task) -> dict[str, list[Any]]:
    """The task's columns of some rows, as `Task.measure` takes them."""
    return {column.name: [row.values[column.name] for row in rows] for column in task.columns}


def untold(task: Task) -> dict[str, Any]:
    """The truth columns of an example that has no target, empty."""
    truths = (column for column in task.columns if column.role == "truth")
    return {column.name: math.nan if column.classes is None else "" for column in truths}


def not_finite(rows: Sequence[Prediction], task: Task) -> str | None:
    """A sentence when an output is NaN or infinite, which means that training diverged."""
    names = [c.name for c in task.columns if c.classes is None and c.role != "truth"]
    for row in rows:
        if not all(math.isfinite(row.values[name]) for name in names):
            return (
                f"the outputs on '{row.id}' ({row.test}, fold {row.fold}, seed {row.seed}) are not "
                "finite: training diverged; lower the learning rate"
            )
    return None


def traits_of(rows: Sequence[Prediction]) -> list[str]:
    """The traits that any of these rows knows, sorted."""
    return sorted({name for row in rows for name in row.traits})


def _written(task: Task, truths: bool) -> dict[str, Column]:
    """The task's columns that a file has, by name."""
    return {column.name: column for column in task.columns if truths or column.role != "truth"}


def predictions_text(rows: Sequence[Prediction], task: Task, truths: bool = True) -> str:
    """The text of the file; without ``truths`` that of unscored.csv.

    Raises:
        ValueError: a row that has not exactly the task's columns.
    """
    traits = traits_of(rows)
    columns = _written(task, truths)
    names = {column.name for column in task.columns}
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*COLUMNS, *map(guarded, traits), *map(guarded, columns)])
    for row in rows:
        if set(row.values) != names:
            raise ValueError(f"the values of '{row.id}' are not the columns of {task.name}")
        texts = [row.id, row.fold, str(row.seed), row.test, row.speaker]
        texts += [row.traits.get(name, "") for name in traits]
        cells = [guarded(text) for text in texts]
        for name, column in columns.items():
            cell = column.write(row.values[name])
            cells.append(cell if column.classes is None else guarded(cell))
        out.writerow(cells)
    return text.getvalue()


def guarded(text: str) -> str:
    """A text that a spreadsheet shows and does not compute."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _unguarded(cell: str) -> str:
    """The text of a cell, which must be one line of it; raises ValueError."""
    if len(cell) > LONGEST:
        raise _Damaged(f"a text is longer than {LONGEST} characters")
    if any(unicodedata.category(c) == "Cc" for c in cell):
        raise _Damaged("a text holds a control character")
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def read_predictions(path: Path, task: Task, truths: bool = True) -> list[Prediction]:
    """Read predictions.csv as untrusted data; without ``truths`` unscored.csv.

    Raises:
        UserError: naming the file and the line: missing, no regular file, too large, not UTF-8, a
            wrong header, a row of another length, control characters, a cell that is not what the
            task's column says, a row whose cells do not go together (`Task.check`).
    """
    reader = csv.reader(io.StringIO(read_text(path, LARGEST), newline=""), strict=True)
    try:
        return list(_rows(reader, task, truths))
    except (ValueError, csv.Error) as error:
        line = max(reader.line_num, 1)
        raise UserError(f"{path}, line {line}: {error}; restore it or run again") from error


def _rows(reader: Iterator[list[str]], task: Task, truths: bool) -> Iterator[Prediction]:
    """All rows below a good header; raises ValueError about the line last read."""
    header = [_unguarded(name) for name in next(reader, [])]
    columns = _written(task, truths)
    names = list(columns)
    first, last = len(COLUMNS), len(header) - len(names)
    traits = header[first : max(first, last)]
    good = header == [*COLUMNS, *traits, *names] and len(set(header)) == len(header)
    if not good or len(traits) > MOST_TRAITS:
        raise _Damaged(f"the header must be {','.join([*COLUMNS, '<traits...>', *names])[:300]}")
    for cells in reader:
        if len(cells) != len(header):
            raise _Damaged(f"{len(cells)} cells where {len(header)} are expected")
        id_, fold, seed, test, speaker, *known = map(_unguarded, cells[:last])
        if not id_:
            raise _Damaged("there is no id")
        if not (seed.isdecimal() and seed.isascii() and len(seed) < 20):
            raise _Damaged(f"the seed {seed[:60]!r} is not a whole number")
        values = {} if truths else untold(task)
        for column, cell in zip(columns.values(), cells[last:], strict=True):
            values[column.name] = column.read(cell if column.classes is None else _unguarded(cell))
        task.check(values)
        named = {name: value for name, value in zip(traits, known, strict=True) if value}
        yield Prediction(id_, fold, int(seed), test, speaker, named, values)
