"""A run: every chosen fold and seed is trained, tested and written down, a finished one only once.

A fold is the unit of work: one process claims it, trains it and writes its folder; several
processes with one command share the folds among them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.records.folds import fold_folder, read_fold
from emopeft.downstream.records.record import write_record
from emopeft.downstream.runs.probing import train_folds
from emopeft.downstream.runs.session import Session, open_session
from emopeft.downstream.runs.stages import train_fold
from emopeft.downstream.runs.work import Outcome, Work
from emopeft.downstream.runs.write import write_failed, write_finished
from emopeft.downstream.training.interruption import graceful
from emopeft.downstream.training.selection import Diverged
from emopeft.errors import UserError
from emopeft.files import Busy, digest, locked

logger = logging.getLogger(__name__)


def run(recipe: Recipe, command: str, recipe_file: Path | None = None) -> dict[str, Any]:
    """Run a recipe; returns the record. Raises UserError for whatever is wrong with the input.

    A fold whose training diverged, or for which memory was too small, is written as failed with
    the reason, and the others go on; the same command tries it again.

    Args:
        command: what repeats it; recipe_file: where the recipe was read from. Both are recorded.
    """
    with graceful():
        session = open_session(recipe, command, recipe_file)
        with _claimed(session, _todo(session)) as todo:
            share = 1 / max(1, len(todo))  # of what all folds of this call needed once
            for work, outcome in _trained(session, todo):
                if not session.accelerator.is_main_process:
                    continue
                if isinstance(outcome, Outcome):
                    write_finished(session, work, outcome, share)
                else:
                    logger.warning("%s failed: %s", work.label, outcome)
                    write_failed(session, work, str(outcome), share)
        session.accelerator.wait_for_everyone()
        record: dict[str, Any] = {}
        if session.accelerator.is_main_process:
            with locked(session.folder / ".record.lock", wait=60):
                record = write_record(session.folder)
        return record


def _trained(session: Session, todo: Sequence[Work]) -> Iterator[tuple[Work, Outcome | Exception]]:
    """Each fold with what its training gave, or why it failed."""
    if todo and session.is_probe:
        yield from train_folds(session, todo)
        return
    for work in todo:
        try:
            yield work, train_fold(session, work)
        except Diverged as error:
            yield work, error
        except torch.OutOfMemoryError as error:
            reason = str(error).partition("\n")[0][:300]
            yield (
                work,
                UserError(
                    f"memory was too small ({reason}); lower train.batch_seconds, or set "
                    "train.checkpointing=true"
                ),
            )
        session.accelerator.free_memory()
        session.accelerator.wait_for_everyone()


def _todo(session: Session) -> list[Work]:
    """The chosen folds and seeds that are not finished."""
    todo = []
    for seed in session.recipe.seeds:
        for fold in session.plan.choose(session.recipe.folds):
            place = fold_folder(session.folder, fold.name, seed)
            if not _finished(session, place):
                todo.append(Work(fold, seed, place))
    return todo


def _finished(session: Session, place: Path) -> bool:
    """Whether a fold is there; raises UserError where another run wrote it."""
    result = read_fold(place)
    if result is None or not result.finished:
        return False
    if digest(result.facts.identity) != digest(session.identity):
        raise UserError(
            f"{place} was trained by another run than {session.folder / 'identity.json'} says; "
            "delete it to train this fold again"
        )
    return True


@contextlib.contextmanager
def _claimed(session: Session, todo: list[Work]) -> Iterator[list[Work]]:
    """Those of the folds that no other process trains; they are ours until the end of the block.

    The first of several ranks decides for all of them.
    """
    with contextlib.ExitStack() as locks:
        own: list[int] = []
        if session.accelerator.is_main_process:
            for number, work in enumerate(todo):
                try:
                    locks.enter_context(locked(work.place / ".lock"))
                except Busy:
                    logger.warning("%s is being trained by another process", work.label)
                    continue
                if not _finished(session, work.place):  # by another, a moment ago
                    own.append(number)
        if session.accelerator.num_processes > 1:
            chosen = broadcast_object_list([own])
            own = chosen[0]
        yield [todo[number] for number in own]
