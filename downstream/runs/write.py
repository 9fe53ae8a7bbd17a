"""A trained fold is written down: checkpoint, predictions, and every fact about how they came."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from emopeft.downstream.data.fold import Example
from emopeft.downstream.models.checkpoint import write_adapter
from emopeft.downstream.records.folds import write_fold
from emopeft.downstream.records.predictions import DEV, Prediction, not_finite
from emopeft.downstream.runs.facts import adapter_config, fold_facts, last_stage, probe_facts
from emopeft.downstream.runs.session import Session
from emopeft.downstream.runs.unscored import unscored_rows, write_submissions
from emopeft.downstream.runs.work import Outcome, Work
from emopeft.downstream.tasks.base import rows_of
from emopeft.numerics import peak_memory


def write_finished(session: Session, work: Work, outcome: Outcome, share: float) -> None:
    """Write a fold's folder; its progress is no longer needed.

    Args:
        share: of what the folds of this call needed once (loading, frozen part).
    """
    tables = {
        name: _table(session, examples, outcome.tests[name])
        for name, examples in work.fold.tests.items()
    }
    last = last_stage(work, outcome)
    dev = _table(session, last.dev, outcome.dev)
    tested = [p for n, e in work.fold.tests.items() for p in _rows(work, n, e, tables[n])]
    developed = _rows(work, DEV, last.dev, dev)
    unscored = unscored_rows(session, work, outcome)
    moments = _moments(session, work, outcome)
    other = [row for rows, _ in moments.values() for row in rows]
    diverged = not_finite([*tested, *developed, *unscored, *other], session.task)
    if diverged:
        write_failed(session, work, diverged, share)
        return
    # What is written is counted from what is written.
    outcome.last.fit.best = session.task.measure(dev)
    facts = fold_facts(session, work, outcome, share) | {
        "status": "finished",
        "reason": None,
        "peak_memory_bytes": outcome.peak,
        "metrics": {name: session.task.measure(table) for name, table in tables.items()},
    }
    facts["seconds"] |= {"test": outcome.tested}
    if outcome.probe is not None:
        facts["probe"] = probe_facts(session, outcome.probe)
    if "transfer" in facts:
        facts["transfer"] |= {"moments": {moment: of for moment, (_, of) in moments.items()}}
    kept = dataclasses.replace(last, method=outcome.last.method or last.method)
    write_adapter(work.place, outcome.last.state, adapter_config(session, work, kept))
    write_submissions(session, work, unscored)
    write_fold(
        work.place, facts, session.plan.rows(work.fold), tested, developed, unscored,
        {moment: rows for moment, (rows, _) in moments.items()},
    )  # fmt: skip
    work.clear()


def _moments(
    session: Session, work: Work, outcome: Outcome
) -> dict[str, tuple[list[Prediction], dict[str, Any]]]:
    """Rows and measures of the tests at each moment of a transfer, beside its end."""
    found = {}
    for moment, outputs in (outcome.transfer.moments if outcome.transfer else {}).items():
        tables = {n: _table(session, e, outputs[n]) for n, e in work.fold.tests.items()}
        rows = [p for n, e in work.fold.tests.items() for p in _rows(work, n, e, tables[n])]
        found[moment] = rows, {n: session.task.measure(table) for n, table in tables.items()}
    return found


def write_failed(session: Session, work: Work, reason: str, share: float) -> None:
    """Write that a fold failed, and why."""
    facts = fold_facts(session, work, None, share) | {
        "status": "failed",
        "reason": reason,
        "peak_memory_bytes": peak_memory(),
        "metrics": {},
    }
    write_fold(work.place, facts, session.plan.rows(work.fold))
    work.clear()


def _table(session: Session, examples: Sequence[Example], outputs: Tensor) -> dict[str, list[Any]]:
    targets = session.examples.targets[session.indices(tuple(examples))]
    return session.task.table(outputs, targets)


def _rows(
    work: Work, test: str, examples: Iterable[Example], table: dict[str, list[Any]]
) -> list[Prediction]:
    return [
        Prediction(
            id=e.key, fold=work.fold.name, seed=work.seed, test=test,
            speaker=e.utterance.speaker_uid, traits=e.utterance.all_traits(), values=values,
        )
        for e, values in zip(examples, rows_of(table), strict=True)
    ]  # fmt: skip
