"""Tables that come with a corpus: CSV with a header, as data, every mistake with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from emopeft.errors import UserError
from emopeft.files import open_regular

LARGEST_TABLE = 1 << 30  # bytes; a million ratings of MSP-Podcast are a tenth of it


def rows(
    path: Path, columns: Sequence[str], limit: int = LARGEST_TABLE
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values, without spaces around them, of every row; read as they are asked for.

    Args:
        columns: those that the header must name, in any order.

    Raises:
        UserError: naming the file: it is missing, no UTF-8 or no CSV, a column is absent, or a row
            has more or fewer values than the header.
    """
    with open_regular(path, limit) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if absent := [name for name in columns if name not in header]:
                raise UserError(
                    f"{path} has no column {absent[0]}; its header must name {', '.join(columns)}"
                )
            for values in reader:
                if not values:
                    continue
                if len(values) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(values)} values under a header of "
                        f"{len(header)} columns; get the table again from its publisher"
                    )
                row = zip(header, map(str.strip, values), strict=True)
                yield reader.line_num, dict(row)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8"
            ) from error
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.line_num}: not valid CSV ({error}); get the table "
                "again from its publisher"
            ) from error
