"""Protocols: frozen folds as data. Nothing is drawn at run time.

A protocol is a JSON file in ``downstream/protocols/`` (made by ``downstream.protocols.build``) or
a user's own file. It says which labels count and what they are called, and for each fold who or
what is tested and who or what is the dev part; all others are trained on. Where the utterance ids
of a corpus are published they stand in the file; else the folds name speakers or sessions and the
published counts are checked, so that an incomplete tree is never taken for the whole.

File format::

    {"name": "ravdess-6fold",        small letters, digits, hyphens; task or classes in it
     "version": 1,                   raised when the folds or labels change
     "corpus": "ravdess", "task": "emotion", "description": "...", "source": "...",
     "classes": ["neutral", ...],    order of the logits
     "labels": {"excited": "happy"}, corpus label -> class; utterances of other labels drop out
     "counts": {"neutral": 96},      published utterances per class (may be absent)
     "unit": "speaker",              what the fold lists hold:
                                       speaker, session   all utterances of these
                                       id                 utterance ids, as in "utterances"
                                       position           places in "utterances", from 0
                                       rule               no lists: folds are made by "rule"
     "utterances": {"id": "class"},  all that take part, in the order they are read; needed for
                                     id and position, allowed for session and speaker
     "leave_out": ["0001"],          speakers or sessions of the corpus that take no part
     "folds": [{"name": "1", "test": [...], "dev": [...], "train": [...]}],
                                     no "train": all others (but where each one named is
                                     tested in some fold, one not named is an error).
                                     "dev" may be {"part": 1, "modulus": 5, "remainder": 0},
                                     see HashRule
     "rule": {"by": "speaker"},      speaker, session or split, see GroupRule
     "speaker_overlap": ["dev"]}     dev shares speakers with train; the name must hold random-dev

With unit ``rule``, ``labels`` and ``classes`` may be absent: the labels present, sorted.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.protocols import resolving, schema
from emopeft.downstream.protocols.rules import some
from emopeft.errors import UserError, unknown

SHIPPED = Path(__file__).parent
SIDES = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fold, resolved: the utterances of each side, in a fixed order."""

    name: str
    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]
    test: tuple[Utterance, ...]

    def sides(self) -> dict[str, tuple[Utterance, ...]]:
        """The utterances by side: train, dev, test."""
        return {side: getattr(self, side) for side in SIDES}


@dataclasses.dataclass(frozen=True)
class Protocol(schema.ProtocolData):
    """A protocol as data; the attributes are the keys of its file (see the module)."""

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Names of the folds; empty where a rule makes them from the data."""
        return tuple(fold.name for fold in self.folds)

    def resolve(
        self, utterances: Iterable[Utterance], *, allow_incomplete: bool = False
    ) -> Resolved:
        """Find the utterances of every fold.

        Args:
            utterances: all of the corpus, in any order.
            allow_incomplete: go on with a corpus that lacks utterances or differs from the
                published counts. The result is not ``complete`` and has another hash.

        Raises:
            UserError: lists everything that does not fit: ids without a file, counts that differ
                from the published ones, speakers the protocol does not know, an empty side, a
                class without training utterances.
        """
        found = resolving.resolve(self, list(utterances), allow_incomplete)
        return Resolved(
            protocol=self,
            folds=tuple(Fold(name, **sides) for name, sides in found.folds),
            classes=found.classes,
            labels=found.labels,
            missing=found.missing,
            dropped=found.dropped,
            complete=not found.gaps,
        )


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A protocol on a corpus: what is trained on, chosen by and tested on.

    Attributes:
        labels: corpus label -> class, for every label that takes part.
        missing: ids, speakers or sessions of the protocol that the corpus lacks.
        dropped: utterances per corpus label that take no part ("" for unlabelled ones).
        complete: the corpus is as published. False only with ``allow_incomplete``.
    """

    protocol: Protocol
    folds: tuple[Fold, ...]
    classes: tuple[str, ...]
    labels: Mapping[str, str]
    missing: tuple[str, ...]
    dropped: Mapping[str, int]
    complete: bool

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) over corpus, task, classes and each (fold, side, id, class).

        Results may share a table exactly when it is equal: same utterances, in the same order,
        labelled the same, in the same folds.
        """
        sha = hashlib.sha256()
        head = [self.protocol.corpus, self.protocol.task, list(self.classes)]
        for row in (head, *self._rows()):
            sha.update(json.dumps(row, ensure_ascii=True).encode("ascii") + b"\n")
        return sha.hexdigest()

    def _rows(self) -> Iterable[list[str]]:
        for fold in self.folds:
            for side, utterances in fold.sides().items():
                for utterance in utterances:
                    yield [fold.name, side, utterance.id, self._class(utterance)]

    def _class(self, utterance: Utterance) -> str:
        name = self.labels.get(utterance.emotion or "")
        if name is None:
            raise UserError(
                f"utterance '{utterance.id}' is labelled '{utterance.emotion}', which is no class "
                f"of protocol {self.protocol.name}"
            )
        return name

    def label(self, utterance: Utterance) -> int:
        """The class of an utterance as its place in ``classes``; UserError if it has none."""
        return self.classes.index(self._class(utterance))

    def fold(self, name: str) -> Fold:
        """The fold called ``name``; UserError naming the known ones otherwise."""
        for fold in self.folds:
            if fold.name == name:
                return fold
        raise unknown(f"fold of protocol {self.protocol.name}", name, (f.name for f in self.folds))

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Utterances per fold, side and class, zeros included."""
        return {
            fold.name: {side: self._count(part) for side, part in fold.sides().items()}
            for fold in self.folds
        }

    def _count(self, utterances: Iterable[Utterance]) -> dict[str, int]:
        per_class = Counter(self._class(u) for u in utterances)
        return {name: per_class[name] for name in self.classes}

    def speakers(self) -> dict[str, dict[str, list[str]]]:
        """Speakers per fold and side, sorted."""
        return {
            fold.name: {
                side: sorted({u.speaker for u in part if u.speaker})
                for side, part in fold.sides().items()
            }
            for fold in self.folds
        }

    def audit(self) -> dict[str, Any]:
        """Who and what stands on more than one side, as plain data for the record.

        ``folds`` holds per fold the number of speakers per side, the speakers shared by
        ``test_train``, ``test_dev`` and ``dev_train``, the ``utterances`` on two sides (the same
        id, or the same file under two ids), and how many are ``without_speaker``. ``leaks`` are
        the findings that forbid a run, one sentence each; ``clean`` says there are none.
        """
        folds: dict[str, Any] = {}
        leaks: list[str] = []
        speakers = self.speakers()
        for fold in self.folds:
            report = _shared(fold, speakers[fold.name])
            folds[fold.name] = report
            leaks += _leaks(fold.name, report, self._declared())
        return {
            "declared": list(self.protocol.speaker_overlap),
            "clean": not leaks,
            "leaks": leaks,
            "folds": folds,
        }

    def _declared(self) -> bool:
        """Whether dev may share speakers with train: said in the file *and* in the name."""
        protocol = self.protocol
        return "dev" in protocol.speaker_overlap and "random-dev" in protocol.name

    def check_leaks(self) -> None:
        """Stop a run that would leak.

        Test never shares a speaker with train or dev, no utterance stands on two sides, every
        utterance has a speaker; dev shares speakers with train only where the protocol declares
        it and is named so.

        Raises:
            UserError: names the folds and what they share.
        """
        leaks = self.audit()["leaks"]
        if leaks:
            raise UserError(
                f"protocol {self.protocol.name} leaks on this corpus: {'; '.join(leaks[:5])}"
                f"{f'; and {len(leaks) - 5} more' if len(leaks) > 5 else ''}. Use a protocol whose "
                "folds keep speakers apart (for a manifest: manifest-speakers)"
            )


def _shared(fold: Fold, speakers: Mapping[str, list[str]]) -> dict[str, Any]:
    sides = fold.sides()
    report: dict[str, Any] = {"speakers": {side: len(speakers[side]) for side in SIDES}}
    both: set[str] = set()
    for a, b in (("test", "train"), ("test", "dev"), ("dev", "train")):
        report[f"{a}_{b}"] = sorted(set(speakers[a]) & set(speakers[b]))
        ids, files = {u.id for u in sides[b]}, {u.path for u in sides[b]}
        both |= {u.id for u in sides[a] if u.id in ids or u.path in files}
    report["utterances"] = sorted(both)
    report["without_speaker"] = sum(not u.speaker for part in sides.values() for u in part)
    return report


def _leaks(name: str, report: Mapping[str, Any], dev_declared: bool) -> list[str]:
    found = []
    for a, b in (("test", "train"), ("test", "dev"), ("dev", "train")):
        names = report[f"{a}_{b}"]
        if names and not (dev_declared and (a, b) == ("dev", "train")):
            found.append(f"fold {name}: speaker {some(names)} is in {a} and in {b}")
    if report["utterances"]:
        found.append(f"fold {name}: {some(report['utterances'])} is on two sides")
    if report["without_speaker"]:
        found.append(
            f"fold {name}: {report['without_speaker']} utterances have no speaker, so that no one "
            "can tell whether they leak"
        )
    return found


@functools.cache
def _shipped(name: str) -> Protocol:
    return _load(SHIPPED / f"{name}.json")


def _load(path: Path) -> Protocol:
    data = schema.read(path)
    return Protocol(**{f.name: getattr(data, f.name) for f in dataclasses.fields(data)})


def protocol_names() -> list[str]:
    """Names of the shipped protocols, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def list_protocols() -> list[Protocol]:
    """All shipped protocols, by name."""
    return [_shipped(name) for name in protocol_names()]


def load_protocol(name: str | Path) -> Protocol:
    """A shipped protocol by its name, or a user's own by the path of its ``.json`` file.

    Raises:
        UserError: the name is unknown (with the nearest ones), or the file is wrong (naming the
            key), or its corpus is unknown.
    """
    if str(name) in protocol_names():
        return _shipped(str(name))
    if isinstance(name, Path) or name.endswith(".json") or "/" in name or "\\" in name:
        protocol = _load(Path(name))
        if protocol.corpus not in CORPORA:
            raise UserError(f"{name}: {unknown('corpus', protocol.corpus, CORPORA)}")
        return protocol
    raise unknown("protocol", name, protocol_names())
