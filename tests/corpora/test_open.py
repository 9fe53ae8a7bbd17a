"""Open corpora: names and tables in the published layouts, utterance by utterance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from emopeft.downstream.corpora.base import CORPORA, TreeError
from emopeft.errors import UserError
from tests.corpora.trees import touch_all

# corpus, file, id, speaker, emotion, sex
CASES = [
    ("emovo", "f1/dis-f1-b1.wav", "dis-f1-b1", "f1", "disgusted", "female"),
    ("emovo", "M3/gio-M3-n5.WAV", "gio-m3-n5", "m3", "happy", "male"),
    ("jl", "Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/female2_anxious_10a_1.wav",
     None, "female2", "anxious", "female"),
    ("jl", "male1_sad_3b_2.wav", None, "male1", "sad", "male"),
    ("shemo", "female/F03S02.wav", None, "F03", "sad", "female"),
    ("shemo", "male/M02F01.wav", None, "M02", "fearful", "male"),
    ("subesco", "F_02_MONIKA_S_1_NEUTRAL_5.wav", None, "F_02", "neutral", "female"),
    ("subesco", "x/M_02_RASEL_S_10_SURPRISE_1.wav", None, "M_02", "surprised", "male"),
    ("cafe", "Colère/Fort/01-C-2-1.wav", None, "01", "angry", "male"),
    ("cafe", "12-N-1-6.wav", None, "12", "neutral", "female"),
    ("aesdd", "anger/a03 (4).wav", "a03-4", "4", "angry", None),
    ("aesdd", "fear/f10 (01).wav", "f10-1", "1", "fearful", None),
    ("aesdd", "sadness/s01 (5b).wav", "s01-5b", "5", "sad", None),
    ("urdu", "Neutral/SM5_F72_N0100.wav", None, "SM5", "neutral", "male"),
    ("urdu", "Happy/SF1_F3_H03.wav", None, "SF1", "happy", "female"),
]  # fmt: skip


@pytest.mark.parametrize(("corpus", "file", "id_", "speaker", "emotion", "sex"), CASES)
def test_one_file(
    tmp_path: Path, corpus: str, file: str, id_: str | None, speaker: str, emotion: str, sex: str
) -> None:
    touch_all(tmp_path, [file])
    (utterance,) = CORPORA[corpus].load(tmp_path)
    assert utterance.id == (id_ or Path(file).stem) and utterance.path == tmp_path / file
    assert (utterance.speaker, utterance.emotion, utterance.sex) == (speaker, emotion, sex)
    assert utterance.emotion in CORPORA[corpus].emotions
    assert utterance.style == ("natural" if corpus == "urdu" else "acted")


@pytest.mark.parametrize(
    ("corpus", "file", "message"),
    [
        ("emovo", "xyz-f1-b1.wav", "unknown emotion 'xyz'"),
        ("jl", "male1_pensive_3b_2.wav", "unknown emotion 'pensive'"),
        ("shemo", "F03X02.wav", "unknown emotion letter X"),
        ("subesco", "F_02_MONIKA_S_1_JOY_5.wav", "unknown emotion JOY"),
        ("cafe", "01-X-2-1.wav", "unknown emotion letter X"),
        ("cafe", "13-C-2-1.wav", "unknown actor 13"),
        ("aesdd", "n03 (4).wav", "unknown emotion letter n"),
        ("urdu", "SM5_F72_F01.wav", "unknown emotion letter F"),
    ],
)
def test_unknown_labels_are_listed(tmp_path: Path, corpus: str, file: str, message: str) -> None:
    touch_all(tmp_path, [file])
    with pytest.raises(TreeError, match=message):
        CORPORA[corpus].load(tmp_path)


@pytest.mark.parametrize("corpus", ["cafe", "emovo"])
def test_published_names_give_the_published_counts(tmp_path: Path, corpus: str) -> None:
    known = CORPORA[corpus]
    assert known.ids is not None
    touch_all(tmp_path, [f"{name}.wav" for name in known.ids()])
    found = known.load(tmp_path)
    assert Counter(u.emotion for u in found) == dict(known.expected)
    assert len({u.speaker for u in found}) == known.speakers
    if corpus == "cafe":
        assert Counter(u.ratings["intensity"] for u in found) == {1.0: 504, 2.0: 432}


def test_the_broken_file_of_aesdd_is_passed_over(tmp_path: Path) -> None:
    touch_all(tmp_path, ["sadness/s05 (3).wav", "sadness/s05 (2).wav"])
    assert [u.id for u in CORPORA["aesdd"].load(tmp_path)] == ["s05-2"]


SAMPLES = "file_name,actor,sentence,emotion_expressed\na.wav,u1,x,joy\nb.wav,u2,x,neutrality\n"


def test_emozionalmente(tmp_path: Path) -> None:
    touch_all(tmp_path, ["audio/a.wav", "audio/b.wav"])
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/samples.csv").write_text(SAMPLES)
    one, two = CORPORA["emozionalmente"].load(tmp_path)
    assert (one.id, one.speaker, one.emotion, one.sex, one.votes) == ("a", "u1", "happy", None, {})
    (tmp_path / "metadata/users.csv").write_text("username,gender,age\nu1,F,31\nu2,other,\n")
    votes = "file_name,emotion_recognized\na.wav,joy\na.wav,surprise\na.wav,joy\n"
    (tmp_path / "metadata/evaluations.csv").write_text(votes)
    one, two = CORPORA["emozionalmente"].load(tmp_path)
    assert (one.sex, one.traits, one.votes) == (
        "female",
        {"age": "31"},
        {"happy": 2.0, "surprised": 1.0},
    )
    assert (two.sex, two.traits, two.votes, two.emotion) == (None, {}, {}, "neutral")
    (tmp_path / "metadata/samples.csv").write_text(f"{SAMPLES}c.wav,u1,x,joy\nb.wav,u1,x,rage\n")
    with pytest.raises(TreeError, match=r"line 4: audio/c.wav is missing\n.*emotion 'rage'"):
        CORPORA["emozionalmente"].load(tmp_path)


MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"


def meld(root: Path, above: str = "", waves: str = "") -> None:
    rows = {
        "train": '1,"Oh, no",Rachel,surprise,x,0,0\n2,y,All,anger,x,0,1\n'
        "3,z,Joey,neutral,x,125,3\n",
        "dev": "1,x,Ross,joy,x,0,0\n2,z,Joey,neutral,x,110,7\n",
        "test": "1,x,Mark,fear,x,7,10\n",
    }
    for part, text in rows.items():
        (root / above / f"{part}_sent_emo.csv").parent.mkdir(exist_ok=True, parents=True)
        (root / above / f"{part}_sent_emo.csv").write_text(MELD + text)
    folders = ("train_splits", "dev_splits_complete", "output_repeated_splits_test")
    names = ("dia0_utt0 dia0_utt1", "dia0_utt0", "dia7_utt10 final_videos_testdia1_utt1")
    for folder, stems in zip(folders, names, strict=True):
        touch_all(root / above / folder / waves, [f"{stem}.wav" for stem in stems.split()])
        touch_all(root / above / folder, [f"{stem}.mp4" for stem in stems.split()])


@pytest.mark.parametrize(("above", "waves"), [("", ""), ("raw", "waves")])
def test_meld(tmp_path: Path, above: str, waves: str) -> None:
    meld(tmp_path, above, waves)
    found = CORPORA["meld"].load(tmp_path)
    assert [(u.id, u.speaker, u.emotion, u.split) for u in found] == [
        ("dev_dia0_utt0", "Ross", "happy", "dev"),
        ("test_dia7_utt10", "Mark", "fearful", "test"),
        ("train_dia0_utt0", "Rachel", "surprised", "train"),
        ("train_dia0_utt1", "All", "angry", "train"),
    ]
    place = tmp_path / above / "train_splits" / waves
    assert found[2].path == place / "dia0_utt0.wav"
    (place / "dia0_utt1.wav").unlink()
    with pytest.raises(TreeError, match=r"train_sent_emo.csv, line 3: no audio of train_dia0_utt1"):
        CORPORA["meld"].load(tmp_path)


def test_meld_as_it_is_unpacked_has_no_sound_yet(tmp_path: Path) -> None:
    touch_all(tmp_path, ["train_splits/dia0_utt0.mp4"])
    with pytest.raises(UserError, match="take the sound out of its videos with ffmpeg"):
        CORPORA["meld"].load(tmp_path)
    touch_all(tmp_path, ["train_splits/dia0_utt0.wav"])
    with pytest.raises(UserError, match=r"holds no train_sent_emo.csv"):
        CORPORA["meld"].load(tmp_path)
