"""Files that nobody vouches for: whatever stands in them, one sentence or the same result."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emopeft.downstream.records.record import examine
from emopeft.errors import UserError
from emopeft.leaderboard.gather import gather
from emopeft.leaderboard.render import as_json, markdown, terminal
from tests.records.cases import make_record
from tests.records.cases_v1 import make_record_v1

FEW = settings(
    max_examples=int(os.environ.get("EXAMPLES", "40")),
    deadline=5000,  # milliseconds of one example: no hang
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["", "1", "test", "emotion", "\x1b[31m", "=1+1", "a" * 5000, "\ud800", "0" * 64]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an honest run, as small as one can be."""
    root = tmp_path_factory.mktemp("good")
    make_record(root / "run", (6,), folds=("1",))
    return root


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all leaves and branches below a JSON value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    below = [place for key, item in items for place in places(item, (*path, key))]
    return [*([path] if path else []), *below]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at the end of the path."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


def judged(root: Path, honest: dict[str, Any]) -> None:
    """The board stands, and shows the run as it was or refuses it in one sentence."""
    try:
        found = examine(root / "run")
    except UserError as error:
        assert "\n" not in str(error)[:1000].strip()
        assert len(str(error)) < 2000
    else:
        same = {key: found.data[key] for key in ("summary", "id", "status", "audit")}
        assert found.problems or same == {key: honest[key] for key in same}
    board = gather(root)
    page = markdown(board) + terminal(board)
    assert "\x1b" not in page
    json.dumps(as_json(board), allow_nan=False)
    assert len(board.refused) + len(board.incomplete) + sum(len(t.rows) for t in board.tables) == 1


@FEW
@given(data=st.data(), new=VALUES, name=st.sampled_from(["result.json", "fold1_seed0/fold.json"]))
def test_one_leaf_replaced(good: Path, data: st.DataObject, new: Any, name: str) -> None:
    """REVIEW D1, D6: any value anywhere in result.json or fold.json."""
    honest = json.loads((good / "run" / "result.json").read_text())
    content = json.loads((good / "run" / name).read_text())
    place = data.draw(st.sampled_from(places(content)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(good / "run", root / "run")
        (root / "run" / name).write_text(json.dumps(replaced(content, place, new)))
        if name == "result.json":
            judged(root, honest)
        else:  # a fact that nothing contradicts may change; the record must then disagree with it
            judged_apart(root)


def judged_apart(root: Path) -> None:
    """A fold that changed is refused: the record beside it is of the fold as it was."""
    before = json.loads((root / "run" / "result.json").read_text())
    try:
        found = examine(root / "run")
    except UserError as error:
        assert len(str(error)) < 2000
    else:
        assert found.problems or found.data == before
    board = gather(root)
    assert "\x1b" not in markdown(board) + terminal(board)


FILES = (
    *("result.json", "predictions.csv", "fold1_seed0/fold.json"),
    *("fold1_seed0/predictions.csv", "fold1_seed0/dev.csv", "fold1_seed0/examples.csv"),
)


@FEW
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), to=st.integers(0, 255))
def test_one_byte_flipped(good: Path, name: str, where: float, to: int) -> None:
    """REVIEW D1: any byte of any file of a run folder."""
    honest = json.loads((good / "run" / "result.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(good / "run", root / "run")
        path = root / "run" / name
        content = bytearray(path.read_bytes())
        content[int(where * len(content))] = to
        path.write_bytes(content)
        judged(root, honest)


@FEW
@given(data=st.data(), new=VALUES)
def test_one_leaf_of_schema_1_replaced(tmp_path: Path, data: st.DataObject, new: Any) -> None:
    """REVIEW D1, D6: records of schema 1 have no fold folders to be compared with, but the board
    stands all the same."""
    if not (tmp_path / "run").exists():
        make_record_v1(tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    original = path.read_text()
    content = json.loads(original)
    place = data.draw(st.sampled_from(places(content)))
    try:
        path.write_text(json.dumps(replaced(content, place, new)))
        try:
            examine(tmp_path / "run")
        except UserError as error:
            assert len(str(error)) < 2000
        board = gather(tmp_path)
        assert "\x1b" not in markdown(board) + terminal(board)
        json.dumps(as_json(board), allow_nan=False)
    finally:
        path.write_text(original)
