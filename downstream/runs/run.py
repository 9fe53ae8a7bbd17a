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
from emopeft.downstream.records.folds import fold_folder, fold_folders, read_fold
from emopeft.downstream.records.record import write_record
from emopeft.downstream.runs.origin import check_origin
from emopeft.downstream.runs.probing import train_folds
from emopeft.downstream.runs.session import Session, open_session
from emopeft.downstream.runs.stages import check_stages, train_fold
from emopeft.downstream.runs.starting import start_of
from emopeft.downstream.runs.work import Outcome, Work
from emopeft.downstream.runs.write import write_failed, write_finished
from emopeft.downstream.training.interruption import graceful
from emopeft.downstream.training.selection import Diverged
from emopeft.errors import UserError
from emopeft.files import Busy, digest, locked

logger = logging.getLogger(__name__)


def run(recipe: Recipe, command: str, recipe_file: Path | None = None) -> dict[str, Any]:
    """Run a recipe; returns the record (empty while other processes train all of its folds).

    Raises UserError for whatever is wrong with the input.

    A fold whose training diverged, or for which memory was too small, is written as failed with
    the reason, and the others go on; the same command tries it again.

    Args:
        command: what repeats it; recipe_file: where the recipe was read from. Both are recorded.
    """
    with graceful():
        session = open_session(recipe, command, recipe_file)
        todo = _todo(session)
        check_stages(session, todo)
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
        if not session.accelerator.is_main_process or not fold_folders(session.folder):
            return {}
        with locked(session.folder / ".record.lock", wait=60):
            return write_record(session.folder)


def _trained(session: Session, todo: Sequence[Work]) -> Iterator[tuple[Work, Outcome | Exception]]:
    """Each fold that no other process trains, with what its training gave, or why it failed."""
    if todo and session.is_probe:  # all of them at once
        with contextlib.ExitStack() as claims:
            yield from train_folds(
                session, [w for w in todo if claims.enter_context(_claimed(session, w))]
            )
        return
    for work in todo:
        with _claimed(session, work) as ours:
            if ours:
                yield work, _train(session, work)


def _train(session: Session, work: Work) -> Outcome | Exception:
    try:
        return train_fold(session, work, start_of(session, work))
    except Diverged as error:
        return error
    except torch.OutOfMemoryError as error:
        reason = str(error).partition("\n")[0][:300]
        return UserError(
            f"memory was too small ({reason}); lower train.batch_seconds, or set "
            "train.checkpointing=true"
        )
    finally:
        session.accelerator.free_memory()


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
    check_origin(session, place, result)
    return True


@contextlib.contextmanager
def _claimed(session: Session, work: Work) -> Iterator[bool]:
    """Whether the fold is ours until the end of the block: no other process trains it, or has
    finished it a moment ago. The first of several ranks decides for all of them."""
    with contextlib.ExitStack() as lock:
        ours = False
        if session.accelerator.is_main_process:
            try:
                lock.enter_context(locked(work.place / ".lock"))
                ours = not _finished(session, work.place)
            except Busy:
                logger.warning("%s is being trained by another process", work.label)
        if session.accelerator.num_processes > 1:
            (ours,) = broadcast_object_list([ours])
        yield ours
