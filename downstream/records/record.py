"""The record of a run: made of its fold folders, written, read, made again and compared.

::

    RUN/fold1_seed0/...                  one folder per fold and seed, see folds.py
    RUN/predictions.csv                  the tests of all finished folds, see predictions.py
    RUN/unscored.csv                     their unscored tests, where they have any
    RUN/result.json                      `RecordFacts`; written last

Nothing in result.json is believed: what is shown and ranked is the record made again. Imports no
torch.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.records import record_v1
from emopeft.downstream.records.checks import FoldResult, by_test, same, short
from emopeft.downstream.records.making import RESULT, TABLE, UNSCORED_TABLE, read_run
from emopeft.downstream.records.predictions import LARGEST
from emopeft.downstream.records.record_schema import RecordFacts
from emopeft.downstream.records.values import parse_moment
from emopeft.downstream.tasks.base import Task
from emopeft.files import read_json, read_text, write_text, writing
from emopeft.validation import validated

LATER = (
    "pooled",
    "speakers",
    "by_corpus",
)  # which records of this schema had not from the beginning
EARLY = datetime.timedelta(days=1)  # clocks and zones differ; beyond it a date is in the future


@dataclasses.dataclass(frozen=True)
class Checked:
    """A record, made again from its fold folders.

    Attributes:
        data: as `RecordFacts` has it; of schema 1 what it can say in that form.
        problems: why it is not to be believed, one sentence each; none of an honest one.
        warnings: what a reader should know.
        folds: as they were read; none of schema 1.
    """

    folder: Path
    task: Task
    data: dict[str, Any]
    problems: list[str]
    warnings: list[str]
    folds: Sequence[FoldResult] = ()


def make_record(run: Path) -> dict[str, Any]:
    """The record over all folds of the folder that ended; raises UserError as `read_run`."""
    return read_run(run).record


def write_record(run: Path) -> dict[str, Any]:
    """Make the record and write it, the merged tables first; returns it.

    Raises:
        UserError: a fold folder that is damaged or of another run, or a file that cannot be
            written.
    """
    contents = read_run(run)
    text = json.dumps(contents.record, indent=2, ensure_ascii=False, allow_nan=False)
    with writing(run / RESULT) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
        (run / RESULT).unlink(missing_ok=True)  # no moment shows it beside other predictions
        write_text(run / TABLE, contents.table())
        if (unscored := contents.unscored_table()) is not None:
            write_text(run / UNSCORED_TABLE, unscored)
    return contents.record


def read_record(run: Path) -> dict[str, Any]:
    """result.json, checked for itself alone, in the form of schema 2; reads schema 1, too.

    Raises UserError naming file and key.
    """
    path = run / RESULT
    data = read_json(path)
    if record_v1.is_one(data):
        return record_v1.converted(record_v1.read(path, data))
    return validated(str(path), RecordFacts, data).to_json()


def verify(run: Path, now: datetime.datetime | None = None) -> list[str]:
    """What is wrong with a record, one sentence each; none when all agrees.

    Raises UserError when its files cannot be read.
    """
    return examine(run, now).problems


def examine(run: Path, now: datetime.datetime | None = None) -> Checked:
    """Make a record again and compare.

    Plan hashes, identity, audit, predictions, summary and costs are computed anew from the fold
    folders; numbers may differ by 1e-9. A record of schema 1 has none of these but predictions,
    and is counted again from them.

    Args:
        now: the present (tests set it).

    Raises:
        UserError: files that are missing, damaged, or contradict each other.
    """
    path = run / RESULT
    data = read_json(path)
    if record_v1.is_one(data):
        old = record_v1.read(path, data)
        task, view, problems, warnings = record_v1.examined(run, old)
        return Checked(run, task, view, problems, [*warnings, *_in_future(view, now)])
    recorded = validated(str(path), RecordFacts, data).to_json()
    contents = read_run(run)
    made = {k: v for k, v in contents.record.items() if k in data or k not in LATER}
    recorded = {k: v for k, v in recorded.items() if k in data or k not in LATER}
    problems = [
        f"{RESULT} says {where} = {short(recorded_value)}, its folds give {short(counted_value)}"
        for where, recorded_value, counted_value in differences(recorded, made)
    ][:20]
    if not problems and read_text(run / TABLE, LARGEST) != contents.table():
        problems.append(f"its {TABLE} is not that of its folds")
    unscored = None if problems else contents.unscored_table()
    if unscored is not None and read_text(run / UNSCORED_TABLE, LARGEST) != unscored:
        problems.append(f"its {UNSCORED_TABLE} is not that of its folds")
    problems += contents.record["audit"]["leaks"]
    warnings = [*_in_future(contents.record, now), *_copied_seeds(contents.folds)]
    audit = contents.record["audit"]
    if leaking := audit.get("leaking"):
        warnings.append(
            f"it leaks, as its protocol's name says: {len(leaking)} test speakers are trained on"
        )
    unknown = audit["unknown"]
    if unknown:
        warnings.append(
            f"the speakers of {unknown} utterances are unknown: nobody can tell whether they leak"
        )
    return Checked(run, contents.task, contents.record, problems, warnings, contents.folds)


def differences(one: Any, other: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: (key path, one, other), deepest."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys([*one, *other]):
            place = f"{where}.{name}" if where else str(name)
            if name in one and name in other:
                yield from differences(one[name], other[name], place)
            else:
                yield place, one.get(name), other.get(name)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{where}.{number}")
    elif not same(one, other):
        yield where, one, other


def _in_future(record: Mapping[str, Any], now: datetime.datetime | None) -> list[str]:
    now = datetime.datetime.now(datetime.timezone.utc) if now is None else now
    if parse_moment(record["created"]) > now + EARLY:
        return [f"it was created in the future ({record['created']})"]
    return []


def _copied_seeds(folds: Sequence[FoldResult]) -> list[str]:
    """Two seeds of a fold with the same predictions bit for bit: one training under two names."""
    first_seed: dict[Any, int] = {}
    copies = []
    for fold in folds:
        if not fold.finished:
            continue
        rows = [(test, [r.values for r in of]) for test, of in by_test(fold.tests).items()]
        key = fold.facts.fold, repr(rows)
        other = first_seed.setdefault(key, fold.facts.seed)
        if other != fold.facts.seed:
            copies.append(
                f"fold {fold.facts.fold}: seeds {other} and {fold.facts.seed} have the same "
                "predictions bit for bit, as if one had been copied"
            )
    return copies
