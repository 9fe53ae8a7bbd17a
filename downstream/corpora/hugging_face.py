"""A data set of Hugging Face on disk: ``--corpus huggingface --data DIR``.

Any of the three ways in which they lie there:

- as ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote it (``state.json``, .arrow);
- as its repository is cloned, with .parquet files. A file's split is the word train, validation,
  dev, test … in its path (``data/train-00000-of-00001.parquet``, ``test/0000.parquet``), with what
  follows it up to the number (``test_other``);
- as an audiofolder: audio files and a ``metadata.csv`` or ``.jsonl`` with the column
  ``file_name``, for all or in a folder for each split.

The columns are the manifest's, by their own names or as the option ``columns`` says
(`manifest_rows`): ``emotion`` is the label, ``gender`` the sex, and the ``path`` is the one
column of audio, or ``audio``. A ClassLabel is its name, and -1 none. An id is the file's name
without its ending, or its path where several share it; SPLIT-ROW where the audio has no name.

Audio that lies within the tables is written out, once, as it is (nothing is decoded): to the folder
of the option ``files``, by default ``audio`` in the cache ($EMOPEFT_CACHE), each file called by
the SHA-256 of its bytes. It must be WAV or FLAC.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from emopeft.downstream.corpora.audformat_database import library
from emopeft.downstream.corpora.audio import is_audio
from emopeft.downstream.corpora.base import Corpus, Utterance, register
from emopeft.downstream.corpora.manifest import adjust
from emopeft.downstream.corpora.manifest_rows import (
    COLUMNS_HELP,
    cells,
    columns_of,
    short_names,
    utterances_of,
)
from emopeft.downstream.corpora.table import rows as csv_rows
from emopeft.errors import UserError
from emopeft.files import default_root, open_regular, writing

AT_ONCE = 100  # rows of a table in memory, with their audio
AUDIO = ("audio", "file", "path")
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac"}
SPLIT = re.compile(
    r"(?:^|[/_-])(training|train|development|dev|validation|valid|val|test|evaluation|eval)"
    r"([._-][a-z]+[a-z0-9._]*)?(?:[/-]|$)"
)


class Part(NamedTuple):
    """A table: the split it is of, its columns (name -> its ClassLabel's names), and its rows.

    ``folder`` is what the paths of its audio count from.
    """

    name: str
    split: str | None
    columns: Mapping[str, list[str] | None]
    audio: list[str]
    rows: Iterator[Mapping[str, Any]]
    folder: Path


def read(
    root: Path, columns: Any = None, scale: Any = None, files: str | Path | None = None
) -> list[Utterance]:
    """The utterances of a data set, sorted by id.

    Raises:
        UserError: DIR is none of the three, or lacks a column.
        TreeError: every row that is wrong.
    """
    place = Path(files).expanduser() if files else default_root() / "audio"
    found: list[tuple[str, dict[str, Any] | str]] = []
    names: list[str] = []
    for part in _parts(root):
        chosen = {k: v for k, v in columns.items() if k != "path"} if columns else columns
        named = columns_of(f"{root} ({part.name})", chosen, list(part.columns))
        audio = _audio_column(part, columns)
        for number, values in enumerate(part.rows):
            row = cells(named, _labelled(values, part.columns))
            name, path = _file_of(values.get(audio), part.folder, place)
            names.append(name or f"{part.split or part.name}-{number}")
            row = {"split": part.split, **row, "path": path}
            found.append((f"{part.name}, row {number}", row if is_audio(Path(path)) else path))
    rows = (
        (where, row if isinstance(row, str) else {"id": name, **row})
        for (where, row), name in zip(found, short_names(names), strict=True)
    )
    return sorted(utterances_of(root, rows, root), key=lambda u: u.id)


def _labelled(values: Mapping[str, Any], columns: Mapping[str, list[str] | None]) -> dict[str, Any]:
    """The cells, a ClassLabel's number as its name."""

    def label(value: Any, names: list[str] | None) -> Any:
        if names is None or not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None

    return {name: label(value, columns.get(name)) for name, value in values.items()}


def _audio_column(part: Part, columns: Any) -> str:
    """Which column is the audio; UserError where that cannot be told."""
    there = ", ".join(part.columns)
    if isinstance(columns, Mapping) and (name := columns.get("path")):
        if name not in part.columns:
            raise UserError(f"{part.name} has no column '{name}' of audio; its columns are {there}")
        return str(name)
    usual = [name for name in AUDIO if name in part.columns]
    found = part.audio if len(part.audio) == 1 else usual
    if not found:
        raise UserError(
            f"{part.name}: which column is the audio? say it with "
            f"-o 'corpus.options={{columns: {{path: COLUMN}}}}'; its columns are {there}"
        )
    return found[0]


# ---- audio ----------------------------------------------------------------------------------


def _file_of(value: Any, folder: Path, place: Path) -> tuple[str, str]:
    """What the audio of a row is called, and its file, or a sentence where there is none."""
    if isinstance(value, str):
        return value, str(folder / value)
    if not isinstance(value, Mapping):
        return "", "the column of the audio holds none"
    name = str(value.get("path") or "")
    content = value.get("bytes")
    if content is None:
        return name, str(folder / name) if name else "there is neither audio nor the path of it"
    suffix = MAGIC.get(content[:4])
    if suffix is None:
        return name, "the audio is neither WAV nor FLAC: convert it before it is put in"
    digest = hashlib.sha256(content).hexdigest()
    path = place / digest[:2] / f"{digest}{suffix}"
    if not path.is_file() or path.stat().st_size != len(content):
        way_out = "name another folder with -o 'corpus.options={files: DIR}'"
        with writing(path, way_out) as temporary:
            temporary.write_bytes(content)
    return name, str(path.absolute())


# ---- the three ways ----------------------------------------------------------------------------


def _parts(root: Path) -> Iterator[Part]:
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; --data must name that of a data set")
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return _saved(root)
    if tables := sorted(root.rglob("*.parquet")):
        return (_parquet(path, root) for path in tables)
    if tables := sorted([*root.rglob("metadata.csv"), *root.rglob("metadata.jsonl")]):
        return (_audiofolder(path, root) for path in tables)
    raise UserError(
        f"{root} holds no data set: neither state.json nor .parquet files nor metadata.csv or "
        ".jsonl; for a folder per class take --corpus folder"
    )


def _saved(root: Path) -> Iterator[Part]:
    """Every split that ``save_to_disk`` wrote."""
    datasets = library("datasets", "a data set of Hugging Face")
    try:
        loaded = datasets.load_from_disk(str(root))
    except Exception as error:  # whatever is wrong with arrow or JSON
        raise UserError(
            f"{root} cannot be loaded ({' '.join(str(error).split())[:200]})"
        ) from error
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    for split, data in splits.items():
        batches = data.with_format("arrow").iter(AT_ONCE)
        yield Part(
            name=split or root.name,
            split=split or (str(data.split) if data.split else None),
            **_described(data.features),
            rows=(row for batch in batches for row in batch.to_pylist()),
            folder=root,
        )


def _parquet(path: Path, root: Path) -> Part:
    datasets = library("datasets", "a data set of Hugging Face")
    parquet = library("pyarrow.parquet", "a parquet file")
    try:
        file = parquet.ParquetFile(path)
        described = _described(datasets.Features.from_arrow_schema(file.schema_arrow))
    except Exception as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from error
    relative = path.relative_to(root).as_posix()
    return Part(
        name=relative,
        split=split_in(relative.removesuffix(".parquet")),
        **described,
        rows=(row for batch in file.iter_batches(AT_ONCE) for row in batch.to_pylist()),
        folder=path.parent,
    )


def _described(features: Mapping[str, Any]) -> dict[str, Any]:
    """The columns with their ClassLabels' names, and which of them are audio."""
    return {
        "columns": {name: getattr(feature, "names", None) for name, feature in features.items()},
        "audio": [n for n, feature in features.items() if type(feature).__name__ == "Audio"],
    }


def split_in(path: str) -> str | None:
    """The split that a path names, the last of several: "train", "test_other"."""
    found = list(SPLIT.finditer(path.lower()))
    return found[-1][1] + (found[-1][2] or "") if found else None


def _audiofolder(path: Path, root: Path) -> Part:
    if path.suffix == ".csv":
        listed: list[Mapping[str, Any]] = [row for _, row in csv_rows(path, ["file_name"])]
    else:
        listed = list(_json_lines(path))
    columns = dict.fromkeys(name for row in listed for name in row)
    relative = path.relative_to(root).parent.as_posix()
    return Part(
        name=path.relative_to(root).as_posix(),
        split=split_in(relative),
        columns=columns,
        audio=["file_name"],
        rows=iter(listed),
        folder=path.parent,
    )


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with open_regular(path, 1 << 30) as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not valid JSON ({error})") from error
            if row is not None:
                if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
                    raise UserError(f"{path}, line {number}: there is no text 'file_name'")
                yield row


register(
    Corpus(
        name="huggingface",
        title="a data set of Hugging Face on disk",
        licence="the data set's own",
        citation="",
        read=read,
        emotions=(),
        protocol="manifest-split",
        folder="a folder that save_to_disk wrote, with parquet files, or with metadata.csv",
        language="any",
        options={
            "columns": COLUMNS_HELP,
            "scale": "nominal lowest and highest of each rating: {valence: [1, 5]}",
            "files": "where audio goes that lies within the tables (default: in the cache)",
        },
        adjust=lambda scale=None, **_: adjust(scale),
        like="manifest",
    )
)
