"""The protocol file, read as untrusted data: every key checked, every error naming it.

The format is described in :mod:`downstream.protocols.protocol`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emopeft.errors import UserError, nearest

UNITS = ("id", "position", "speaker", "session", "rule")
LARGEST_FILE = 64 * 2**20  # bytes; the largest shipped protocol is a hundred times smaller
NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
FOLD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # it becomes part of a folder's name


@dataclasses.dataclass(frozen=True)
class HashRule:
    """A frozen choice of utterances by name, for corpora whose id list cannot be shipped.

    An utterance is chosen when the SHA-256 of part ``part`` of its id (counted from 0, parts
    separated by "_"; None: the whole id), read as a big-endian integer, leaves ``remainder``
    modulo ``modulus``. Nothing is drawn: the choice is the same everywhere.
    """

    part: int | None
    modulus: int
    remainder: int

    def chooses(self, utterance_id: str) -> bool:
        """Whether the utterance belongs to the chosen ones."""
        parts = utterance_id.split("_")
        whole = self.part is None or self.part >= len(parts)
        text = utterance_id if whole else parts[self.part or 0]
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return int.from_bytes(digest, "big") % self.modulus == self.remainder


@dataclasses.dataclass(frozen=True)
class GroupRule:
    """Folds from what the data say: by speaker, by session, or by the data's own split.

    Speakers (or sessions) get a fold each while there are at most ``one_each_up_to``; more of
    them are grouped into ``folds`` groups of about equal numbers of utterances.
    """

    by: str  # "speaker" | "session" | "split"
    one_each_up_to: int = 10
    folds: int = 5


@dataclasses.dataclass(frozen=True)
class FoldSpec:
    """One fold as written: ids, speakers or sessions per side. ``train`` None: all others."""

    name: str
    test: tuple[str, ...]
    dev: tuple[str, ...] | HashRule
    train: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class ProtocolData:
    """The plain content of a protocol file; the attributes are its keys."""

    name: str
    version: int
    corpus: str
    task: str
    description: str
    source: str
    labels: Mapping[str, str]
    classes: tuple[str, ...]
    unit: str
    folds: tuple[FoldSpec, ...] = ()
    utterances: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    speaker_overlap: tuple[str, ...] = ()
    rule: GroupRule | None = None


def read(path: Path) -> ProtocolData:
    """Read and check one file.

    Raises:
        UserError: the file is missing, is not JSON, holds a key twice, or says something wrong;
            the message names the file and the key.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} is larger than {LARGEST_FILE >> 20} MiB: not a protocol")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"protocol file {path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read protocol file {path}: {reason}") from error
    try:
        return parse(json.loads(text, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a valid protocol file: {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse(value: Any) -> ProtocolData:
    """Check the decoded JSON of a protocol file; raises UserError naming the key."""
    keys = {field.name for field in dataclasses.fields(ProtocolData)}
    table = _table(value, "the protocol", keys)
    for key in ("name", "version", "corpus", "task", "description", "source", "unit"):
        if key not in table:
            raise UserError(f"key '{key}' is missing")
    name = _text(table["name"], "name")
    if not NAME.fullmatch(name):
        raise UserError(f"key 'name': '{name}' must be small letters, digits and single hyphens")
    unit = _text(table["unit"], "unit")
    if unit not in UNITS:
        raise UserError(f"key 'unit': '{unit}' must be one of {', '.join(UNITS)}")
    labels = _map(table.get("labels", {}), "labels", _text)
    classes = _texts(table.get("classes", []), "classes")
    utterances = _map(table.get("utterances", {}), "utterances", _text)
    if unit in ("id", "position") and not utterances:
        raise UserError(f"unit '{unit}' needs the key 'utterances'")
    counts = _map(table.get("counts", {}), "counts", _count)
    data = ProtocolData(
        name=name,
        version=_count(table["version"], "version"),
        corpus=_text(table["corpus"], "corpus"),
        task=_text(table["task"], "task"),
        description=_text(table["description"], "description"),
        source=_text(table["source"], "source"),
        labels=labels,
        classes=classes,
        unit=unit,
        folds=_folds(table.get("folds", []), unit, list(utterances)),
        utterances=utterances,
        leave_out=_texts(table.get("leave_out", []), "leave_out"),
        counts=counts,
        speaker_overlap=_texts(table.get("speaker_overlap", []), "speaker_overlap"),
        rule=_rule(table["rule"]) if "rule" in table else None,
    )
    _check_whole(data)
    return data


def _check_whole(data: ProtocolData) -> None:
    """What must hold between the keys."""
    if data.unit == "rule":
        if data.rule is None or data.folds or data.utterances:
            raise UserError("unit 'rule' needs the key 'rule' and neither 'folds' nor 'utterances'")
    else:
        if data.rule is not None:
            raise UserError(f"key 'rule' belongs to unit 'rule', not to '{data.unit}'")
        for key, given in (
            ("labels", data.labels), ("classes", data.classes), ("folds", data.folds)
        ):  # fmt: skip
            if not given:
                raise UserError(f"key '{key}' is missing or empty")
    for key, used in (("labels", data.labels.values()), ("utterances", data.utterances.values())):
        for strange in sorted(set(used) - set(data.classes)):
            raise UserError(f"key '{key}': class '{strange}' is not in 'classes'")
    for key, named in (("labels", set(data.labels.values())), ("counts", set(data.counts))):
        if named and named != set(data.classes):
            raise UserError(f"keys '{key}' and 'classes' must name the same classes")
    if data.speaker_overlap not in ((), ("dev",)):
        raise UserError("key 'speaker_overlap' may only be [] or [\"dev\"]: test shares no speaker")
    if data.speaker_overlap and "random-dev" not in data.name:
        raise UserError(
            "key 'speaker_overlap' declares a dev part that shares speakers with training, so the "
            f"name must say so: 'random-dev' is not in '{data.name}'"
        )
    if len(data.classes) == 1:
        raise UserError("key 'classes' needs at least two classes")
    names = [fold.name for fold in data.folds]
    if len(set(names)) != len(names):
        raise UserError(f"key 'folds': the name '{_first_twice(names)}' stands twice")


def _folds(value: Any, unit: str, ids: list[str]) -> tuple[FoldSpec, ...]:
    if not isinstance(value, list):
        raise UserError("key 'folds' must be a list")
    return tuple(_fold(item, f"folds[{i}]", unit, ids) for i, item in enumerate(value))


def _fold(value: Any, where: str, unit: str, ids: list[str]) -> FoldSpec:
    table = _table(value, where, {"name", "test", "dev", "train"})
    for key in ("name", "test", "dev"):
        if key not in table:
            raise UserError(f"key '{where}.{key}' is missing")
    sides: dict[str, tuple[str, ...]] = {}
    rule = None
    for side in ("test", "dev", "train"):
        if side not in table:
            continue
        key = f"{where}.{side}"
        if side == "dev" and isinstance(table["dev"], dict):
            if "train" in table:
                raise UserError(f"key '{key}': a rule and a list of 'train' exclude each other")
            rule = _hash_rule(table["dev"], key)
            continue
        sides[side] = (
            _positions(table[side], key, ids) if unit == "position" else _texts(table[side], key)
        )
        if not sides[side]:
            raise UserError(f"key '{key}' is empty; every fold needs train, dev and test")
        if unit == "id" and (strange := set(sides[side]) - set(ids)):
            raise UserError(f"key '{key}': '{min(strange)}' is not in 'utterances'")
    for a, b in itertools.combinations(sides, 2):
        if both := set(sides[a]) & set(sides[b]):
            raise UserError(f"key '{where}': '{min(both)}' is in {a} and in {b}")
    name = _text(table["name"], f"{where}.name")
    if not FOLD_NAME.fullmatch(name):
        raise UserError(f"key '{where}.name': '{name}' must be letters, digits, '.', '_' or '-'")
    return FoldSpec(
        name=name,
        test=sides["test"],
        dev=rule if rule is not None else sides["dev"],
        train=sides.get("train"),
    )


def _hash_rule(value: Any, where: str) -> HashRule:
    table = _table(value, where, {"part", "modulus", "remainder"})
    part = table.get("part")
    rule = HashRule(
        part=None if part is None else _count(part, f"{where}.part"),
        modulus=_count(table.get("modulus"), f"{where}.modulus"),
        remainder=_count(table.get("remainder"), f"{where}.remainder"),
    )
    if not rule.remainder < rule.modulus or rule.modulus < 2:
        raise UserError(f"key '{where}.remainder' must be below 'modulus', and that at least 2")
    return rule


def _rule(value: Any) -> GroupRule:
    table = _table(value, "rule", {"by", "one_each_up_to", "folds"})
    by = _text(table.get("by"), "rule.by")
    if by not in ("speaker", "session", "split"):
        raise UserError(f"key 'rule.by': '{by}' must be speaker, session or split")
    numbers = {k: _count(table[k], f"rule.{k}") for k in ("one_each_up_to", "folds") if k in table}
    for key, number in numbers.items():
        if number < 3:
            raise UserError(f"key 'rule.{key}' must be at least 3: train, dev and test")
    return GroupRule(by, **numbers)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError(f"key '{_first_twice([key for key, _ in pairs])}' stands twice")
    return table


def _table(value: Any, where: str, keys: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be an object, not {type(value).__name__}")
    for key in value:
        if key not in keys:
            near = nearest(key, keys)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(keys)}"
            raise UserError(f"unknown key '{key}' in {where}: {hint}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"key '{where}' must be a non-empty text, not {value!r:.60}")
    return value


def _count(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise UserError(f"key '{where}' must be a whole number from 0, not {value!r:.60}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"key '{where}' must be a list, not {type(value).__name__}")
    texts = [_text(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if len(set(texts)) != len(texts):
        raise UserError(f"key '{where}': '{_first_twice(texts)}' stands twice")
    return tuple(texts)


def _positions(value: Any, where: str, ids: list[str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"key '{where}' must be a list, not {type(value).__name__}")
    places = [_count(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if places and max(places) >= len(ids):
        raise UserError(f"key '{where}': position {max(places)} is past the {len(ids)} utterances")
    if len(set(places)) != len(places):
        raise UserError(f"key '{where}': position {_first_twice(places)} stands twice")
    return tuple(ids[place] for place in places)


def _first_twice(items: list[Any]) -> Any:
    return next(item for item, number in Counter(items).items() if number > 1)


def _map(value: Any, where: str, check: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"key '{where}' must be an object, not {type(value).__name__}")
    return {_text(k, where): check(v, f"{where}.{k}") for k, v in value.items()}
