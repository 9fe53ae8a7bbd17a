"""Protocols: frozen folds as data. Nothing is drawn at run time.

A protocol is a JSON file in ``downstream/protocols/`` (made by ``downstream.protocols.build``) or
a user's own file. It says which labels count and what they are called, and for each fold who or
what is tested and who or what is the dev part; all others are trained on. Where the utterance ids
of a corpus are published they stand in the file; else the folds name speakers or sessions and the
published counts are checked, so that an incomplete tree is never taken for the whole.

File format::

    {"name": "ravdess-6fold",        small letters, digits, hyphens; task or classes in it
     "version": 1,                   raised when the folds or labels change
     "corpus": "ravdess",            or "corpora": ["ravdess", "emodb"], see below
     "task": "emotion",              or a list of the tasks that it is for
     "description": "...", "source": "...",
     "classes": ["neutral", ...],    order of the logits
     "labels": {"excited": "happy"}, corpus label -> class; utterances of other labels drop out
     "counts": {"neutral": 96},      published utterances per class (may be absent)
     "total": 10039,                 published utterances that take part (may be absent)
     "unlabelled": true,             utterances of no such label take part, too, where the task has
                                     a target for them: votes without a consensus
     "unit": "speaker",              what the fold lists hold:
                                       speaker, session   all utterances of these
                                       id                 utterance ids, as in "utterances"
                                       position           places in "utterances", from 0
                                       rule               no lists: folds are made by "rule"
     "utterances": {"id": "class"},  all that take part, in the order they are read; needed for
                                     id and position, allowed for session and speaker; a list of
                                     ids where there are no classes
     "leave_out": ["0001"],          speakers or sessions of the corpus that take no part
     "folds": [{"name": "1", "test": [...], "dev": [...], "train": [...]}],
                                     no "train": all others (but where each one named is
                                     tested in some fold, one not named is an error).
                                     "dev" may be {"part": 1, "modulus": 5, "remainder": 0},
                                     see HashRule
     "rule": {"by": "speaker"},      speaker, session, split or id, see GroupRule
     "speaker_overlap": ["dev"],     dev shares speakers with train; the name must hold random-dev.
                                     "test", too: test shares speakers and maybe recordings with
                                     train and dev; the name must hold leaks
     "unknown_speakers": true,       utterances without a speaker may take part; that the folds
                                     are clean can then not be known, and the record says so
     "unscored": ["test3"],          tests without published targets, see below
     "submission": "msp-podcast"}    what their predictions are handed in as, too (may be absent):
                                     a format of downstream/records/submissions.py

``labels`` and ``classes`` may both be absent: the labels present, sorted.

Several corpora: with ``corpora``, ids, speakers and sessions are written "corpus/name", and
``labels`` holds a map for each: ``{"ravdess": {"calm": "neutral"}, "emodb": {...}}``.

Several tests: ``"tests": {"clean": [...], "phone": [...]}`` in place of ``test``; each is measured
by itself, and the first is the main one. With the rule by split they are those of the data, in the
order of their names: test1, test2, test-phone.

A test that is ``unscored`` is predicted and never measured. Its utterances stand in no other part
of any fold and not in ``utterances``; they need no label, and one that they have is not used. They
count as tested for the audit. ``counts`` and ``total`` are of all others.

Several stages, each going on with what the one before gave, in place of ``dev`` and ``train``::

    "stages": [{"name": "adapt", "train": [...], "dev": [...], "method": "lora"},
               {"name": "finish", "dev": [...], "freeze": ["head"], "keys": {"lr": 1e-5}}]

``keys`` are those of the recipe's section ``train``. No "train": all who stand in no test and in
no dev part of the fold. A stage, or a fold (for its tests, and what it trains on where it has no
stages), may name its "view", as "noise:snr=10": see ``downstream/views``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.protocols.fields import GroupRule, HashRule, declared
from emopeft.downstream.protocols.schema import LARGEST_FILE, FoldFile, ProtocolFile
from emopeft.errors import UserError, unknown
from emopeft.files import read_json
from emopeft.validation import validated

SHIPPED = Path(__file__).parent
WAY_OUT = "correct it; the format is described in downstream/protocols/protocol.py"


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """A stage as written. ``train`` None: all who are in no test and no dev part of the fold."""

    name: str
    dev: tuple[str, ...] | HashRule
    train: tuple[str, ...] | None = None
    view: str = "clean"
    method: str | None = None
    freeze: tuple[str, ...] = ()
    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FoldSpec:
    """A fold as written: ids, speakers or sessions per stage and test."""

    name: str
    tests: Mapping[str, tuple[str, ...]]
    stages: tuple[StageSpec, ...]
    view: str = "clean"  # of the tests

    @classmethod
    def plain(
        cls,
        name: str,
        test: Iterable[str],
        dev: Iterable[str] | HashRule,
        train: Iterable[str] | None = None,
    ) -> FoldSpec:
        """One stage, called "train", and one test, called "test"."""
        stage = StageSpec(
            "train",
            dev if isinstance(dev, HashRule) else tuple(dev),
            None if train is None else tuple(train),
        )
        return cls(name, {"test": tuple(test)}, (stage,))


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol as data; the attributes are the keys of its file (see the module).

    Attributes:
        corpora, tasks: the names in ``corpus`` or ``corpora``, and in ``task``.
        labels: per corpus, its own label -> class; empty: the labels present.
        utterances: id -> class ("" without classes).
        prefixed: whether ids, speakers and sessions are written "corpus/name".
    """

    name: str
    version: int
    corpora: tuple[str, ...]
    tasks: tuple[str, ...]
    description: str
    source: str
    labels: Mapping[str, Mapping[str, str]]
    classes: tuple[str, ...]
    unit: str
    folds: tuple[FoldSpec, ...] = ()
    utterances: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    total: int | None = None
    unlabelled: bool = False
    speaker_overlap: tuple[str, ...] = ()
    unknown_speakers: bool = False
    unscored: tuple[str, ...] = ()
    submission: str | None = None
    rule: GroupRule | None = None
    prefixed: bool = False

    @classmethod
    def of(cls, file: ProtocolFile) -> Protocol:
        """The protocol that a checked file describes."""
        utterances = file.utterances
        if isinstance(utterances, list):
            utterances = dict.fromkeys(utterances, "")
        ids = list(utterances)
        return cls(
            name=file.name,
            version=file.version,
            corpora=(file.corpus,) if file.corpus is not None else tuple(file.corpora or ()),
            tasks=(file.task,) if isinstance(file.task, str) else tuple(file.task),
            description=file.description,
            source=file.source,
            labels=file.label_maps(),
            classes=tuple(file.classes),
            unit=file.unit,
            folds=tuple(_fold(fold, ids) for fold in file.folds),
            utterances=utterances,
            leave_out=tuple(file.leave_out),
            counts=file.counts,
            total=file.total,
            unlabelled=file.unlabelled,
            speaker_overlap=tuple(file.speaker_overlap),
            unknown_speakers=file.unknown_speakers,
            unscored=tuple(file.unscored),
            submission=file.submission,
            rule=file.rule,
            prefixed=file.corpora is not None,
        )

    @property
    def corpus(self) -> str:
        """The corpora, as ``--corpus`` names them: "ravdess", or "ravdess+emodb"."""
        return "+".join(self.corpora)

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Names of the folds; empty where a rule makes them from the data."""
        return tuple(fold.name for fold in self.folds)

    @property
    def declared(self) -> tuple[str, ...]:
        """The parts that may share speakers with train: said in the file *and* in the name."""
        return declared(self.name, self.speaker_overlap)

    def on(self, corpus: str) -> Protocol:
        """The protocol of one corpus on another that is like it."""
        labels = {corpus: next(iter(self.labels.values()))} if self.labels else {}
        return dataclasses.replace(self, corpora=(corpus,), labels=labels)

    def labelling(
        self, utterances: Iterable[Utterance], votes: bool = False
    ) -> tuple[tuple[str, ...], Mapping[str, Mapping[str, str]]]:
        """The classes in order, and per corpus its own label -> class.

        As the file has it; where it has none, the labels that the utterances have, sorted, and
        with ``votes`` those that a rater chose.
        """
        if self.labels:
            return self.classes, self.labels
        present: dict[str, set[str]] = {}
        for utterance in utterances:
            chosen = [utterance.emotion] if utterance.emotion else []
            if chosen := [*chosen, *(utterance.votes if votes else ())]:
                present.setdefault(utterance.corpus, set()).update(chosen)
        labels = {corpus: {n: n for n in sorted(names)} for corpus, names in present.items()}
        return tuple(sorted(set().union(*present.values()))), labels


def _fold(fold: FoldFile, ids: list[str]) -> FoldSpec:
    def names(members: list[Any]) -> tuple[str, ...]:
        return tuple(ids[m] if isinstance(m, int) else m for m in members)

    return FoldSpec(
        name=fold.name,
        tests={name: names(members) for name, members in fold.named_tests().items()},
        stages=tuple(
            StageSpec(
                name=stage.name,
                dev=stage.dev if isinstance(stage.dev, HashRule) else names(stage.dev),
                train=None if stage.train is None else names(stage.train),
                view=stage.view,
                method=stage.method,
                freeze=tuple(stage.freeze),
                keys=stage.keys,
            )
            for stage in fold.all_stages()
        ),
        view=fold.view,
    )


@functools.cache
def _shipped(name: str) -> Protocol:
    return read_protocol(SHIPPED / f"{name}.json")


def read_protocol(path: Path) -> Protocol:
    """Read and check one file.

    Raises:
        UserError: the file is missing, is no regular file of at most 64 MiB, is not JSON, or says
            something wrong; the message names the file and the key.
    """
    return parse(read_json(path, LARGEST_FILE), str(path))


def parse(value: Any, where: str = "the protocol") -> Protocol:
    """The protocol of a file's decoded JSON; raises UserError naming ``where`` and the key."""
    return Protocol.of(validated(where, ProtocolFile, value, WAY_OUT))


def protocol_names() -> list[str]:
    """Names of the shipped protocols, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def list_protocols() -> list[Protocol]:
    """All shipped protocols, by name."""
    return [_shipped(name) for name in protocol_names()]


def load_protocol(name: str | Path, others: Iterable[str] = ()) -> Protocol:
    """A shipped protocol by its name, or a user's own by the path of its ``.json`` file.

    Args:
        others: names that are known beside the shipped ones, for the message.

    Raises:
        UserError: the name is unknown (with the nearest ones), or the file is wrong (naming the
            key), or its corpus is unknown.
    """
    if str(name) in protocol_names():
        return _shipped(str(name))
    if isinstance(name, Path) or name.endswith(".json") or "/" in name or "\\" in name:
        protocol = read_protocol(Path(name))
        for corpus in protocol.corpora:
            if corpus not in CORPORA:
                raise UserError(f"{name}: {unknown('corpus', corpus, CORPORA)}")
        return protocol
    raise unknown("protocol", name, [*protocol_names(), *others])
