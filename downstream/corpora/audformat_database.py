"""An audformat database: ``--corpus audformat --data DB``, DB being the folder with ``db.yaml``.

The format of audEERING's databases, of audb and of nkululeko (audeering.github.io/audformat). Its
columns are the manifest's, by their own names or as the option ``columns`` says (`manifest_rows`):
``emotion`` is the label, ``gender`` the sex. They are looked for in the tables named by the
option ``tables`` (by default every table of files that has a column of targets), then in the other
tables of files (``files``), and then among what the labels of the scheme ``speaker`` say of each
speaker, be that in the header or in a table of its own (``gender``, ``age``).

=========================== ================================================================
what                        where it comes from
=========================== ================================================================
id                          the file's name without its ending, its path where several share it
path                        the file, counted from DB
split                       a column ``split``; else the type of the table's split (train, dev,
                            test), else a part of the table's name:
                            ``emotion.categories.train.gold_standard``
=========================== ================================================================

A table of segments is refused unless its segments are whole files. Tables that exist as pickles
only are refused, and a pickle is never opened: it may run whatever its author wrote. Nor is the
header read as audformat itself reads it (yaml.Loader), for the same reason.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from emopeft.downstream.corpora.base import Corpus, Utterance, register
from emopeft.downstream.corpora.manifest import adjust
from emopeft.downstream.corpora.manifest_rows import (
    COLUMNS_HELP,
    USUAL,
    cells,
    columns_of,
    is_learned,
    plain,
    short_names,
    utterances_of,
)
from emopeft.errors import UserError, unknown
from emopeft.files import read_text

HEADER = "db.yaml"
LARGEST_HEADER = 64 << 20  # bytes
SPLITS = ("train", "training", "dev", "development", "valid", "validation", "test", "eval")
Values = Mapping[str, Any]  # by column


def library(name: str, what: str) -> ModuleType:
    """A library of the extra ``formats``; raises UserError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{what} needs the library {name}: pip install 'emopeft[formats]'"
        ) from error


class Database:
    """The tables of a database as plain rows.

    Args:
        root: its folder.

    Raises:
        UserError: there is no header, or it is not audformat's.
    """

    def __init__(self, root: Path):
        self._audformat = library("audformat", "an audformat database")
        self.root = root
        try:
            # CSafeLoader: headers list all speakers and may be long.
            header = yaml.load(
                read_text(root / HEADER, LARGEST_HEADER),
                Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
            )
            self.db = self._audformat.Database.load_header_from_yaml(header)
        except UserError:
            raise
        except Exception as error:  # whatever a header that is none leads to
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{root / HEADER} is not audformat's header ({reason})") from error
        self._loaded: dict[str, Any] = {}

    def columns(self, table: str) -> list[str]:
        """The columns of a table, as the header has them."""
        return list(self.db[table].columns)

    def frame(self, table: str) -> Any:
        """A table's data, with its index as columns; raises UserError where it cannot be read."""
        if table not in self._loaded:
            stem = f"{Path(HEADER).stem}.{table}"
            files = [self.root / f"{stem}.{ending}" for ending in ("parquet", "csv")]
            if (file := next((f for f in files if f.is_file()), None)) is None:
                raise UserError(
                    f"{self.root} has no {stem}.parquet or .csv (a pickle is not opened: it may "
                    "run anything); save the database again with storage_format='parquet'"
                )
            try:
                # audformat takes a pickle that lies beside the table: load it from where none is.
                with tempfile.TemporaryDirectory() as folder:
                    (Path(folder) / file.name).symlink_to(file.absolute())
                    self.db[table].load(str(Path(folder) / stem))
                self._loaded[table] = self.db[table].df.reset_index()
            except Exception as error:  # pyarrow, pandas and audformat each have their own
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"{file} is not the table of its header ({reason})") from error
        return self._loaded[table]

    def of_files(self) -> list[str]:
        """The tables of files or segments, ``files`` first."""
        return sorted(self.db.tables, key=lambda name: (name != "files", name))

    def rows(self, table: str) -> Iterator[tuple[str, Values]]:
        """File and cells of every row; raises UserError for a segment of a file."""
        frame = self.frame(table)
        for row in frame.to_dict("records"):
            start, end = plain(row.get("start")), plain(row.get("end"))
            if end is not None or start not in (None, "0 days 00:00:00"):
                raise UserError(
                    f"table {table} of {self.root} has segments of files ({row['file']} from "
                    f"{start}): cut them into files of their own, or name other tables with "
                    "-o 'corpus.options={tables: [NAME]}'"
                )
            yield str(row["file"]), row

    def split_of(self, table: str) -> str | None:
        """The side that a whole table is of, by its split or its name."""
        split = self.db.splits.get(self.db[table].split_id or "")
        parts = [str(split.type), *table.lower().split(".")] if split else table.lower().split(".")
        return next((part for part in parts if part in SPLITS), None)

    def speakers(self, column: str) -> dict[str, Values]:
        """Speaker -> what the labels of the column's scheme say of her or him."""
        schemes = {
            t.columns[column].scheme_id for t in self.db.tables.values() if column in t.columns
        }
        for name in sorted(s for s in schemes if s):
            labels = self.db.schemes[name].labels
            if isinstance(labels, str):  # a table of its own
                rows = self.frame(labels).to_dict("records")
                first = self.frame(labels).columns[0]
                return {str(row[first]): row for row in rows}
            if isinstance(labels, dict):
                return {str(k): v for k, v in labels.items() if isinstance(v, dict)}
        return {}


def read(root: Path, tables: Any = None, columns: Any = None, scale: Any = None) -> list[Utterance]:
    """The utterances of a database, sorted by id.

    Raises:
        UserError: naming the tables and columns that there are.
        TreeError: every row that is wrong.
    """
    database = Database(root)
    chosen = _tables(database, tables, columns)
    others = [t for t in database.of_files() if t not in chosen]
    speaker = _speaker_column(database, columns)
    who = database.speakers(speaker) if speaker else {}
    present = list(
        dict.fromkeys(
            [
                *(c for t in [*chosen, *others] for c in database.columns(t)),
                *(str(c) for facts in who.values() for c in facts),
            ]
        )
    )
    names = columns_of(f"{root} ({', '.join(chosen)})", columns, present)
    known = _joined(database, others, names, chosen)
    cells_of: dict[str, dict[str, Any]] = {}
    from_table: dict[str, str] = {}
    for table in chosen:
        split = database.split_of(table)
        for file, row in database.rows(table):
            if file in from_table:
                raise UserError(
                    f"{file} is in the tables {from_table[file]} and {table} of {root}; name those "
                    "that are meant with -o 'corpus.options={tables: [NAME]}'"
                )
            from_table[file] = table
            values = {**known.get(file, {}), **row}
            values = {**who.get(str(plain(values.get(speaker or ""))), {}), **values}
            cells_of[file] = {"split": split, **cells(names, values), "path": file}
    files = sorted(cells_of)
    rows = (
        (f"table {from_table[file]}, {file}", {"id": name, **cells_of[file]})
        for file, name in zip(files, short_names(files), strict=True)
    )
    return sorted(utterances_of(root / HEADER, rows, root), key=lambda u: u.id)


def _tables(database: Database, tables: Any, columns: Any) -> list[str]:
    """The tables with the targets: as the option says, or all that have a column of them."""
    there = database.of_files()
    described = "; ".join(f"{t}: {', '.join(database.columns(t)) or 'no columns'}" for t in there)
    if tables:
        asked = [tables] if isinstance(tables, str) else list(tables)
        for table in asked:
            if table not in there:
                raise unknown(f"table of {database.root}", str(table), there)
        return asked
    targets = {"label", *USUAL["label"], "valence", "arousal", "dominance"}
    if isinstance(columns, Mapping):
        targets = {str(n) for c, n in columns.items() if is_learned(str(c))} or targets
    found = [t for t in there if targets & set(database.columns(t))]
    if not found:
        raise UserError(
            f"no table of {database.root} has a column {' or '.join(sorted(targets))}; name it "
            f"with -o 'corpus.options={{columns: {{label: COLUMN}}}}'; there are {described}"
        )
    return found


def _speaker_column(database: Database, columns: Any) -> str | None:
    """What the column of the speakers is called in the tables of files."""
    present = {c for t in database.of_files() for c in database.columns(t)}
    given = columns.get("speaker") if isinstance(columns, Mapping) else None
    return next((c for c in (given, "speaker", *USUAL["speaker"]) if c in present), None)


def _joined(
    database: Database, tables: Sequence[str], names: Mapping[str, str], chosen: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """File -> the wanted columns that the chosen tables do not have, from the first that does."""
    everywhere = set.intersection(*[set(database.columns(t)) for t in chosen])
    wanted = set(names.values()) - everywhere
    joined: dict[str, dict[str, Any]] = {}
    for table in tables:
        if found := wanted & set(database.columns(table)):
            for file, row in database.rows(table):
                for column in found:
                    joined.setdefault(file, {}).setdefault(column, row[column])
    return joined


register(
    Corpus(
        name="audformat",
        title="an audformat database",
        licence="the database's own",
        citation="",
        read=read,
        emotions=(),
        protocol="manifest-speakers",
        folder="the folder with db.yaml and its tables",
        language="any",
        options={
            "tables": "the tables with the targets, where not all that have a column of them",
            "columns": COLUMNS_HELP,
            "scale": "nominal lowest and highest of each rating: {valence: [1, 5]}",
        },
        adjust=lambda scale=None, **_: adjust(scale),
        like="manifest",
    )
)
