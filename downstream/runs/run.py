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
from emopeft.downstream.runs.probing import Job, train_folds
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
        todo = todo_of(session)
        check_stages(session, todo)
        share = 1 / max(1, len(todo))  # of what all folds of this call needed once
        for (_, work), outcome in trained([(session, work) for work in todo]):
            write_down(session, work, outcome, share)
        return recorded(session)


def write_down(session: Session, work: Work, outcome: Outcome | Exception, share: float) -> None:
    """Write a fold's folder, finished or failed; ``share`` as `write_finished` has it."""
    if not session.accelerator.is_main_process:
        return
    if isinstance(outcome, Outcome):
        write_finished(session, work, outcome, share)
    else:
        logger.warning("%s failed: %s", work.label, outcome)
        write_failed(session, work, str(outcome), share)


def recorded(session: Session) -> dict[str, Any]:
    """Write the record over the folds that ended; empty where there is none yet, and for all ranks
    but the first."""
    session.accelerator.wait_for_everyone()
    if not session.accelerator.is_main_process or not fold_folders(session.folder):
        return {}
    with locked(session.folder / ".record.lock", wait=60):
        return write_record(session.folder)


def trained(jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome | Exception]]:
    """Each fold that no other process trains, with what its training gave, or why it failed; of one
    session, or of several that differ in their heads alone."""
    if jobs and jobs[0][0].is_probe:  # all of them at once
        with contextlib.ExitStack() as claims:
            ours = [job for job in jobs if claims.enter_context(_claimed(*job))]
            if ours:
                yield from train_folds(ours)
        return
    for job in jobs:
        with _claimed(*job) as free:
            if free:
                yield job, _train(*job)


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


def todo_of(session: Session) -> list[Work]:
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
