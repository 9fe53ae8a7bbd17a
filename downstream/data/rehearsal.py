"""Rehearsal: some clips of the source's training part are trained on in the target stage, too."""

from __future__ import annotations

from collections.abc import Sequence

from emopeft.downstream.data.fold import Example
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError
from emopeft.files import digest


def rehearsed(examples: Sequence[Example], task: Task, count: int, seed: int) -> list[Example]:
    """``count`` examples of each class, or all of a class that has fewer, in the order of
    ``examples``; each keeps its weight.

    Which ones depends on seed and names alone: within a class those whose digest of seed and name
    is lowest. More of them are those and others.

    Raises UserError where the task has no classes.
    """
    if not task.classes:
        raise UserError(
            f"transfer.rehearsal counts clips per class, and task {task.name} has none; set it to 0"
        )
    by_class: dict[str | None, list[Example]] = {}
    for example in examples:
        by_class.setdefault(task.class_of(example.utterance), []).append(example)
    by_class.pop(None, None)
    chosen = {
        example.key
        for own in by_class.values()
        for example in sorted(own, key=lambda e: (digest([seed, e.key]), e.key))[:count]
    }
    return [example for example in examples if example.key in chosen]
