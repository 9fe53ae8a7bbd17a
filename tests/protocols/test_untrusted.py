"""Protocol files and manifests from anywhere: one sentence, or what they say; nothing else."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emopeft.downstream.corpora.base import CORPORA, printable
from emopeft.downstream.corpora.manifest_row import ManifestRow
from emopeft.downstream.protocols.protocol import Protocol, load_protocol, parse
from emopeft.downstream.protocols.schema import ProtocolFile
from emopeft.errors import UserError
from tests.protocols.cases import minimal

STAGE = {"name": "s", "train": ["c"], "dev": ["b"], "method": "lora", "keys": {"lr": 0.1}}
WHOLE = minimal(
    counts={"sad": 3, "happy": 3},
    folds=[
        {"name": "1", "test": ["a"], "dev": {"part": None, "modulus": 5, "remainder": 0}},
        {"name": "2", "tests": {"near": ["a"], "far": ["b"]}, "stages": [STAGE | {"dev": ["d"]}]},
    ],
    leave_out=["z"],
    utterances={"a1": "sad", "b1": "happy"},
)
LEAVES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.sampled_from(["a" * 20_000, "\x1b[2J", "../..", 10**30, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value in nested data, but for the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, (*path, key))
    return found


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(WHOLE)), LEAVES)
def test_one_replaced_value_gives_a_protocol_or_one_sentence(path, value):
    changed = copy.deepcopy(WHOLE)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    try:
        assert isinstance(parse(changed, "mine.json"), Protocol)
    except UserError as error:
        text = str(error)
        assert text.startswith("mine.json: ") and len(text) < 600 and text == printable(text)
        assert "\n" not in text


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_one_flipped_byte_gives_a_protocol_or_one_sentence(tmp_path, data):
    text = bytearray(json.dumps(WHOLE).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "mine.json"
    file.write_bytes(text)
    try:
        load_protocol(file)
    except UserError as error:
        assert "mine.json" in str(error)


def test_ten_thousand_folds_are_refused():
    """REVIEW D5: a 10,000-fold protocol."""
    folds = [{"name": str(i), "test": ["a"], "dev": ["b"]} for i in range(10_000)]
    with pytest.raises(UserError, match="key 'folds' must have at most 1000"):
        parse(minimal(folds=folds))
    assert len(parse(minimal(folds=folds[:1000])).folds) == 1000


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "p.json"])
def test_pipes_and_devices_are_no_files(tmp_path: Path, name: str) -> None:
    """REVIEW D5: a FIFO, a device as manifest or protocol: no end."""
    os.mkfifo(tmp_path / name)
    (tmp_path / f"link-{name}").symlink_to("/dev/zero")
    for file in (tmp_path / name, tmp_path / f"link-{name}"):
        with pytest.raises(UserError, match=r"is a (pipe|device), not a file"):
            load_protocol(file) if name == "p.json" else CORPORA["manifest"].load(file)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "p.json"])
def test_files_of_any_size_are_refused(tmp_path: Path, name: str) -> None:
    """REVIEW D5: as many rows as a disk holds."""
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no space
    with pytest.raises(UserError, match=r"more than the"):
        if name == "p.json":
            load_protocol(tmp_path / name)
        else:
            CORPORA["manifest"].load(tmp_path / name)


GOOD = {"id": "a", "path": "a.wav", "speaker": "s", "label": "sad", "valence": 1.5, "sex": "f"}


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("path", "a\0.wav", r"line 1, column path: 'a\\x00.wav' holds a character that no file"),
        ("path", "a\ud800.wav", "column path: .* holds a character that no file name"),
        ("label", "sad\x1b[31m", "column label: .* holds a character that cannot be shown"),
        ("id", "a\ud800", "column id: .* holds a character that cannot be shown"),
        ("speaker", "x" * 5000, "column speaker: .* 5000 characters, more than 1000"),
        ("valence", float("inf"), "column valence: 'inf' is not a number"),
        ("valence", 10**400, "not a number|not valid JSON"),
        ("sex", ["f"], "column sex: .* is neither text nor a number"),
        ("style", "a", "column style: 'a' is not acted or natural"),
        ("speaker", {"a": 1}, "column speaker: .* is neither text nor a number"),
    ],
)
def test_cells_that_no_table_should_have(tmp_path, column, cell, message):
    """REVIEW D6, D7: NUL, halves of characters, control characters, wrong types."""
    file = tmp_path / "m.jsonl"
    file.write_text(json.dumps(GOOD | {column: cell}) + "\n")
    with pytest.raises(UserError, match=message) as error:
        CORPORA["manifest"].load(file)
    assert printable(str(error.value)) == str(error.value)


def test_json_lines_nested_deeply_or_with_huge_numbers(tmp_path):
    """REVIEW D6: JSON nested 10,000 deep, numbers of 5,000 digits."""
    file = tmp_path / "m.jsonl"
    for cell in ("[" * 100_000, "9" * 5000, '{"a":' * 50_000):
        file.write_text('{"id": "a", "path": "a.wav", "label": ' + cell + "\n")
        with pytest.raises(UserError, match="line 1: not valid JSON"):
            CORPORA["manifest"].load(file)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_one_flipped_byte_gives_a_manifest_or_one_error(tmp_path, data):
    rows = ["id,path,speaker,label,valence", "a,a.wav,s,x,1.5", 'b,"b.wav",t,y,2']
    text = bytearray("\n".join(rows).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "m.csv"
    file.write_bytes(text)
    try:
        assert CORPORA["manifest"].load(file)
    except UserError as error:
        assert "m.csv" in str(error)


def test_file_names_do_not_reach_the_terminal_as_they_are(tmp_path):
    """REVIEW D7: ESC in file names."""
    (tmp_path / "03a01Xa\x1b[2J.wav").touch()
    (tmp_path / "03a01Xa.wav").touch()
    odd = tmp_path / os.fsdecode(b"sub\xff")
    odd.mkdir()
    (odd / "03a01Xb.wav").touch()
    with pytest.raises(UserError, match="unknown emotion letter X") as error:
        CORPORA["emodb"].load(tmp_path)
    text = str(error.value)
    assert "\x1b" not in text and text.encode("utf-8") and r"sub\udcff" in text


def test_their_json_schemas():
    protocol, row = ProtocolFile.model_json_schema(), ManifestRow.model_json_schema()
    assert set(protocol["required"]) == {"name", "version", "task", "description", "source", "unit"}
    assert protocol["properties"]["folds"]["maxItems"] == 1000
    assert set(row["required"]) == {"id", "path"} and not row["additionalProperties"]
    assert {"label", "valence", "arousal", "dominance"} <= set(row["properties"])
    named = {"^rating:.{1,60}$", "^label:.{1,60}$", "^trait:.{1,60}$"}
    assert set(row["patternProperties"]) == named
    assert not {"ratings", "votes", "traits"} & set(row["properties"])  # they are no columns
