"""What is written of tests without targets: predictions, also as a challenge takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from emopeft.downstream.records.predictions import Prediction, predictions_of, untold
from emopeft.downstream.records.submissions import files_of
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.work import Outcome, Work
from emopeft.downstream.tasks.base import Task
from emopeft.files import write_text


def blind_table(task: Task, outputs: Tensor) -> dict[str, list[Any]]:
    """The task's columns of outputs (utterances, outputs), the truths empty."""
    table = task.table(outputs, outputs.new_zeros(len(outputs), len(task.target_names)))
    return table | {name: [empty] * len(outputs) for name, empty in untold(task).items()}


def unscored_rows(session: Session, work: Work, outcome: Outcome) -> list[Prediction]:
    """The rows of a fold's unscored.csv."""
    return [
        row
        for test, examples in work.fold.unscored.items()
        for row in predictions_of(
            examples,
            blind_table(session.task, outcome.unscored[test]),
            work.fold.name,
            work.seed,
            test,
        )
    ]


def write_submissions(session: Session, work: Work, rows: list[Prediction]) -> None:
    """Write FOLD/submission_<test>_<file>.csv, where the protocol names a challenge's format."""
    audio = {e.key: e.utterance.path for of in work.fold.unscored.values() for e in of}
    for file in files_of(session.plan.protocol.submission, session.task):
        for test in work.fold.unscored:
            own: list[tuple[Path, Prediction]] = [(audio[r.id], r) for r in rows if r.test == test]
            write_text(work.place / f"submission_{test}_{file.name}.csv", file.text(own))
