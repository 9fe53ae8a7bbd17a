"""conditions.csv and conditions.json: written all or nothing, read with suspicion."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emopeft.downstream.records import conditions as files
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.conditions import read_conditions, write_conditions
from emopeft.downstream.records.folds import read_fold
from emopeft.downstream.records.record import examine
from emopeft.downstream.views.base import parse_view
from emopeft.errors import UserError
from tests.calls import read
from tests.records.cases import make_record, make_rows
from tests.records.condition_cases import add_conditions, give_checkpoint, make_condition

NOISY, PHONE, SHORT = "noise:snr=0", "telephone", "excerpt:seconds=1,at=end"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A fold that was tested in three conditions."""
    make_record(tmp_path / "run")
    return add_conditions(tmp_path / "run", "1", {NOISY: 4, PHONE: 6, SHORT: 8})


def recorded(folder: Path) -> FoldResult:
    fold = read_fold(folder)
    assert fold is not None
    return fold


def views(folder: Path) -> list[str]:
    return [c.facts.view for c in read_conditions(folder, recorded(folder))]


def test_what_is_written_is_read_and_the_record_is_the_same(folder: Path) -> None:
    before = examine(folder.parent)
    assert before.problems == []
    found = read_conditions(folder, recorded(folder))
    assert [sum(r.values["truth"] == r.values["prediction"] for r in c.rows) for c in found] == [
        4, 6, 8,
    ]  # fmt: skip
    assert [r.id for r in found[2].rows] == [f"toy/f1_u{i}@{SHORT}" for i in range(8)]
    write_conditions(folder, recorded(folder).task, found)
    assert read_conditions(folder, recorded(folder)) == found
    for name in (files.FACTS, files.ROWS):
        (folder / name).unlink()
    assert read_conditions(folder, recorded(folder)) == []
    assert examine(folder.parent).data == before.data


def test_a_condition_over_the_view_of_the_plan() -> None:
    assert files.over("telephone", parse_view(NOISY)).spelling == f"telephone+{NOISY}"
    assert files.over("clean", parse_view(NOISY)).spelling == NOISY


def test_a_checkpoint_is_known_by_all_but_its_place(folder: Path) -> None:
    assert files.checkpoint_digest(folder) is None
    one = give_checkpoint(folder)
    config = folder / "adapter.json"
    config.write_text(config.read_text().replace("/here", "/there"))
    assert files.checkpoint_digest(folder) == one
    config.write_text(config.read_text().replace('"x"', '"y"'))
    assert files.checkpoint_digest(folder) != one
    assert give_checkpoint(folder, "others") != one


@pytest.mark.parametrize("stopped", ["table", "facts"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_write_that_is_stopped_leaves_what_is_true(
    folder: Path, stopped: str, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the table, and between it and the facts: one is added, or has other rows."""
    fold = recorded(folder)
    kept = read_conditions(folder, fold)
    new = make_condition(make_rows("1", 0, 2), NOISY if replaced else "mp3:kbps=16", fold.task)
    wanted = [new, *kept[1:]] if replaced else [*kept, new]
    name = "write_text" if stopped == "table" else "_write_facts"
    original, calls = getattr(files, name), []

    def stop(*arguments: Any) -> None:
        calls.append(arguments)
        if stopped == "table" or len(calls) == 1 + replaced:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, name, stop)
        write_conditions(folder, fold.task, wanted)
    assert read_conditions(folder, fold) == (kept[1:] if replaced else kept)
    write_conditions(folder, fold.task, wanted)
    assert read_conditions(folder, fold) == wanted


def test_rows_of_no_condition_count_for_nothing(folder: Path) -> None:
    """Those of one that was stopped before its facts were written."""
    edit(folder, lambda data: data["conditions"].pop())
    assert views(folder) == [NOISY, PHONE]


# ---- what others wrote --------------------------------------------------------------------------


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = read(folder / files.FACTS)
    change(data)
    (folder / files.FACTS).write_text(json.dumps(data))


def facts(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, lambda data: data["conditions"][0].update(changes))


def table(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """Rewrite the lines of the table; that of the header is the first."""

    def changed(folder: Path) -> None:
        path = folder / files.ROWS
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return changed


def row(pattern: str, other: str) -> Callable[[Path], None]:
    """Replace something in the first row."""
    return table(lambda rows: [rows[0], re.sub(pattern, other, rows[1], count=1), *rows[2:]])


def swapped(rows: list[str]) -> list[str]:
    """The rows of the noise under the telephone's name, and the other way round."""
    other = {NOISY: PHONE, PHONE: NOISY}
    return [re.sub("|".join(other), lambda found: other[found[0]], line) for line in rows]


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row is gone": (table(lambda r: r[:1] + r[2:]), "noise:snr=0: test predicts"),
    "a row stands twice": (table(lambda r: [*r, r[1]]), "stands twice in conditions.csv"),
    "a speaker": (row("toy/sf1,", "toy/x,"), "the speaker of .* is not the plan's"),
    "a truth": (row(",neutral,", ",sad,"), "the truth of .* is not the plan's"),
    "another seed": (row(",1,0,test", ",1,7,test"), "another fold or seed"),
    "another test": (row(",1,0,test", ",1,0,other"), "noise:snr=0: test predicts"),
    "two views are swapped": (table(swapped), "of noise:snr=0 .* not those that it was made with"),
    "a score": (row("0.6,", "0.60001,"), "not those that it was made with"),
    "no table": (lambda f: (f / files.ROWS).unlink(), "conditions.csv does not exist"),
    "a hash": (facts(predictions="0" * 64), "not those that it was made with"),
    "a number of clips": (facts(clips={"test": 7}), "'clips' are not those of its tests"),
    "clips of no test": (facts(clips={"test": 8, "x": 0}), "'clips' are not those of its tests"),
    "a view that is none": (facts(view="nois"), "unknown transformation 'nois'"),
    "the clean view": (facts(view="clean"), "there are no predictions of test"),
    "a view that has no rows": (facts(view="mp3:kbps=8"), "there are no predictions of test"),
    "no transformation": (facts(transforms=[]), "at least 1"),
    "an unknown key": (facts(more=1), "unknown key 'conditions.0.more'"),
    "a time that is none": (facts(created="yesterday"), "conditions.0.created"),
    "seconds that are none": (facts(seconds={"features": -1, "test": 0.0}), "seconds.features"),
    "another fold": (lambda f: edit(f, lambda d: d.update(fold="2")), "it is of fold 2, seed 0"),
    "another schema": (lambda f: edit(f, lambda d: d.update(schema=2)), "key 'schema'"),
    "true for a schema": (lambda f: edit(f, lambda d: d.update(schema=True)), "key 'schema'"),
    "a view twice": (
        lambda f: edit(f, lambda d: d["conditions"].append(d["conditions"][0])), "twice",
    ),
    "not JSON": (lambda f: (f / files.FACTS).write_text("{"), "not valid JSON"),
    "a list": (lambda f: (f / files.FACTS).write_text("[]"), "conditions.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_tampered_files_are_refused(folder: Path, what: str) -> None:
    change, message = TAMPERED[what]
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        views(folder)
    assert str(folder) in str(caught.value)


def test_conditions_of_another_fold_are_refused(tmp_path: Path) -> None:
    make_record(tmp_path / "run")
    one = add_conditions(tmp_path / "run", "1", {PHONE: 6})
    other = one.with_name("fold2_seed0")
    for name in (files.FACTS, files.ROWS):
        (other / name).write_bytes((one / name).read_bytes())
    edit(other, lambda data: data.update(fold="2"))
    with pytest.raises(UserError, match="there are no predictions of test"):
        views(other)


def test_a_text_that_a_spreadsheet_would_compute_is_guarded(folder: Path) -> None:
    fold = recorded(folder)
    one = read_conditions(folder, fold)[0]
    rows = [dataclasses.replace(r, traits={"sex": "=1+1"}) for r in one.rows]
    assert files.rows_digest(rows, fold.task) != files.rows_digest(one.rows, fold.task)
    said = one.facts.model_copy(update={"predictions": files.rows_digest(rows, fold.task)})
    write_conditions(folder, fold.task, [files.Condition(said, rows)])
    assert "'=1+1" in (folder / files.ROWS).read_text()
    assert read_conditions(folder, fold)[0].rows[0].traits == {"sex": "=1+1"}
