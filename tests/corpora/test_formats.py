"""Databases, data sets and folders of others: the demo corpus in each of them is the demo's."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emopeft.downstream.corpora.base import CORPORA, TreeError, Utterance
from emopeft.downstream.corpora.check import check
from emopeft.downstream.corpora.hugging_face import split_in
from emopeft.errors import UserError
from tests.calls import call, demo_run, predictions
from tests.corpora.trees import touch_all, write_all, write_wav
from tests.shared import ROOT

audformat = pytest.importorskip("audformat")
datasets = pytest.importorskip("datasets")
pandas = pytest.importorskip("pandas")


def clips(demo: Path) -> list[Utterance]:
    return CORPORA["demo"].load(demo)


def make_audformat(demo: Path, root: Path, form: str = "parquet") -> Path:
    """The demo corpus as audEERING's databases are: files, speakers and emotions apart."""
    root.mkdir()
    for session in sorted(demo.glob("session*")):
        (root / session.name).symlink_to(session)
    all_clips = clips(demo)
    db = audformat.Database("demo")
    speakers = sorted({u.speaker for u in all_clips})
    index = pandas.Index(speakers, name="speaker", dtype="string")
    db.schemes["gender"] = audformat.Scheme("str", labels=["female", "male"])
    misc = db["speaker"] = audformat.MiscTable(index)
    misc["gender"] = audformat.Column(scheme_id="gender")
    misc["gender"].set(["female" if s.endswith("F") else "male" for s in speakers])
    db.schemes["speaker"] = audformat.Scheme("str", labels="speaker")
    db.schemes["emotion"] = audformat.Scheme("str", labels=["neutral", "happy", "angry", "sad"])
    db.schemes["rating"] = audformat.Scheme("float")
    # In an order of its own: ids alone decide.
    files = [u.path.relative_to(demo).as_posix() for u in all_clips][::-1]
    columns: dict[str, dict[str, tuple[str | None, Callable[[Utterance], Any]]]] = {
        "files": {"speaker": ("speaker", lambda u: u.speaker), "session": (None, _session)},
        "emotion": {
            "emotion": ("emotion", lambda u: u.emotion),
            "valence": ("rating", lambda u: u.ratings["valence"]),
            "activation": ("rating", lambda u: u.ratings["arousal"]),
        },
    }
    for name, described in columns.items():
        table = db[name] = audformat.Table(audformat.filewise_index(files))
        for column, (scheme, value) in described.items():
            table[column] = audformat.Column(scheme_id=scheme)
            table[column].set([value(u) for u in all_clips[::-1]])
    db.save(str(root), storage_format=form)
    return root


def _session(utterance: Utterance) -> str | None:
    return utterance.session


def casted(rows: list[dict[str, Any]], **features: Any) -> Any:
    """A data set of rows, some columns as audio or classes; no encoder is needed for that."""
    data = datasets.Dataset.from_list(rows)
    for name, feature in features.items():
        data = data.cast_column(name, feature)
    return data


def make_datasets(demo: Path, root: Path, how: str) -> Path:
    """The demo corpus as a data set: its audio within, classes as numbers, sessions as splits."""
    names = ["neutral", "happy", "angry", "sad"]
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for u in clips(demo):
        part = {"1": "test", "2": "validation"}.get(u.session or "", "train")
        audio = {"bytes": u.path.read_bytes(), "path": u.path.name}
        splits[part].append(
            {"audio": audio, "emotion": names.index(str(u.emotion)), "speaker_id": u.speaker,
             "gender": u.sex, "session": int(u.session or 0), "valence": u.ratings["valence"],
             "activation": u.ratings["arousal"]}
        )  # fmt: skip
    kinds = {"audio": datasets.Audio(decode=False), "emotion": datasets.ClassLabel(names=names)}
    made = {name: casted(rows, **kinds) for name, rows in splits.items()}
    if how == "saved":
        datasets.DatasetDict(made).save_to_disk(str(root))
    else:
        (root / "data").mkdir(parents=True)
        for name, data in made.items():
            data.to_parquet(str(root / "data" / f"{name}-00000-of-00001.parquet"))
    return root


RENAMED = {"columns": {"arousal": "activation"}}
MAKERS: dict[str, tuple[str, Callable[[Path, Path], Path]]] = {
    "audformat": ("audformat", make_audformat),
    "audformat as csv": ("audformat", lambda demo, root: make_audformat(demo, root, "csv")),
    "saved": ("huggingface", lambda demo, root: make_datasets(demo, root, "saved")),
    "parquet": ("huggingface", lambda demo, root: make_datasets(demo, root, "parquet")),
}


@pytest.fixture(scope="module")
def made(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("formats")
    return {name: make(demo_corpus, place / name) for name, (_, make) in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_the_utterances_are_the_demos(demo_corpus, made, name):
    corpus = CORPORA[MAKERS[name][0]]
    theirs = {u.id: u for u in corpus.load(made[name], **RENAMED)}
    ours = {u.id: u for u in clips(demo_corpus)}
    assert list(theirs) == sorted(ours)
    for utterance in ours.values():
        other = theirs[utterance.id]
        for field in ("speaker", "emotion", "session", "sex", "ratings", "votes"):
            assert getattr(other, field) == getattr(utterance, field), field
        assert other.path.read_bytes() == utterance.path.read_bytes()
        side = {"1": "test", "2": "validation"}.get(utterance.session or "", "train")
        assert other.split == (None if corpus.name == "audformat" else side)


def test_the_result_is_the_demos(demo_corpus, made, tmp_path):
    """The demo's folds on each of them: the same predictions to the last digit."""
    assert demo_run(demo_corpus, tmp_path, method="none", name="demo") == 0
    shipped = json.loads((ROOT / "downstream/protocols/demo-5fold.json").read_text())

    def without_corpus(run: str) -> list[dict[str, str]]:
        rows = predictions(tmp_path / run / "predictions.csv")
        ids = [{k: row.pop(k).partition("/")[2] for k in ("id", "speaker")} for row in rows]
        rows = [{k: v for k, v in row.items() if k != "split"} for row in rows]
        return [row | names for row, names in zip(rows, ids, strict=True)]

    for name in ("audformat", "saved"):
        corpus = MAKERS[name][0]
        protocol = tmp_path / f"{corpus}.json"
        protocol.write_text(json.dumps(shipped | {"name": "demo-there", "corpus": corpus}))
        flags = ["--corpus", corpus, "--data", made[name], "--protocol", protocol]
        status = demo_run(made[name], tmp_path, *flags, method="none", name=corpus)
        assert status == 0
        assert without_corpus(corpus) == without_corpus("demo")


def test_a_manifests_protocol_fits_and_the_check_works(made, tmp_path, capsys):
    report = check(CORPORA["huggingface"], made["saved"], options=RENAMED, progress=False)
    assert report.ok and report.utterances == 240 and report.speakers == 10
    out = ("--out", tmp_path)
    flags = ["--corpus", "huggingface", "--data", made["saved"], "-u", "demo", "--dry-run", *out]
    assert call("-p", "none", "-d", "emotion", *flags) == 0
    shown = capsys.readouterr().out
    assert "Folds of manifest-split " in shown and "ses2_F ses2_M" in shown
    assert call("-p", "none", "-d", "emotion", *flags, "--protocol", "ravdess-6fold") == 2
    assert "ravdess-6fold is for corpus ravdess" in capsys.readouterr().err


# ---- audformat ---------------------------------------------------------------------------------


def small_audformat(root: Path, tables: dict[str, list[str]], **more: Any) -> Any:
    """Tables with a column emotion over files; audio is there as empty files."""
    db = audformat.Database("small")
    for name, files in tables.items():
        db[name] = audformat.Table(audformat.filewise_index(files))
        db[name]["emotion"] = audformat.Column()
        db[name]["emotion"].set(["happy" if i % 2 else "sad" for i in range(len(files))])
        touch_all(root, files)
    db.save(str(root), storage_format="csv", **more)
    return db


def test_splits_of_tables(tmp_path):
    """nkululeko's and audEERING's: emotion.categories.train.gold_standard."""
    gold = "emotion.categories.{}.gold_standard"
    files = {gold.format("train"): ["a.wav", "b.wav"], gold.format("test"): ["c/d.wav"]}
    small_audformat(tmp_path, files)
    corpus = CORPORA["audformat"]
    assert {u.id: u.split for u in corpus.load(tmp_path)} == {
        "a": "train", "b": "train", "d": "test"
    }  # fmt: skip
    assert {u.speaker for u in corpus.load(tmp_path)} == {""}
    one = corpus.load(tmp_path, tables=gold.format("test"))
    assert [(u.id, u.emotion) for u in one] == [("d", "sad")]


def test_what_audformat_may_not_be(tmp_path):
    small_audformat(tmp_path / "db", {"emotion": ["a.wav", "b.wav"], "again": ["a.wav"]})
    load = CORPORA["audformat"].load

    def refused(text: str, root: Path = tmp_path / "db", **options: Any) -> None:
        with pytest.raises(UserError, match=text):
            load(root, **options)

    refused("a.wav is in the tables again and emotion")
    refused("unknown table of .*: did you mean emotion", tables="emotoin")
    refused("no column 'mood' for label; its columns are emotion", columns={"label": "mood"},
            tables="emotion")  # fmt: skip
    refused("unknown column in the option columns 'labl'", columns={"labl": "emotion"})
    refused("does not exist", root=tmp_path / "none")
    refused("db.yaml does not exist", root=tmp_path)
    # A header or a table that runs something, or pretends to.
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/db.yaml").write_text(f"!!python/object/apply:os.mkdir [{tmp_path}/ran]")
    refused("is not audformat's header", root=tmp_path / "bad")

    class Runs:
        def __reduce__(self):
            return (Path.mkdir, (tmp_path / "ran",))

    (tmp_path / "db/db.again.pkl").write_bytes(pickle.dumps(Runs()))
    assert len(load(tmp_path / "db", tables=["emotion"])) == 2
    refused("is in the tables", tables=["emotion", "again"])
    (tmp_path / "db/db.emotion.csv").rename(tmp_path / "db/db.emotion.pkl")
    refused("no db.emotion.parquet or .csv .a pickle is not opened", tables="emotion")
    assert not (tmp_path / "ran").exists()


def test_segments_are_refused_but_whole_files_are_not(tmp_path):
    db = audformat.Database("segments")
    index = audformat.segmented_index(["a.wav", "b.wav"], ["0s", "0s"], [pandas.NaT, pandas.NaT])
    db["whole"] = audformat.Table(index)
    part = audformat.segmented_index(["a.wav", "b.wav"], ["0s", "1s"], ["1s", "2s"])
    db["parts"] = audformat.Table(part)
    for name in ("whole", "parts"):
        db[name]["emotion"] = audformat.Column()
        db[name]["emotion"].set(["happy", "sad"])
    db.save(str(tmp_path), storage_format="csv")
    touch_all(tmp_path, ["a.wav", "b.wav"])
    assert [u.id for u in CORPORA["audformat"].load(tmp_path, tables="whole")] == ["a", "b"]
    with pytest.raises(UserError, match="parts of .* has segments of files .a.wav from 0 days"):
        CORPORA["audformat"].load(tmp_path, tables="parts")


# ---- Hugging Face ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00001", "train"),
        ("validation-00000-of-00002", "validation"),
        ("default/test/0000", "test"),
        ("data/test_other-00000-of-00001", "test_other"),
        ("data/test.clean-00000-of-00001", "test.clean"),
        ("trainings/x", None),
        ("data/0000", None),
    ],
)
def test_the_split_in_a_path(path, split):
    assert split_in(path) == split


def test_an_audiofolder(tmp_path):
    write_all(tmp_path, ["train/a.wav", "train/sub/b.flac", "test/c.wav"])
    (tmp_path / "train/metadata.csv").write_text(
        "file_name,emotion,speaker\na.wav,happy,x\nsub/b.flac,sad,y\n"
    )
    (tmp_path / "test/metadata.jsonl").write_text(
        '{"file_name": "c.wav", "emotion": "sad", "speaker": null, "gender": "other"}\n'
    )
    found = CORPORA["huggingface"].load(tmp_path)
    assert [(u.id, u.speaker, u.emotion, u.split) for u in found] == [
        ("a", "x", "happy", "train"), ("b", "y", "sad", "train"), ("c", "", "sad", "test")
    ]  # fmt: skip
    assert found[1].path == tmp_path / "train/sub/b.flac"
    assert found[2].sex is None and found[2].traits == {"gender": "other"}


def parquet(root: Path, rows: list[dict[str, Any]], **features: Any) -> Path:
    root.mkdir(exist_ok=True)
    casted(rows, **features).to_parquet(str(root / "train-00000-of-00001.parquet"))
    return root


def test_what_a_data_set_may_not_be(tmp_path):
    load = CORPORA["huggingface"].load
    wav = write_wav(tmp_path / "x.wav").read_bytes()
    audio = datasets.Audio(decode=False)

    def refused(text: str, rows: list[dict[str, Any]], options: Any = None, **features: Any):
        with pytest.raises(UserError, match=text):
            load(parquet(tmp_path / "d", rows, **features), **(options or {}))

    row = {"audio": {"bytes": wav, "path": "x.wav"}, "mood": "sad"}
    refused("has nothing to learn: .*its columns are audio, mood", [row], audio=audio)
    mp3 = {"audio": {"bytes": b"ID3\x04" + wav, "path": "x.mp3"}, "label": "sad"}
    refused("row 0: the audio is neither WAV nor FLAC", [mp3], audio=audio)
    refused("which column is the audio", [{"sound": "x.wav", "label": "sad"}])
    refused("no column 'voice' of audio; its columns are audio, label", [mp3],
            {"columns": {"path": "voice"}}, audio=audio)  # fmt: skip
    (tmp_path / "d/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="parquet cannot be read"):
        load(tmp_path / "d")
    (tmp_path / "e").mkdir()
    with pytest.raises(UserError, match="holds no data set"):
        load(tmp_path / "e")
    (tmp_path / "e/state.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path / "e")


def test_audio_within_is_written_once_and_whole(tmp_path):
    wav = write_wav(tmp_path / "x.wav").read_bytes()
    rows = [{"audio": {"bytes": wav, "path": None}, "label": i} for i in (0, 1, -1)]
    names = datasets.ClassLabel(names=["sad", "happy"])
    root = parquet(tmp_path / "d", rows, audio=datasets.Audio(decode=False), label=names)
    place = tmp_path / "kept"
    found = CORPORA["huggingface"].load(root, files=str(place))
    assert [(u.id, u.emotion) for u in found] == [
        ("train-0", "sad"), ("train-1", "happy"), ("train-2", None)
    ]  # fmt: skip
    (file,) = [path for path in place.rglob("*") if path.is_file()]
    assert {u.path for u in found} == {file} and file.read_bytes() == wav
    times = file.stat().st_mtime_ns
    CORPORA["huggingface"].load(root, files=str(place))
    assert file.stat().st_mtime_ns == times
    file.write_bytes(wav[:100])  # what another program cut off is written again
    CORPORA["huggingface"].load(root, files=str(place))
    assert file.read_bytes() == wav


# ---- folders -----------------------------------------------------------------------------------


def test_folders(tmp_path):
    load = CORPORA["folder"].load
    touch_all(tmp_path / "plain", ["angry/03_a.wav", "sad/03_b.flac", "sad/04_a2.wav"])
    found = load(tmp_path / "plain", speaker="^([0-9]+)_")
    assert [(u.id, u.speaker, u.emotion) for u in found] == [
        ("03_a", "03", "angry"), ("03_b", "03", "sad"), ("04_a2", "04", "sad")
    ]  # fmt: skip
    assert {u.speaker for u in load(tmp_path / "plain")} == {""}
    # Files of one name are told apart by their folders.
    touch_all(tmp_path / "deep", ["train/x/angry/1.wav", "test/y/sad/1.wav"])
    deep = load(tmp_path / "deep", layout="split/speaker/label")
    assert [(u.id, u.speaker, u.emotion, u.split) for u in deep] == [
        ("test/y/sad/1", "y", "sad", "test"), ("train/x/angry/1", "x", "angry", "train")
    ]  # fmt: skip
    for options, text in (
        ({"layout": "split/label"}, "lies in 3 folders, and the layout split/label has 2"),
        ({"layout": "split/speaker"}, "must be words out of label"),
        ({"layout": "label/label"}, "each once"),
        ({"layout": "split/speaker/label", "speaker": "x"}, "leave the option 'speaker' out"),
        ({"layout": "*/*/label", "speaker": "("}, "no regular expression"),
        ({"layout": "*/*/label", "speaker": "[a-z]"}, "is not in its name"),
    ):
        with pytest.raises((UserError, TreeError), match=text.replace("*", "[*]")):
            load(tmp_path / "deep", **options)
