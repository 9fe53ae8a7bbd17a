"""What spoils the numbers of a plan without being an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from emopeft.downstream.data.rows import UNSCORED
from emopeft.downstream.protocols.protocol import Protocol
from emopeft.downstream.protocols.rules import some

if TYPE_CHECKING:
    from emopeft.downstream.data.fold import Fold
    from emopeft.downstream.tasks.base import Task


def cautions(protocol: Protocol, folds: Sequence[Fold], task: Task) -> Iterator[str]:
    """What spoils dev or test numbers without being an error: too few classes or speakers.

    Where a protocol's own lists name speakers, one of them in a part is what was asked for.
    """
    here = {e.utterance.corpus for fold in folds for e in fold.examples()}
    if absent := [corpus for corpus in protocol.corpora if corpus not in here]:
        yield (
            f"{', '.join(absent)} of the protocol's {len(protocol.corpora)} corpora take no part: "
            "these are not its numbers"
        )
    classes = task.classes
    few: dict[str, list[str]] = {}
    strangers: set[str] = set()
    labelled: dict[str, set[str]] = {}
    for fold in folds:
        for part, name, examples in fold.parts():
            speakers = {e.utterance.speaker_uid for e in examples}
            strangers |= {e.uid for e in examples if not e.utterance.speaker}
            if part == UNSCORED:
                found = {e.uid for e in examples if task.target(e.utterance) is not None}
                labelled.setdefault(name, set()).update(found)
            if part in ("train", UNSCORED):
                continue
            where = part if name in ("train", "test") else f"{part} '{name}'"
            if len(speakers) < 2 and "" not in speakers and protocol.unit != "speaker":
                few.setdefault(where, []).append(fold.name)
            present = {task.class_of(e.utterance) for e in examples}
            if lacking := [c for c in classes if c not in present]:
                yield (
                    f"the {where} part of fold {fold.name} has no utterance of {some(lacking)}: "
                    f"its numbers are over {len(classes) - len(lacking)} of {len(classes)} classes"
                )
    for where, names in few.items():
        yield (
            f"the {where} part of fold{'s' * (len(names) > 1)} {some(names, 12)} has one speaker: "
            "what is measured there may be true of that voice only"
        )
    for name, found in labelled.items():
        if found:
            yield (
                f"{len(found)} utterances of the test '{name}' have a target in this corpus: the "
                "protocol has the test unscored, and none of them is used"
            )
    if "test" in protocol.declared:
        yield from _leaking(folds)
    if strangers:
        yield (
            f"{len(strangers)} utterances have no known speaker: whether speakers are apart cannot "
            "be known"
        )


def _leaking(folds: Sequence[Fold]) -> Iterator[str]:
    """How many speakers of the tests are on another side, where the protocol says so."""
    tested: set[str] = set()
    leaking: set[str] = set()
    for fold in folds:
        sides: dict[bool, set[str]] = {True: set(), False: set()}
        for part, _, examples in fold.parts():
            sides[part in ("test", UNSCORED)] |= {e.utterance.speaker_uid for e in examples} - {""}
        tested |= sides[True]
        leaking |= sides[True] & sides[False]
    if leaking:
        yield (
            f"{len(leaking)} of {len(tested)} test speakers are trained on: the folds leak as "
            "published, and how a model does on new voices is not what they measure"
        )
