"""IEMOCAP: the layout, the speakers, the ratings, and everything that can be missing."""

from __future__ import annotations

import json
import logging
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
