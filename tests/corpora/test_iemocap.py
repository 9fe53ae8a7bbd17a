"""IEMOCAP: the layout, the speakers, the ratings, and everything that can be missing."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path

import pytest

from emopeft.downstream.corpora.base import CORPORA, TreeError, Utterance
from tests.corpora.trees import iemocap, touch_all
from tests.shared import SHARED, needs_shared

LABELS = {
    "Ses01F_impro01_F000": ("neu", "2.5000, 3.5000, 4.5000"),
    "Ses01F_impro01_M003": ("xxx", "0.5000, 5.5000, 3.0000"),
    "Ses02M_script01_1b_F007": ("fru", "2.0, 4.0, 4.0"),
    "Ses03F_script02_2_M042": ("exc", "4.0, 4.0, 4.0"),
    "Ses04M_impro08_M031": ("oth", "3.0, 3.0, 3.0"),
    "Ses05F_impro02_F011": ("fea", "1.0, 4.0, 2.0"),
}


def load(root: Path) -> dict[str, Utterance]:
    return {u.id: u for u in CORPORA["iemocap"].load(root)}


def test_what_is_read(tmp_path: Path) -> None:
    found = load(iemocap(tmp_path, LABELS))
    assert list(found) == sorted(LABELS)
    first = found["Ses01F_impro01_F000"]
    assert first == Utterance(
        id="Ses01F_impro01_F000",
        path=tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        speaker="Ses01_F",
        emotion="neutral",
        session="1",
        sex="female",
        style="natural",
        ratings={"valence": 2.5, "arousal": 3.5, "dominance": 4.5},
        votes={"neutral": 1.0},
        corpus="iemocap",
    )
    assert found["Ses01F_impro01_M003"].speaker == "Ses01_M"  # recorded on the F side
    assert found["Ses01F_impro01_M003"].sex == "male"
    assert found["Ses01F_impro01_M003"].ratings["valence"] == 0.5
    assert found["Ses02M_script01_1b_F007"].speaker == "Ses02_F"
    assert found["Ses02M_script01_1b_F007"].style == "acted"
    assert [u.emotion for u in found.values()] == [
        "neutral", "undecided", "frustrated", "excited", "other", "fearful",
    ]  # fmt: skip
    assert [u.session for u in found.values()] == ["1", "1", "2", "3", "4", "5"]


# The first two as published, the others in their form.
PANELS = {
    "Ses01F_impro01_F000": (
        "neu", "2.5000, 2.5000, 2.5000",
        "C-E2:\tNeutral;\t()\nC-E3:\tNeutral;\t()\nC-E4:\tNeutral;\t()\n"
        "C-F1:\tNeutral;\t(curious)\n"
        "A-E3:\tval 3; act 2; dom  2;\t()\nA-E4:\tval 2; act 3; dom  3;\t(mildly aggravated)\n"
        "A-F1:\tval 3; act 2; dom  1;\t()\n",
        {"neutral": 3},
    ),
    "Ses01F_impro05_F019": (
        "ang", "1.5000, 4.0000, 4.5000",
        "C-E1:\tAnger;\t()\nC-E3:\tAnger;\t()\nC-E4:\tAnger;\t()\nC-F1:\tAnger;\t()\n"
        "A-E3:\tval 2; act 4; dom  4;\t()\nA-E4:\tval 1; act 4; dom  5;\t(threatening)\n"
        "A-F1:\tval 1; act 5; dom  5;\t()\n",
        {"angry": 3},
    ),
    "Ses01F_impro05_M020": (  # several labels of one rater; free text with everything in it
        "xxx", "3.0000, 3.0000, 3.0000",
        "C-E1:\tSadness; Frustration;\t(tired; Anger; )\nC-E2:\tSurprise; Fear; Disgust;\t()\n"
        "C-E4:\tOther;\t(C-E5: Anger;)\nC-M1:\tHappiness;\t()\n",
        {"sad": 1, "frustrated": 1, "surprised": 1, "fearful": 1, "disgusted": 1, "other": 1},
    ),
    "Ses02M_script01_1_F001": (
        "exc", "4.5000, 0.5000, 5.5000",
        "C-E1: Excited; Happiness; ()\r\nC-E10:\tExcited;\t()\r\nC-E3:\tneutral state;\t()\r\n",
        {"excited": 2, "happy": 1, "neutral": 1},
    ),
    "Ses03F_impro01_F002": ("hap", "3.0, 3.0, 3.0", "C-F1:\tHappiness;\t()\nC-E1:\t\t()\n", {}),
    "Ses04F_impro01_F001": ("sad", "3.0, 3.0, 3.0", "", {}),
    "Ses05F_impro01_F001": ("sad", "3.0, 3.0, 3.0", "C-E1:\tSadness;\t()\n", {"sad": 1}),
}  # fmt: skip


def test_votes_and_ratings_utterance_by_utterance(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {name: (label, vad) for name, (label, vad, _, _) in PANELS.items()}
    raters = {name: lines for name, (_, _, lines, _) in PANELS.items()}
    found = load(iemocap(tmp_path, labels, raters))
    assert {name: u.votes for name, u in found.items()} == {
        name: votes for name, (_, _, _, votes) in PANELS.items()
    }
    for name, (_, vad, _, _) in PANELS.items():
        valence, arousal, dominance = map(float, vad.split(","))
        wanted = {"valence": valence, "arousal": arousal, "dominance": dominance}
        assert found[name].ratings == wanted
    assert found["Ses01F_impro05_M020"].emotion == "undecided"
    assert not caplog.text
    scales = CORPORA["iemocap"].scales
    assert scales == dict.fromkeys(("valence", "arousal", "dominance"), (1.0, 5.0))


def test_the_published_means_leave_the_actors_own_ratings_out() -> None:
    """Why C-F and C-M are no votes: A-F is not in the triple either (the first two, published)."""
    for name in ("Ses01F_impro01_F000", "Ses01F_impro05_F019"):
        _, published, lines, _ = PANELS[name]
        rows = re.findall(r"A-([EF])\d:\tval (\d); act (\d); dom +(\d);", lines)
        means = {}
        for kinds in ("E", "EF"):
            chosen = [list(map(float, row[1:])) for row in rows if row[0] in kinds]
            means[kinds] = [sum(column) / len(column) for column in zip(*chosen, strict=True)]
        assert means["E"] == list(map(float, published.split(","))) != means["EF"]


def test_votes_of_no_known_label_are_not_counted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = dict.fromkeys(LABELS, "C-E1:\tJoy;\t()\nC-E2:\tSadness; Joy;\t()\n")
    with caplog.at_level(logging.WARNING):
        found = load(iemocap(tmp_path, LABELS, lines))
    assert all(u.votes == {"sad": 1.0} for u in found.values())
    assert "4 votes in" in caplog.text and "'Joy' (4)" in caplog.text  # of Session1
    assert len(caplog.records) == 5  # one a session


def test_shadows_sub_folders_and_the_folder_above_are_no_trouble(tmp_path: Path) -> None:
    root = iemocap(tmp_path / "IEMOCAP_full_release", LABELS)
    evaluation = root / "Session1/dialog/EmoEvaluation"
    (evaluation / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\n[1 - 2]\tx\ty\n")
    touch_all(evaluation, ["Categorical/e1.txt", "Attribute/a.txt"])
    touch_all(root, ["Session1/sentences/wav/Ses01F_impro01/._Ses01F_impro01_F000.wav"])
    assert list(load(tmp_path)) == list(load(root)) == sorted(LABELS)


def test_flac_will_do(tmp_path: Path) -> None:
    root = iemocap(tmp_path, LABELS)
    for wav in list(root.rglob("*.wav")):
        wav.rename(wav.with_suffix(".FLAC"))
    assert list(load(root)) == sorted(LABELS)


def problems(root: Path) -> list[str]:
    with pytest.raises(TreeError) as caught:
        load(root)
    return caught.value.problems


def test_everything_missing_is_said_at_once(tmp_path: Path) -> None:
    root = iemocap(tmp_path, LABELS)
    wav = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    (root / wav).unlink()
    (root / "Session3/dialog/EmoEvaluation").rename(root / "Session3/dialog/elsewhere")
    (root / "Session4/dialog/EmoEvaluation/Ses04M_impro08.txt").unlink()
    (root / "Session5").rename(root / "Session6")
    assert problems(root) == [
        f"Session1/dialog/EmoEvaluation/Ses01F_impro01.txt, line 3: {wav} is missing",
        "Session3/dialog/EmoEvaluation is missing",
        "Session4/dialog/EmoEvaluation holds no .txt file",
        "Session5 is missing",
    ]
    (root / "Session2/sentences/wav").rename(root / "Session2/sentences/audio")
    assert "Session2/sentences/wav is missing" in problems(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1.0 - 2.0]\tSes01F_impro01_F000\tjoy\t[1, 2, 3]", "unknown label 'joy'"),
        ("[1.0 - 2.0]\tSes01F_impro01_F000\tneu\t[1, nan, 3]", "ratings that are not numbers"),
        ("[1.0 - 2.0]\tSes01F_impro01_F000\tneu\t[1, 2]", "cannot be parsed"),
        ("[1.0 - 2.0]\tSes02F_impro01_F000\tneu\t[1, 2, 3]", "not an utterance of session 1"),
        ("[1.0 - 2.0]\tSes01F_impro01_X000\tneu\t[1, 2, 3]", "not an utterance of session 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    root = iemocap(tmp_path, LABELS)
    file = root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    file.write_text("% header\n" + line + "\n")
    (problem,) = problems(root)
    assert problem.startswith("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt, line 2: ")
    assert message in problem


def test_a_label_twice_is_refused(tmp_path: Path) -> None:
    root = iemocap(tmp_path, LABELS)
    file = root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    file.write_text(file.read_text() * 2)
    with pytest.raises(TreeError, match="'Ses01F_impro01_F000' stands twice"):
        load(root)


def test_audio_without_a_label_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = iemocap(tmp_path, LABELS)
    touch_all(root, ["Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F099.wav"])
    with caplog.at_level(logging.WARNING):
        assert len(load(root)) == len(LABELS)
    assert "Ses02F_impro01_F099" in caplog.text


@needs_shared
def test_the_published_ids(tmp_path: Path) -> None:
    """SUPERB's 5531 utterances: sizes per session and class as published, speakers as known."""
    assert SHARED is not None
    rows = [
        row
        for k in range(1, 6)
        for row in json.loads(
            (
                SHARED / f"protocols/iemocap_s3prl/meta_data/Session{k}/test_meta_data.json"
            ).read_text()
        )["meta_data"]
    ]
    root = iemocap(tmp_path, {Path(r["path"]).stem: (r["label"], "3, 3, 3") for r in rows})
    found = load(root)
    assert Counter(u.session for u in found.values()) == {
        "1": 1085, "2": 1023, "3": 1151, "4": 1031, "5": 1241,
    }  # fmt: skip
    assert Counter(u.emotion for u in found.values()) == {
        "neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084,
    }  # fmt: skip
    assert len({u.speaker for u in found.values()}) == 10
    assert {str(u.path.relative_to(root)) for u in found.values()} == {r["path"] for r in rows}
    expected = CORPORA["iemocap"].expected
    assert expected["happy"] + expected["excited"] == 1636
    assert sum(expected.values()) == 10039
