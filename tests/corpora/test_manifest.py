"""A user's own table: the documented example, and a line and column for every mistake."""

from __future__ import annotations

import json
import math
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
        ("m.csv", "id,path,speaker\n", "line 1: there is nothing to learn; the header must name"),
        ("m.csv", "id,path,speaker,rating:\n", "column 'rating:' must be rating:NAME, with a name"),
        ("m.csv", "id,path,speaker,rating:valence\n", "has a column of its own; call it valence"),
        ("m.csv", "id,path,speaker,label,trait:sex\n", "'trait:sex' is called what records call"),
        ("m.csv", "id,path,speaker,label: sad\n", "column 'label: sad' must be label:NAME"),
        ("m.csv", "id,path,speaker,rate:x\n", "unknown column 'rate:x'"),
        ("m.csv", "id,path,speaker,votes\n", "unknown column 'votes'"),
        (
            "m.jsonl",
            '{"id": "a", "path": "a.wav", "ratings": {"x": 1}}',
            "unknown column 'ratings'",
        ),
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


NAMED = (
    "id,path,speaker,label,arousal,rating:tension,label:angry,label:sad,trait:age,trait:room\n"
    "a,a.wav,s,angry,4,1.5,3,0,51,\n"
    "b,b.wav,s,,,-2,0.333,.667,,hall\n"
    "c,c.wav,s,sad,,,,,,\n"
)


def test_any_rating_vote_and_trait(tmp_path: Path) -> None:
    a, b, c = load(write(tmp_path, NAMED))
    assert (a.emotion, a.ratings, a.votes) == (
        "angry",
        {"arousal": 4, "tension": 1.5},
        {"angry": 3},
    )
    assert a.traits == {"age": "51"} and b.traits == {"room": "hall"}
    assert b.emotion is None and b.ratings == {"tension": -2}
    assert b.votes == pytest.approx({"angry": 0.333, "sad": 0.667}, abs=1e-12)
    assert c.ratings == c.votes == c.traits == {}
    rows = [
        {"id": "a", "path": "a.wav", "speaker": "s", "label": "angry", "arousal": 4,
         "rating:tension": 1.5, "label:angry": 3, "trait:age": 51},
        {"id": "b", "path": "b.wav", "speaker": "s", "rating:tension": "-2", "label:angry": 0.333,
         "label:sad": 0.667, "trait:room": "hall"},
        {"id": "c", "path": "c.wav", "speaker": "s", "label": "sad", "rating:tension": None},
    ]  # fmt: skip
    lines = "\n".join(json.dumps(row) for row in rows)
    assert load(write(tmp_path, lines, "m.jsonl")) == [a, b, c]


def test_shares_that_were_rounded_add_up_to_1(tmp_path: Path) -> None:
    text = "id,path,speaker,label:a,label:b,label:c\nx,x.wav,s,0.33,0.33,0.33\n"
    (x,) = load(write(tmp_path, text))
    assert x.votes == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=1e-15)


def test_a_manifest_without_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows without anything take no part, which is said once."""
    text = "id,path,speaker,valence\na,a.wav,s,1\nb,b.wav,s,\nc,c.wav,s,\n"
    found = load(write(tmp_path, text))
    assert [u.ratings for u in found] == [{"valence": 1}, {}, {}]
    assert [record.getMessage() for record in caplog.records] == [
        f"2 rows of {tmp_path / 'm.csv'} have neither a label nor a rating nor a vote and take no "
        "part other than in unscored tests, for example b"
    ]


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ("high,1,0,x", "line 2, column rating:tension: 'high' is not a number"),
        ("1,-1,0,x", "line 2, column label:angry: '-1' is negative; votes are counts or shares"),
        ("1,inf,0,x", "line 2, column label:angry: 'inf' is not a number"),
        ("1,0.5,0.6,x", "line 2: the votes add up to 1.1; give whole numbers of raters, or shares"),
        ("1,2,0.5,x", "line 2: the votes add up to 2.5; give whole numbers of raters, or shares"),
        ("1,2,1,\x1b", "line 2, column trait:age: '\\x1b' holds a character that cannot be shown"),
    ],
)
def test_bad_ratings_votes_and_traits(tmp_path: Path, cells: str, problem: str) -> None:
    header = "id,path,speaker,rating:tension,label:angry,label:sad,trait:age\n"
    with pytest.raises(TreeError) as caught:
        load(write(tmp_path, f"{header}a,a.wav,s,{cells}\n"))
    (found,) = caught.value.problems
    assert found.startswith(problem)


def test_no_more_columns_than_a_table_needs(tmp_path: Path) -> None:
    rows = [
        json.dumps(
            {"id": f"{i}", "path": "a.wav", "speaker": "s", f"trait:t{i}": "x", "label": "a"}
        )
        for i in range(51)
    ]
    assert len(load(write(tmp_path, "\n".join(rows[:50]), "m.jsonl"))) == 50
    with pytest.raises(UserError, match="more than 50 different columns 'trait:NAME'"):
        load(write(tmp_path, "\n".join(rows), "m.jsonl"))


def test_the_nominal_scale_is_an_option(tmp_path: Path) -> None:
    corpus = CORPORA["manifest"]
    file = write(tmp_path, NAMED)
    assert corpus.scales == corpus.with_options().scales == {}
    scale = {"tension": [-3, 3], "arousal": [1, 5]}
    assert corpus.with_options(scale=scale).scales == {
        "tension": (-3.0, 3.0),
        "arousal": (1.0, 5.0),
    }
    assert corpus.load(file, scale=scale) == corpus.load(file)
    for wrong, message in [
        (
            {"tensoin": [1, 5]},
            r"m\.csv: unknown rating in the option scale 'tensoin': did you mean",
        ),
        ({"tension": [5, 1]}, "the scale of 'tension' must be two numbers, the lowest first"),
        ({"tension": [1]}, "must be two numbers"),
        ({"tension": "15"}, "must be two numbers"),
        ({"tension": [1, math.inf]}, "must be two numbers"),
        ({"tension": [False, True]}, "must be two numbers"),
        ("tension", "the option 'scale' must be a lowest and highest per rating; give it as -o"),
        ([1, 5], "the option 'scale' must be a lowest and highest per rating"),
    ]:
        with pytest.raises(UserError, match=message):
            corpus.load(file, scale=wrong)
    with pytest.raises(UserError, match=r"is for ratings, and .*m\.csv has none"):
        corpus.load(write(tmp_path, "id,path,speaker,label\na,a.wav,s,x\n"), scale=scale)


def test_folder_missing_file_and_wrong_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; --data must name the manifest file"):
        load(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "no.csv")
    (tmp_path / "l.csv").write_bytes(b"id,path,speaker,label\na,a.wav,Andr\xe9,x\n")
    with pytest.raises(UserError, match=r"l\.csv is not UTF-8"):
        load(tmp_path / "l.csv")
