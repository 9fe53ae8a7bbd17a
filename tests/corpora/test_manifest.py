"""A user's own table: the documented example, and a line and column for every mistake."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from emopeft.downstream.corpora import manifest
from emopeft.downstream.corpora.base import CORPORA, TreeError, Utterance
from emopeft.errors import UserError


def load(file: Path) -> list[Utterance]:
    return CORPORA["manifest"].load(file)


def write(folder: Path, text: str, name: str = "m.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_the_documented_examples(tmp_path: Path) -> None:
    assert manifest.__doc__ is not None
    csv_text, json_text = (
        textwrap.dedent(block) for block in re.findall(r"::\n\n((?:    .+\n)+)", manifest.__doc__)
    )
    anna, ben = load(write(tmp_path, csv_text))
    assert anna == Utterance(
        id="anna_001",
        path=tmp_path / "audio/anna_001.wav",
        speaker="anna",
        emotion="angry",
        session="1",
        sex="female",
        style="natural",
        ratings={"valence": 1.5, "arousal": 4.5, "dominance": 4.0},
        split="train",
        corpus="manifest",
    )
    assert (ben.path, ben.sex, ben.split) == (tmp_path / "audio/ben_001.flac", "male", "test")
    short = load(write(tmp_path, json_text, "m.jsonl"))
    assert [(u.id, u.path, u.emotion) for u in short] == [
        (u.id, u.path, u.emotion) for u in (anna, ben)
    ]
    assert short[0].ratings == {} and short[0].sex is None
    tabs = load(write(tmp_path, csv_text.replace(",", "\t"), "m.tsv"))
    assert tabs == [anna, ben]


def test_spellings_that_are_understood(tmp_path: Path) -> None:
    absolute = tmp_path / "elsewhere" / "x.FLAC"
    text = (
        "\ufefflabel , speaker,path,id,sex,valence\r\n"
        f' happy,"Doe, Jane",{absolute}, 1 ,F,\r\n'
        "\r\n"
        '"very\nsad",ünal,b.wav,2,male,-1e1\r\n'
    )
    one, two = load(write(tmp_path, text))
    assert (one.id, one.speaker, one.emotion, one.sex) == ("1", "Doe, Jane", "happy", "female")
    assert one.path == absolute and one.ratings == {}
    assert two.ratings == {"valence": -10} and two.emotion == "very sad" and two.speaker == "ünal"
    numbers = '{"id": 7, "path": "a.wav", "speaker": 3, "label": "x", "arousal": 2, "sex": null}\n'
    (u,) = load(write(tmp_path, numbers, "m.jsonl"))
    assert (u.id, u.speaker, u.ratings, u.sex) == ("7", "3", {"arousal": 2.0}, None)


HEADER = "id,path,speaker,label,valence,sex\n"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("a,a.wav,s,happy,1\n", "line 2: 5 values under a header of 6 columns"),
        ("a,a.wav,s,happy,1,f,x\n", "line 2: 7 values under a header of 6 columns"),
        (" ,a.wav,s,happy,1,f\n", "line 2, column id: a value is required"),
        ("a,,s,happy,1,f\n", "line 2, column path: a value is required"),
        ("a,a.mp3,s,happy,1,f\n", "line 2, column path: 'a.mp3' does not end in .wav or .flac"),
        ("a,a.wav,s,,1,f\n", "line 2, column label: a value is required"),
        ("a,a.wav,s,x,high,f\n", "line 2, column valence: 'high' is not a number"),
        ("a,a.wav,s,x,nan,f\n", "line 2, column valence: 'nan' is not a number"),
        ("a,a.wav,s,x,1,w\n", "line 2, column sex: 'w' is not female or male"),
        (
            'a,a.wav,s,"x\ny",1,f\n\na,b.wav,s,x,1,f\n',
            "line 5, column id: 'a' already stands in line 2",
        ),
    ],
)
def test_a_bad_row_is_named_by_line_and_column(tmp_path: Path, rows: str, problem: str) -> None:
    with pytest.raises(TreeError) as caught:
        load(write(tmp_path, HEADER + rows))
    assert caught.value.problems == [problem]
    assert "m.csv" in str(caught.value)


def test_all_bad_rows_are_listed_at_once(tmp_path: Path) -> None:
    rows = "".join(f"id{i},x.wav,s,happy,bad,f\n" for i in range(30))
    with pytest.raises(TreeError, match="30 problems in .*m.csv") as caught:
        load(write(tmp_path, HEADER + rows + "good,x.wav,s,happy,1,f\n"))
    assert "... and 10 more" in str(caught.value)
    assert [u.id for u in caught.value.utterances] == ["good"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "m.csv",
            "id,path,speakr,label\n",
            r"line 1: unknown column 'speakr': did you mean speaker",
        ),
        ("m.csv", "id,path,label\n", "line 1: the column speaker is missing"),
        ("m.csv", "id,path,path,speaker,label\n", "line 1: the column 'path' stands twice"),
        ("m.csv", "", "is empty"),
        ("m.csv", "id,path,speaker,label\n", "no utterance of"),
        ("m.csv", 'id,path,speaker,label\na,"b.wav,s,x\n', "line 2: not valid CSV"),
        ("m.txt", "id,path,speaker,label\n", r"must end in \.csv, \.tsv or \.jsonl"),
        ("m.jsonl", '{"id": "a", "pat": "x"}', "line 1: unknown column 'pat': did you mean path"),
        ("m.jsonl", '{"id": "a", "id": "b"}', "line 1: the column 'id' stands twice"),
        ("m.jsonl", "\n{oops}\n", "line 2: not valid JSON"),
        ("m.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("m.jsonl", '{"id": "a", "path": "a.wav", "speaker": "s"}', "column label: a value is"),
        (
            "m.jsonl",
            '{"id": "a", "path": "a.wav", "speaker": ["s"], "label": "x"}',
            "column speaker: .* is neither text nor a number",
        ),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(write(tmp_path, text, name))
    assert name in str(caught.value)


def test_folder_missing_file_and_wrong_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; --data must name the manifest file"):
        load(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "no.csv")
    (tmp_path / "l.csv").write_bytes(b"id,path,speaker,label\na,a.wav,Andr\xe9,x\n")
    with pytest.raises(UserError, match=r"l\.csv is not UTF-8"):
        load(tmp_path / "l.csv")
