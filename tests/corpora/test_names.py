"""The corpora whose file names hold the labels: fake trees in the published layouts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from emopeft.downstream.corpora.base import CORPORA, TreeError, Utterance
from emopeft.errors import UserError
from tests.corpora.trees import touch_all
from tests.shared import SHARED, needs_shared


def load(name: str, root: Path, **options: object) -> dict[str, Utterance]:
    return {u.id: u for u in CORPORA[name].load(root, **options)}


# corpus, file, id, speaker, emotion, sex: from the publishers' documentation
CASES = [
    ("ravdess", "Actor_12/03-01-05-01-02-01-12.wav", None, "12", "angry", "female"),
    ("ravdess", "Actor_01/03-01-02-02-02-02-01.WAV", None, "01", "calm", "male"),
    ("ravdess", "deep/er/03-01-08-01-01-01-23.flac", None, "23", "surprised", "male"),
    ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav", None, "1001", "angry", None),
    ("cremad", "AudioWAV/1091_WSI_SAD_HI.flac", None, "1091", "sad", None),
    ("cremad", "1002_IEO_DIS_LO.wav", None, "1002", "disgusted", None),
    ("tess", "OAF_angry/OAF_back_angry.wav", None, "OAF", "angry", "female"),
    ("tess", "a/b/YAF_youth_ps.wav", None, "YAF", "surprised", "female"),
    ("tess", "OA_bite_neutral.wav", "OAF_bite_neutral", "OAF", "neutral", "female"),
    ("savee", "DC/a01.wav", "DC_a01", "DC", "angry", "male"),
    ("savee", "AudioData/KL/sa15.wav", "KL_sa15", "KL", "sad", "male"),
    ("savee", "ALL/JE_su03.wav", "JE_su03", "JE", "surprised", "male"),
    ("savee", "JK_n30.flac", "JK_n30", "JK", "neutral", "male"),
    ("emodb", "wav/03a01Wa.wav", None, "03", "angry", "male"),
    ("emodb", "16b10Lb.flac", None, "16", "bored", "female"),
    ("emodb", "wav/08a02Tb.WAV", None, "08", "sad", "female"),
    ("esd", "0011/Angry/0011_000351.wav", None, "0011", "angry", "male"),
    ("esd", "0018/Surprise/test/0018_001420.wav", None, "0018", "surprised", "female"),
]


@pytest.mark.parametrize(("corpus", "file", "id_", "speaker", "emotion", "sex"), CASES)
def test_one_file(
    tmp_path: Path,
    corpus: str,
    file: str,
    id_: str | None,
    speaker: str,
    emotion: str,
    sex: str | None,
) -> None:
    touch_all(tmp_path, [file])
    (utterance,) = CORPORA[corpus].load(tmp_path)
    assert utterance.id == (id_ or Path(file).stem)
    assert utterance.path == tmp_path / file
    assert (utterance.speaker, utterance.emotion, utterance.sex) == (speaker, emotion, sex)
    assert utterance.style == "acted" and utterance.emotion in CORPORA[corpus].emotions


@pytest.mark.parametrize(
    ("corpus", "file"),
    [
        ("ravdess", "03-02-05-01-02-01-12.wav"),  # a song
        ("ravdess", "01-01-05-01-02-01-12.wav"),  # from a video
        ("ravdess", "._03-01-05-01-02-01-12.wav"),  # macOS's shadow of a file
        ("ravdess", "__MACOSX/03-01-05-01-02-01-12.wav"),
        ("ravdess", "03-01-05-01-02-01-12.txt"),
        ("savee", "noise/a01.wav"),
        ("esd", "0001/Angry/0001_000351.wav"),  # Mandarin, not asked for
        ("emodb", "readme.wav"),
    ],
)
def test_what_is_not_of_the_corpus_is_passed_over(tmp_path: Path, corpus: str, file: str) -> None:
    touch_all(tmp_path, [file])
    with pytest.raises(UserError, match="no utterance of"):
        CORPORA[corpus].load(tmp_path)


@pytest.mark.parametrize(
    ("corpus", "file", "message"),
    [
        ("ravdess", "03-01-09-01-02-01-12.wav", "unknown emotion number 09"),
        ("ravdess", "03-01-01-01-02-01-25.wav", "unknown actor 25"),
        ("cremad", "1001_DFA_XYZ_XX.wav", "unknown emotion XYZ"),
        ("tess", "OAF_back_joy.wav", "unknown emotion 'joy'"),
        ("savee", "DC/x01.wav", "unknown emotion 'x'"),
        ("savee", "AB_a01.wav", "speaker 'AB'"),
        ("emodb", "03a01Xa.wav", "unknown emotion letter X"),
        ("emodb", "04a01Wa.wav", "unknown speaker 04"),
        ("esd", "0011/Joy/0011_000001.wav", "'joy' is none of neutral"),
    ],
)
def test_every_unknown_label_is_listed(
    tmp_path: Path, corpus: str, file: str, message: str
) -> None:
    good = next(case[1] for case in CASES if case[0] == corpus)
    touch_all(tmp_path, [file, good])
    with pytest.raises(TreeError) as caught:
        CORPORA[corpus].load(tmp_path)
    assert len(caught.value.problems) == 1
    assert file in str(caught.value) and message in str(caught.value)
    assert len(caught.value.utterances) == 1  # the good one is still there for the checker


def test_one_id_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    touch_all(tmp_path, ["x/03a01Wa.wav", "y/03a01Wa.flac", "y/03a01Nb.wav"])
    with pytest.raises(TreeError, match=r"'03a01Wa' stands twice: x/03a01Wa.wav and y/03a01Wa"):
        CORPORA["emodb"].load(tmp_path)
    # A link to a folder that is read anyway is not a second copy.
    (tmp_path / "x/03a01Wa.wav").unlink()
    (tmp_path / "z").symlink_to(tmp_path / "y")
    assert len(load("emodb", tmp_path)) == 2


def test_ids_and_order_depend_neither_on_suffix_nor_on_folders(tmp_path: Path) -> None:
    stems = ["03a02Nc", "16b10Lb", "03a01Wa", "08a02Tb"]
    one = touch_all(tmp_path / "one", [f"{s}.wav" for s in stems])
    two = touch_all(tmp_path / "two", [f"{9 - i}/{s}.FLAC" for i, s in enumerate(stems)])
    assert list(load("emodb", one)) == list(load("emodb", two)) == sorted(stems)
    flat = touch_all(tmp_path / "flat", ["DC_a01.wav", "KL_n02.wav"])
    deep = touch_all(tmp_path / "deep", ["KL/n02.wav", "DC/a01.wav"])
    assert list(load("savee", flat)) == list(load("savee", deep))


def test_ravdess_published_names_give_the_published_counts(tmp_path: Path) -> None:
    corpus = CORPORA["ravdess"]
    assert corpus.ids is not None
    touch_all(tmp_path, [f"Actor_{i[-2:]}/{i}.wav" for i in corpus.ids()])
    found = load("ravdess", tmp_path)
    assert Counter(u.emotion for u in found.values()) == dict(corpus.expected)
    assert len(found) == 1440 and Counter(u.sex for u in found.values())["male"] == 720


def test_savee_published_names_give_the_published_counts(tmp_path: Path) -> None:
    corpus = CORPORA["savee"]
    assert corpus.ids is not None
    touch_all(tmp_path, [f"{i}.wav" for i in corpus.ids()])
    found = load("savee", tmp_path)
    assert len(found) == 480 and len({u.speaker for u in found.values()}) == 4
    assert Counter(u.emotion for u in found.values()) == dict(corpus.expected)


def test_esd_languages_and_splits(tmp_path: Path) -> None:
    touch_all(
        tmp_path,
        [
            "0001/Happy/train/0001_000701.wav",
            "0011/Happy/evaluation/0011_000701.wav",
            "0011/Sad/0011_001051.wav",
        ],
    )
    english = load("esd", tmp_path)
    assert {u.id: u.split for u in english.values()} == {
        "0011_000701": "evaluation",
        "0011_001051": None,
    }
    assert set(load("esd", tmp_path, language="mandarin")) == {"0001_000701"}
    assert len(load("esd", tmp_path, language="all")) == 3
    with pytest.raises(UserError, match="unknown language of ESD 'englsh': did you mean english"):
        load("esd", tmp_path, language="englsh")
    with pytest.raises(UserError, match="unknown option of corpus esd 'langage'.*language"):
        load("esd", tmp_path, langage="all")
    both = CORPORA["esd"].with_options(language="all")
    assert sum(both.expected.values()) == 35000 and both.speakers == 20


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_esd_transcripts_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    touch_all(tmp_path, ["0011/0011_000351.wav", "0011/0011_000001.wav"])
    text = "0011_000351\tThe nine the eggs, I keep.\tAngry\n0011_000001\t打远一看。\t中立\n"
    (tmp_path / "0011/0011.txt").write_text(text, encoding=encoding)
    found = load("esd", tmp_path)
    assert {u.id: u.emotion for u in found.values()} == {
        "0011_000351": "angry",
        "0011_000001": "neutral",
    }


def test_esd_transcript_in_latin_1(tmp_path: Path) -> None:
    touch_all(tmp_path, ["0011/0011_000351.wav"])
    (tmp_path / "0011/0011.txt").write_bytes(b"0011_000351\tCaf\xe9\xff.\tAngry\r\n")
    assert load("esd", tmp_path)["0011_000351"].emotion == "angry"


def test_cremad_sex_from_the_demographics(tmp_path: Path) -> None:
    touch_all(tmp_path, ["AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_DFA_ANG_XX.wav"])
    table = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","a","b"\n1002,21,"Female",,\n'
    elsewhere = tmp_path / "tables" / "people.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_text(table)
    named = load("cremad", tmp_path, demographics=str(elsewhere))
    assert [u.sex for u in named.values()] == ["male", "female"]
    assert [u.sex for u in load("cremad", tmp_path).values()] == [None, None]
    (tmp_path / "VideoDemographics.csv").write_text(table)
    assert [u.sex for u in load("cremad", tmp_path).values()] == ["male", "female"]
    assert [u.sex for u in load("cremad", tmp_path / "AudioWAV").values()] == ["male", "female"]
    (tmp_path / "VideoDemographics.csv").write_text("who,what\n1,2\n")
    with pytest.raises(UserError, match=r"VideoDemographics\.csv.*ActorID"):
        load("cremad", tmp_path)


def test_ravdess_intensity_from_the_name(tmp_path: Path) -> None:
    touch_all(tmp_path, ["03-01-05-02-01-02-12.wav", "03-01-01-01-02-01-11.wav"])
    found = load("ravdess", tmp_path)
    assert found["03-01-05-02-01-02-12"].ratings == {"intensity": 2.0}
    assert found["03-01-01-01-02-01-11"].ratings == {"intensity": 1.0}
    assert CORPORA["ravdess"].scales == {"intensity": (1.0, 2.0)}
    touch_all(tmp_path, ["03-01-05-03-01-02-12.wav"])
    with pytest.raises(TreeError, match=r"unknown intensity 03 \(01 or 02\)"):
        load("ravdess", tmp_path)


@needs_shared
def test_cremad_real_names(tmp_path: Path) -> None:
    assert SHARED is not None
    corpus = CORPORA["cremad"]
    meta = SHARED / "data" / "cremad_meta"
    assert corpus.hashes is not None
    table = corpus.hashes(meta)
    assert len(table) == 7442
    assert table["1001_DFA_ANG_XX.wav"] == (
        "c6f94b2592487c7556bd86df7df6e8f4420d1b9c11414aeec9d8e5e640b51495",
        72862,
    )
    # The three pairs of PROTOCOLS.md, section 3: one recording under two labels.
    by_hash: dict[str, list[str]] = {}
    for name, (digest, _) in sorted(table.items()):
        by_hash.setdefault(digest, []).append(name[:12])
    pairs = sorted(names for names in by_hash.values() if len(names) > 1)
    assert pairs == [
        ["1006_TIE_HAP", "1006_TIE_NEU"],
        ["1013_WSI_DIS", "1013_WSI_SAD"],
        ["1017_IWW_ANG", "1017_IWW_FEA"],
    ]
    touch_all(tmp_path / "AudioWAV", table)
    found = load("cremad", tmp_path, demographics=meta / "VideoDemographics.csv").values()
    assert Counter(u.emotion for u in found) == dict(corpus.expected)
    speakers = {u.speaker: u.sex for u in found}
    assert Counter(speakers.values()) == {"male": 48, "female": 43}  # Cao et al. 2014


@needs_shared
def test_real_ravdess_and_emodb() -> None:
    assert SHARED is not None
    ravdess = load("ravdess", SHARED / "data" / "ravdess").values()
    assert Counter(u.emotion for u in ravdess) == dict(CORPORA["ravdess"].expected)
    assert len({u.speaker for u in ravdess}) == 24
    assert Counter(u.ratings["intensity"] for u in ravdess) == {1.0: 96 + 7 * 96, 2.0: 7 * 96}
    emodb = load("emodb", SHARED / "data" / "emodb").values()
    assert Counter(u.emotion for u in emodb) == {
        "angry": 127,
        "neutral": 79,
        "happy": 71,
        "sad": 62,
    }
    assert len({u.speaker for u in emodb}) == 10
