"""Numbers of a report as a CSV, beside its markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from emopeft.downstream.records.predictions import guarded
from emopeft.files import write_text

Cell = str | int | float | None


def write_csv(path: Path, headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Path:
    """Write a table; numbers with every digit, an empty cell where there is none. Texts that a
    spreadsheet would compute are written with a ' before them. Returns ``path``.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    out.writerow(headers)
    out.writerows([_cell(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())
    return path


def _cell(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, str):
        return guarded(cell)
    return repr(float(cell)) if isinstance(cell, float) else str(int(cell))
