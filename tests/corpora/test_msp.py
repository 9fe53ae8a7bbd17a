"""MSP-Improv and MSP-Podcast: small trees in the published layouts, utterance by utterance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emopeft.downstream.corpora.base import CORPORA, TreeError, Utterance
from emopeft.errors import UserError
from tests.corpora.trees import touch_all

IMPROV = """\
% a line of a copy's own
UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:2.66; V:2.33; D:3.0 ; N:3.4;
AZ-1_x; Angry; Angry,Frustrated; A:3; V:2; D:3; N:4;
AZ-2; Angry; Angry; A:2; V:2; D:3; N:3;
AZ-3; Sad; Sad; A:3; V:3; D:3; N:NaN;
AZ-2; Angry; Angry; A:2; V:2; D:3; N:3;

UTD-IMPROV-S01A-F01-S-MF02.avi; X; A:1.0; V:5.0; D:NaN ; N:NaN;
AZ-1; Other; Bored (really; so); A:1; V:5; D:NaN; N:2;

UTD-IMPROV-S08H-M06-R-MM01.avi; H; A:5.000000; V:4.250000; D:1.000000;
"""
TURNS = [
    Utterance(
        "MSP-IMPROV-S01A-F01-P-FM01", Path("session1/S01A/P"), "F01", "angry", "1", "female",
        "natural", {"valence": 2.33, "arousal": 6 - 2.66, "dominance": 3.0},
        {"angry": 2.0, "sad": 1.0}, None, "msp-improv", {"intended": "angry", "scenario": "P"},
    ),
    Utterance(  # a turn of the man in the woman's scenario
        "MSP-IMPROV-S01A-F01-S-MF02", Path("session1/S01A/S"), "M01", None, "1", "male",
        "natural", {"valence": 5.0, "arousal": 5.0}, {"other": 1.0}, None, "msp-improv",
        {"intended": "angry", "scenario": "S"},
    ),
    Utterance(
        "MSP-IMPROV-S08H-M06-R-MM01", Path("session6/S08H/R"), "M06", "happy", "6", "male",
        "acted", {"valence": 4.25, "arousal": 1.0, "dominance": 1.0}, {}, None, "msp-improv",
        {"intended": "happy", "scenario": "R"},
    ),
]  # fmt: skip


def load(corpus: str, root: Path, **options: object) -> list[Utterance]:
    return CORPORA[corpus].load(root, **options)


def improv(root: Path, above: str = "", table: str = "Evaluation.txt") -> list[Utterance]:
    """A tree and what must be read of it."""
    places = [Path(above) / u.path / f"{u.id}.wav" for u in TURNS]
    touch_all(root, [str(place) for place in places])
    (root / table).write_text(IMPROV)
    pairs = zip(TURNS, places, strict=True)
    return [Utterance(**{**vars(u), "path": root / place}) for u, place in pairs]


@pytest.mark.parametrize(("above", "table"), [("", "Evaluation.txt"), ("Audio", "Evalution.txt")])
def test_improv_in_both_layouts(tmp_path: Path, above: str, table: str) -> None:
    wanted = improv(tmp_path, above, table)
    assert load("msp-improv", tmp_path) == wanted


def test_improv_naturalness_is_a_rating_when_asked_for(tmp_path: Path) -> None:
    improv(tmp_path)
    first, second, _ = load("msp-improv", tmp_path, naturalness=True)
    assert first.ratings["naturalness"] == 3.4 and "naturalness" not in second.ratings
    assert "naturalness" in CORPORA["msp-improv"].with_options(naturalness=True).scales
    assert "naturalness" not in CORPORA["msp-improv"].scales


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("UTD-IMPROV-S01A-F01-P-FM01.avi; Q; A:1; V:1; D:1;", "line 1: cannot be parsed"),
        ("UTD-IMPROV-S01A-F07-P-FM01.avi; A; A:1; V:1; D:1;", "is no turn of the corpus"),
        ("UTD-IMPROV-S01A-F01-P-FM09.avi; A; A:1; V:1; D:1;", "P-FM09.wav is missing"),
        (IMPROV.splitlines()[1], "labelled twice"),
    ],
)
def test_improv_problems_name_the_line(tmp_path: Path, line: str, message: str) -> None:
    improv(tmp_path)
    (tmp_path / "Evaluation.txt").write_text(f"{line}\n{IMPROV}")
    with pytest.raises(TreeError, match=message) as error:
        load("msp-improv", tmp_path)
    assert len(error.value.problems) == 1 and len(error.value.utterances) == 3
    (tmp_path / "Evaluation.txt").unlink()
    with pytest.raises(UserError, match=r"holds no Evaluation.txt"):
        load("msp-improv", tmp_path)


HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
ROWS = """\
MSP-PODCAST_0001_0008.wav,N,3.8,4.2,4,1,Male,Train
MSP-PODCAST_0001_0019.wav,X,,nan,4.25,Unknown,Unknown,Train
MSP-PODCAST_0002_0033.wav,U,7,1,1,24,Female,{dev}
MSP-PODCAST_0003_0050_0001.wav,C,1,7,7,30,Female,Test1
MSP-PODCAST_0003_0051.wav,O,1,7,7,30,Female,Test2
"""
HIDDEN = ["MSP-PODCAST_test3_0001", "MSP-PODCAST_test3_0002"]
DETAILS = [("0001_0008", "Neutral"), ("0001_0008", "Other-thoughtful"), ("0001_0008", "Neutral"),
           ("0002_0033", "Surprise"), ("0003_0050_0001", "Contempt")]  # fmt: skip
VOTES = {
    "0001_0008": {"neutral": 2.0, "other": 1.0},
    "0002_0033": {"surprised": 1.0},
    "0003_0050_0001": {"contempt": 1.0},
}


def podcast(root: Path, release: str) -> None:
    old = release == "1.7"
    rows = ROWS.format(dev="Validation" if old else "Development")
    names = [line.split(",")[0] for line in rows.splitlines()]
    names += [] if old else [f"{name}.wav" for name in HIDDEN]
    touch_all(root / "Audios", [*names, "MSP-PODCAST_9999_0001.wav"])  # one in no table
    (root / "Labels").mkdir()
    table = "labels_concensus.csv" if old else "labels_consensus.csv"
    (root / "Labels" / table).write_text(HEADER + rows)
    if not old:
        (root / "readme.txt").write_text(f"#  Release {release} (June 6, 2024)  #\n")


def podcast_turns(root: Path, dev: str) -> list[Utterance]:
    def turn(name, speaker, emotion, sex, ratings, split):  # type: ignore[no-untyped-def]
        ratings = dict(zip(("valence", "arousal", "dominance"), ratings, strict=True))
        return Utterance(
            f"MSP-PODCAST_{name}", root / f"Audios/MSP-PODCAST_{name}.wav", speaker, emotion, None,
            sex, "natural", {n: x for n, x in ratings.items() if x is not None}, {}, split,
            "msp-podcast", {"podcast": name[:4]} if name[0] == "0" else {},
        )  # fmt: skip

    return [
        turn("0001_0008", "1", "neutral", "male", (4.2, 3.8, 4.0), "Train"),
        turn("0001_0019", "", None, None, (None, None, 4.25), "Train"),
        turn("0002_0033", "24", "surprised", "female", (1.0, 7.0, 1.0), dev),
        turn("0003_0050_0001", "30", "contempt", "female", (7.0, 1.0, 7.0), "Test1"),
        turn("0003_0051", "30", "other", "female", (7.0, 1.0, 7.0), "Test2"),
        turn("test3_0001", "", None, None, (None, None, None), "Test3"),
        turn("test3_0002", "", None, None, (None, None, None), "Test3"),
    ]


def test_podcast_of_two_releases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = tmp_path / "MSP-PODCAST-Publish-1.7", tmp_path / "podcast"
    podcast(old, "1.7")
    podcast(new, "1.12")
    assert load("msp-podcast", old, release="1.7") == podcast_turns(old, "Validation")[:5]
    assert load("msp-podcast", new, release=1.12) == podcast_turns(new, "Development")
    assert caplog.text.count("1 audio files in") == 2  # what stands in no table is said
    for root, says in ((old, "release 1.7, as its name says"), (new, "1.12, as readme.txt says")):
        with pytest.raises(UserError, match=f"{says}, not 1.11"):
            load("msp-podcast", root)
    with pytest.raises(UserError, match=r"unknown release of MSP-Podcast '1.1'"):
        load("msp-podcast", new, release=1.1)
    corpus = CORPORA["msp-podcast"]
    assert (corpus.size, corpus.protocol) == (151_654, "msp-podcast-1.11")
    newer = corpus.with_options(release=1.12)
    assert (newer.size, newer.hours, newer.protocol) == (207_136, 324.4, "msp-podcast-1.12")
    older = corpus.with_options(release="1.7")
    assert (older.size, older.hours, older.protocol) == (None, None, "msp-podcast-1.7")


@pytest.mark.parametrize("layout", ["major", "detail", "json", "elsewhere"])
def test_podcast_votes_in_each_published_layout(tmp_path: Path, layout: str) -> None:
    podcast(tmp_path, "1.11")
    name = "labels_detailed.json" if layout == "json" else "labels_detailed.csv"
    files = [(f"MSP-PODCAST_{clip}.wav", word) for clip, word in DETAILS]
    if layout == "json":
        workers: dict[str, dict[str, object]] = {}
        for i, (file, word) in enumerate(files):
            workers.setdefault(file, {})[f"WORKER{i}"] = {"EmoClass_Major": word, "EmoAct": "3"}
        text = json.dumps(workers)
    elif layout == "detail":
        text = "FileName,EmoDetail\n" + "".join(
            f'{f},"WORKER{i}; {w}; {w},Sad; A:3; V:4; D:5;"\n' for i, (f, w) in enumerate(files)
        )
    else:
        text = "FileName,Workers,EmoClass_Major,EmoAct\n" + "".join(
            f"{f},WORKER{i},{w},3\n" for i, (f, w) in enumerate(files)
        )
    place = tmp_path / ("elsewhere" if layout == "elsewhere" else "Labels") / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    options = {"votes": str(place)} if layout == "elsewhere" else {}
    found = {
        u.id.removeprefix("MSP-PODCAST_"): u.votes for u in load("msp-podcast", tmp_path, **options)
    }
    assert {name: votes for name, votes in found.items() if votes} == VOTES
    place.write_text("[1]" if layout == "json" else "FileName,what\nx,y\n")
    with pytest.raises(UserError, match=f"{name}.*single raters"):
        load("msp-podcast", tmp_path, **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("MSP-PODCAST_0001_0008.wav,Q,1,1,1,1,Male,Train", "line 2: .*unknown class 'Q'"),
        ("MSP-PODCAST_0001_0008.wav,N,1,1,1,1,Male,Spare", "unknown Split_Set 'Spare'"),
        ("MSP-PODCAST_0001_0009.wav,N,1,1,1,1,Male,Train", "Audios/.*_0009.wav is missing"),
        ("MSP-PODCAST_0001_0008.wav,N,high,1,1,1,Male,Train", "a rating that is no number"),
        ("MSP-PODCAST_0001_0008.wav,N", "line 2: 2 values under a header of 8"),
    ],
)
def test_podcast_problems_name_the_line(tmp_path: Path, row: str, message: str) -> None:
    podcast(tmp_path, "1.11")
    (tmp_path / "Labels/labels_consensus.csv").write_text(f"{HEADER}{row}\n")
    with pytest.raises(UserError, match=message):
        load("msp-podcast", tmp_path)


def test_podcast_tables_that_are_none(tmp_path: Path) -> None:
    podcast(tmp_path, "1.11")
    table = tmp_path / "Labels/labels_consensus.csv"
    for text, message in ((b"FileName,EmoClass\n", "no column EmoVal"), (b"\xff\xfe", "not UTF-8")):
        table.write_bytes(text)
        with pytest.raises(UserError, match=message):
            load("msp-podcast", tmp_path)
    table.unlink()
    with pytest.raises(UserError, match=r"holds no Labels/labels_consensus.csv"):
        load("msp-podcast", tmp_path)
