"""What spoils the numbers of a plan without being an error; and the classes of a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.protocol import Protocol
from emopeft.downstream.protocols.rules import some

if TYPE_CHECKING:
    from emopeft.downstream.data.fold import Fold
    from emopeft.downstream.tasks.base import Task


def classes_of(task: Task) -> tuple[str, ...] | None:
    """The classes that targets are distributions over; None where they are something else."""
    for column in task.columns:
        if column.role == "truth" and column.classes is not None:
            return column.classes
    return None


def class_of(task: Task, utterance: Utterance) -> str | None:
    """The most likely class of an utterance's target; None where targets are something else."""
    classes, target = classes_of(task), task.target(utterance)
    if not classes or target is None:
        return None
    return classes[max(range(len(classes)), key=target.__getitem__)]


def cautions(protocol: Protocol, folds: Sequence[Fold], task: Task) -> Iterator[str]:
    """What spoils dev or test numbers without being an error: too few classes or speakers.

    Where a protocol's own lists name speakers, one of them in a part is what was asked for.
    """
    classes = classes_of(task) or ()
    few: dict[str, list[str]] = {}
    strangers: set[str] = set()
    for fold in folds:
        for part, name, examples in fold.parts():
            speakers = {e.utterance.speaker_uid for e in examples}
            strangers |= {e.uid for e in examples if not e.utterance.speaker}
            if part == "train":
                continue
            where = part if name in ("train", "test") else f"{part} '{name}'"
            if len(speakers) < 2 and "" not in speakers and protocol.unit != "speaker":
                few.setdefault(where, []).append(fold.name)
            present = {class_of(task, e.utterance) for e in examples}
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
    if strangers:
        yield (
            f"{len(strangers)} utterances have no known speaker: whether speakers are apart cannot "
            "be known"
        )
