"""EmoBox's metadata: which clips a data set has, how they are labelled, and its published folds.

Read as emo-box/EmoBox has them in ``data/`` (looked at 08280f2; MIT)::

    NAME/fold_K/NAME_{train,valid,test}_fold_K.jsonl    valid only where its authors gave one
    NAME/label_map.json                                 {"ANG": "Angry"}
    NAME/data.seg.wrd.stm                               who speaks, in most data sets

A line of a fold is a clip; a clip stands in several folds, the same in all::

    {"key": "cremad-1074-IWL-ANG-XX", "wav": "downloads/cremad/AudioWAV/1074_IWL_ANG_XX.wav",
     "emo": "ANG", ...}

A clip of PAVOQUE is a part of a long recording (``start_time``, ``end_time``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from emopeft.downstream.corpora.base import TreeError, printable
from emopeft.errors import UserError, unknown
from emopeft.files import read_json, read_text

LARGEST = 256 << 20  # bytes of a file; EmoBox's largest (MSP-Podcast) has 4 MB
MOST_PROBLEMS = 1000
PARTS = ("train", "valid", "test")
SPEAKERS = "data.seg.wrd.stm"
# EmoBox's nouns as the adjectives of the other corpora here, so that the same class has one name.
WORDS = {"disgust": "disgusted", "fear": "fearful", "surprise": "surprised", "boredom": "bored"}


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip: EmoBox's key, where its authors had it, and its label through the label map."""

    key: str
    id: str
    wav: PurePosixPath
    label: str


@dataclasses.dataclass(frozen=True)
class Metadata:
    """A data set.

    Attributes:
        labels: of the clips, in the order of the label map.
        clips: by id: the file's name without its ending, or the key where several share it.
        folds: per fold ("1", "2", …) and part the ids, sorted.
        speakers: id -> speaker, as far as EmoBox says.
        digest: SHA-256 of all files that were read.
    """

    name: str
    folder: Path
    labels: tuple[str, ...]
    clips: Mapping[str, Clip]
    folds: Mapping[str, Mapping[str, list[str]]]
    speakers: Mapping[str, str]
    digest: str


def find_metadata(name: str, places: list[Path]) -> Path:
    """The folder of a data set in EmoBox's checkout, its ``data``, or named itself.

    Raises:
        UserError: it is in none of the places.
    """
    for place in places:
        for folder in (place / name, place / "data" / name, place):
            whole = (folder / "label_map.json").is_file() and (folder / "fold_1").is_dir()
            if whole and folder.resolve().name == name:
                return folder
    there = {
        path.parent.name
        for place in places
        for pattern in ("*/label_map.json", "data/*/label_map.json")
        for path in place.glob(pattern)
    }
    if there:
        raise unknown("data set of EmoBox", name, sorted(there))
    where = " nor in ".join(str(place) for place in places)
    raise UserError(
        f"no EmoBox metadata of '{name}' (fold_1 and label_map.json) in {where}; give the folder "
        "data of a checkout of emo-box/EmoBox as -o 'corpus.options={metadata: DIR}', or set "
        "EMOPEFT_EMOBOX_METADATA"
    )


def read_metadata(name: str, folder: Path) -> Metadata:
    """All of a data set's metadata.

    Raises:
        UserError: a file is missing, or not what EmoBox writes.
        TreeError: lists every line that is wrong.
    """
    sha = hashlib.sha256()
    words = _labels(folder / "label_map.json")
    rows: dict[str, Mapping[str, str]] = {}
    folds: dict[str, dict[str, list[str]]] = {}
    problems: list[str] = []
    for number in _numbers(folder):
        parts: dict[str, list[str]] = {}
        for part in PARTS:
            file = folder / f"fold_{number}" / f"{name}_{part}_fold_{number}.jsonl"
            if part == "valid" and not file.exists():
                continue
            text = read_text(file, LARGEST)
            sha.update(f"{file.name}\n{text}".encode())
            parts[part] = _part(file.name, text, words, rows, problems)
        folds[str(number)] = parts
    if problems:
        raise TreeError(folder, problems)
    ids = _ids(rows)
    sha.update(json.dumps(words).encode())
    used = {row["emo"] for row in rows.values()}
    return Metadata(
        name=name,
        folder=folder,
        labels=tuple(dict.fromkeys(label for emo, label in words.items() if emo in used)),
        clips={
            ids[key]: Clip(key, ids[key], PurePosixPath(row["wav"]), words[row["emo"]])
            for key, row in rows.items()
        },
        folds={
            number: {part: sorted(ids[key] for key in keys) for part, keys in parts.items()}
            for number, parts in folds.items()
        },
        speakers={ids[key]: who for key, who in _speakers(folder / SPEAKERS) if key in ids},
        digest=sha.hexdigest(),
    )


def _numbers(folder: Path) -> list[int]:
    """The numbers of the folds: 1, 2, …, none left out."""
    found = sorted(
        int(path.name[5:]) for path in folder.glob("fold_*") if path.name[5:].isdecimal()
    )
    if found != list(range(1, len(found) + 1)):
        raise UserError(f"{folder} has the folds {found}, not 1, 2, …; get it again from EmoBox")
    return found


def _labels(file: Path) -> dict[str, str]:
    """A data set's own label -> the word for it, see `WORDS`."""
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(v, str) and v for v in data.values()):
        raise UserError(f"{file} is not EmoBox's map of labels, {{'ANG': 'Angry'}}")
    return {emo: WORDS.get(label.lower(), label.lower()) for emo, label in data.items()}


def _part(
    name: str,
    text: str,
    words: Mapping[str, str],
    rows: dict[str, Mapping[str, str]],
    problems: list[str],
) -> list[str]:
    """The keys of a part, in its order; ``rows`` and ``problems`` grow."""
    keys = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip() or len(problems) >= MOST_PROBLEMS:
            continue
        row = _row(content, words)
        if isinstance(row, str):
            problems.append(f"{name}, line {line}: {row}")
        elif rows.setdefault(row["key"], row) != row:
            problems.append(f"{name}, line {line}: '{printable(row['key'])}' is not as before")
        else:
            keys.append(row["key"])
    return keys


def _row(content: str, words: Mapping[str, str]) -> dict[str, str] | str:
    """Key, wav and emo of a line, or what is wrong with it."""
    try:
        data: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error})"
    if not isinstance(data, dict):
        return "not a JSON object"
    row: dict[str, str] = {}
    for field in ("key", "wav", "emo"):
        value = data.get(field)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            return f"key '{field}' must be a text, not {value!r:.60}"
        row[field] = value
    if data.get("start_time") is not None:
        return "the clip is a part of a longer recording (start_time): cut it out first"
    if row["emo"] not in words:
        # EmoDB's map has "Neutral", its folds "neutral"; ASED has both "s" and "S" for good.
        alike = [emo for emo in words if emo.lower() == row["emo"].lower()]
        if len(alike) != 1:
            return f"label_map.json has no label '{row['emo']}' (it has {', '.join(words)})"
        row["emo"] = alike[0]
    return row


def _ids(rows: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Key -> id: what the file is called, as our own readers have it, where no two are."""
    stems = {key: PurePosixPath(row["wav"]).stem for key, row in rows.items()}
    shared = any(number > 1 for number in Counter(stems.values()).values())
    return {key: key for key in stems} if shared else stems


def _speakers(file: Path) -> Iterator[tuple[str, str]]:
    """(key, speaker) of every line ``… <id=KEY,lang=en,spk=12,emotion=p> …``."""
    if file.is_file():
        for line in read_text(file, LARGEST).splitlines():
            match = re.search(r"<id=([^,>]+),(?:[^>]*,)?spk=([^,>]+)[,>]", line)
            if match and match[2].isprintable():
                yield match[1], match[2]
