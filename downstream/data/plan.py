"""A protocol on its corpora, for a task: who is trained on, chosen by and tested on, in order.

Its folds, stages and examples are those of ``fold.py``. Nothing is drawn when a plan is made.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.data.audit import audit_rows
from emopeft.downstream.data.cautions import cautions
from emopeft.downstream.data.fold import Example, Fold, Stage
from emopeft.downstream.data.rows import (
    PARTS,
    UNSCORED,
    PlanRow,
    fold_audio_hash_of,
    fold_hash_of,
    read_rows,
    write_rows,
)
from emopeft.downstream.protocols.protocol import Protocol
from emopeft.downstream.protocols.resolving import Sides, resolve
from emopeft.errors import UserError, unknown
from emopeft.files import digest

if TYPE_CHECKING:
    from emopeft.downstream.tasks.base import Task

__all__ = [
    "PARTS", "UNSCORED", "Plan", "PlanRow", "audit_rows", "fold_audio_hash_of", "fold_hash_of",
    "read_rows", "write_rows",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run does, down to the last utterance.

    Attributes:
        audio: corpus/id -> SHA-256 of the decoded audio. seconds: corpus/id -> duration.
        missing: ids, speakers or sessions of the protocol that the corpora lack.
        dropped: utterances per label that take no part ("" for unlabelled ones).
        complete: the corpora are as published. False only where that was allowed.
        warnings: what spoils a number without being an error, one sentence each.
        duplicates: groups of corpus/id that hold one recording, as published.
    """

    protocol: Protocol
    task: Task
    folds: tuple[Fold, ...]
    audio: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    complete: bool = True
    warnings: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()

    # ---- what it holds ----------------------------------------------------------------------

    def examples(self) -> list[Example]:
        """All distinct examples of all folds, by key."""
        by_key = {e.key: e for fold in self.folds for e in fold.examples()}
        return [by_key[key] for key in sorted(by_key)]

    def fold(self, name: str) -> Fold:
        """The fold called ``name``; UserError naming the known ones otherwise."""
        for fold in self.folds:
            if fold.name == name:
                return fold
        raise unknown(f"fold of protocol {self.protocol.name}", name, (f.name for f in self.folds))

    def choose(self, text: str) -> list[Fold]:
        """The folds of ``all``, or of names such as ``1,3``; UserError for an unknown one."""
        if text == "all":
            return list(self.folds)
        return [self.fold(name) for name in dict.fromkeys(x.strip() for x in text.split(","))]

    def target(self, example: Example) -> tuple[float, ...]:
        """The task's target, NaN throughout of an unscored test; UserError where there is none."""
        if example.uid in self._blind:
            return (math.nan,) * len(self.task.target_names)
        target = self.task.target(example.utterance)
        if target is None:
            raise UserError(
                f"utterance '{example.uid}' has no target in task {self.task.name} under protocol "
                f"{self.protocol.name}"
            )
        return target

    @functools.cached_property
    def _blind(self) -> frozenset[str]:
        """Who stands in an unscored test, and so in no other part of any fold."""
        tests = (of for fold in self.folds for of in fold.unscored.values())
        return frozenset(e.uid for examples in tests for e in examples)

    def rows(self, fold: Fold) -> list[PlanRow]:
        """What stands in the fold's examples.csv, in order."""
        return [
            PlanRow(
                part, name, e.uid, e.utterance.speaker_uid, e.view, e.weight,
                self.audio.get(e.uid, ""), self.target(e),
            )
            for part, name, examples in fold.parts()
            for e in examples
        ]  # fmt: skip

    # ---- its hashes -------------------------------------------------------------------------

    def fold_hash(self, fold: Fold) -> str:
        """`fold_hash_of` the fold."""
        return fold_hash_of(fold.heads(), self.rows(fold))

    def fold_audio_hash(self, fold: Fold) -> str:
        """`fold_audio_hash_of` the fold."""
        return fold_audio_hash_of(self.rows(fold))

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) of the task and every fold in order.

        Results may share a table exactly when it is equal: same utterances, in the same order,
        with the same targets, in the same stages and tests.
        """
        return self.hash_of(self.task, {f.name: self.fold_hash(f) for f in self.folds})

    @staticmethod
    def hash_of(task: Task, folds: Mapping[str, str]) -> str:
        """The plan's hash from those of its folds, in their order."""
        return digest([task.describe(), [[name, value] for name, value in folds.items()]])

    @functools.cached_property
    def audio_hash(self) -> str:
        """SHA-256 (64 hex digits) of the decoded audio of every fold in order."""
        return self.audio_hash_of({f.name: self.fold_audio_hash(f) for f in self.folds})

    @staticmethod
    def audio_hash_of(folds: Mapping[str, str]) -> str:
        """The plan's audio hash from those of its folds, in their order."""
        return digest([[name, value] for name, value in folds.items()])

    # ---- its audit --------------------------------------------------------------------------

    def audit(self) -> dict[str, Any]:
        """Who and what stands on more than one side, see `audit_rows`."""
        return audit_rows(
            {fold.name: self.rows(fold) for fold in self.folds},
            declared=self.protocol.declared,
            unknown_speakers=self.protocol.unknown_speakers,
            duplicates=self.duplicates,
        )

    def check_leaks(self) -> None:
        """Stop a run that would leak, or that is said to leak and does not.

        Raises:
            UserError: naming the folds and what they share.
        """
        audit, name = self.audit(), self.protocol.name
        if leaks := audit["leaks"]:
            raise UserError(
                f"protocol {name} leaks on this corpus: {'; '.join(leaks[:5])}"
                f"{f'; and {len(leaks) - 5} more' if len(leaks) > 5 else ''}. Use a protocol whose "
                "folds keep speakers apart (for a manifest: manifest-speakers); only one that says "
                "'leaks' in its name may run on published folds that do not"
            )
        if audit["clean"] and "leaking" in audit:
            raise UserError(
                f"protocol {name} says that it leaks, but no speaker of a test is on another side: "
                "take the one without 'leaks' in its name"
            )

    # ---- making one -------------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        task: Task,
        utterances: Sequence[Utterance],
        *,
        audio: Mapping[str, str] | None = None,
        seconds: Mapping[str, float] | None = None,
        allow_incomplete: bool = False,
    ) -> Plan:
        """The plan of a protocol on all utterances of its corpora, in any order.

        Args:
            allow_incomplete: go on with corpora that lack utterances or differ from the published
                counts. The plan is then not ``complete`` and has another hash.

        Raises:
            UserError: lists everything that does not fit, see `resolving.resolve`.
        """
        resolved = resolve(protocol, utterances, task, allow_incomplete)
        by_key: dict[tuple[str, str], Example] = {}  # one object each, however many folds

        def examples(part: Iterable[Utterance], view: str) -> tuple[Example, ...]:
            return tuple(by_key.setdefault((u.uid, view), Example(u, view)) for u in part)

        def fold(sides: Sides) -> Fold:
            stages = [
                Stage(
                    spec.name, examples(train, spec.view), examples(dev, spec.view),
                    spec.method, spec.freeze, spec.keys,
                )
                for spec, train, dev in sides.stages
            ]  # fmt: skip
            tests = {n: examples(part, sides.spec.view) for n, part in sides.tests.items()}
            blind = {n: examples(part, sides.spec.view) for n, part in sides.unscored.items()}
            return Fold(sides.spec.name, tuple(stages), tests, blind)

        folds = tuple(fold(sides) for sides in resolved.folds)
        return cls(
            protocol=protocol,
            task=task,
            folds=folds,
            audio=audio or {},
            seconds=seconds or {},
            missing=resolved.missing,
            dropped=resolved.dropped,
            complete=not resolved.gaps,
            warnings=(*resolved.notes, *cautions(protocol, folds, task)),
            duplicates=tuple(
                tuple(f"{corpus}/{name}" for name in group)
                for corpus in protocol.corpora
                if corpus in CORPORA
                for group in CORPORA[corpus].duplicates
            ),
        )

    def with_audio(self, audio: Mapping[str, str], seconds: Mapping[str, float]) -> Plan:
        """The same plan, with what reading the audio gave."""
        return dataclasses.replace(self, audio=audio, seconds=seconds)

    def counts(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        """Examples per fold, part, set and class, zeros included; no classes: nothing per set.

        Unscored tests have none.
        """
        classes = self.task.classes
        table: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for fold in self.folds:
            parts: dict[str, dict[str, dict[str, int]]] = {part: {} for part in PARTS}
            for part, name, examples in fold.parts():
                if part == UNSCORED:
                    continue
                have = Counter(self.task.class_of(e.utterance) for e in examples)
                parts[part][name] = {c: have[c] for c in classes}
            table[fold.name] = parts
        return table
