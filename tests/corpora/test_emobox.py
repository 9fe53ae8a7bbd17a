"""EmoBox's metadata: clips, labels and folds as published, files wherever they lie."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from emopeft.commands import door
from emopeft.downstream.corpora.base import CORPORA, TreeError
from emopeft.downstream.data import prepare as preparing
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.prepare import prepare
from emopeft.downstream.data.recipe import build
from emopeft.downstream.protocols.protocol import Protocol, load_protocol, parse
from emopeft.downstream.tasks.base import make_task
from emopeft.downstream.tasks.keys import Settings
from emopeft.errors import UserError
from tests.calls import call, predictions
from tests.corpora.trees import touch_all, write_all
from tests.protocols.cases import minimal
from tests.shared import SHARED

ACTORS = ("01", "02", "03", "04", "05", "06")
EMOTIONS = {"04": "Sad", "05": "Angry", "08": "Surprised"}
TREE = [f"Actor_{a}/03-01-{e}-01-0{i}-01-{a}.wav" for a in ACTORS for e in EMOTIONS for i in (1, 2)]
FOLDS = {"1": ("01", "02"), "2": ("03", "04"), "3": ("05", "06")}  # who is tested
LABELS = {"Surprised": "Surprise", "Sad": "Sad", "Angry": "Angry", "Calm": "Calm"}


def line(name: str, path: str, emo: str, **more: Any) -> str:
    key = f"{name}-{Path(path).stem.replace('_', '-')}"
    row = {"key": key, "dataset": name, "wav": f"downloads/{name}/{path}", "emo": emo, "channel": 1}
    return json.dumps(row | more)


def metadata(
    root: Path, name: str, folds: Mapping[str, Mapping[str, Iterable[str]]], labels: Any
) -> Path:
    """EmoBox's folder ``data/NAME``; lines per fold and part."""
    for fold, parts in folds.items():
        place = root / name / f"fold_{fold}"
        place.mkdir(parents=True, exist_ok=True)
        for part, lines in parts.items():
            (place / f"{name}_{part}_fold_{fold}.jsonl").write_text("\n".join(lines) + "\n")
    (root / name / "label_map.json").write_text(json.dumps(labels))
    return root


def ravdess(root: Path, test: Mapping[str, Iterable[str]] = FOLDS) -> Path:
    lines = {p: line("ravdess", p, EMOTIONS[Path(p).stem[6:8]]) for p in TREE}
    folds = {
        fold: {
            "test": [lines[p] for p in TREE if p[6:8] in actors or p in actors],
            "train": [lines[p] for p in TREE if not (p[6:8] in actors or p in actors)][::-1],
        }
        for fold, actors in test.items()
    }
    return metadata(root, "ravdess", folds, LABELS)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``audio`` (as FLAC, in other folders) and EmoBox's ``data``."""
    monkeypatch.setenv("EMOPEFT_EMOBOX_METADATA", str(ravdess(tmp_path / "data")))
    write_all(tmp_path / "audio", [f"x/y/{Path(p).stem}.flac" for p in TREE])
    return tmp_path


def protocol(name: str, root: Path, **options: Any) -> Protocol:
    corpus = CORPORA[f"emobox:{name.split('-')[1]}"]
    assert corpus.folds is not None
    return parse(corpus.folds(name, root, **options))


def recipe(box: Path, **keys: Any) -> Any:
    given = {"corpus.name": "emobox:ravdess", "corpus.data": str(box / "audio"),
             "cache.dir": str(box / "cache")}  # fmt: skip
    return build(given | {k.replace("__", "."): v for k, v in keys.items()})


def test_clips_are_those_of_our_own_reader(box):
    theirs = CORPORA["emobox:ravdess"].load(box / "audio")
    ours = CORPORA["ravdess"].load(box / "audio")
    for one, other in zip(theirs, ours, strict=True):
        for field in ("id", "path", "speaker", "emotion", "sex", "style", "ratings"):
            assert getattr(one, field) == getattr(other, field)
    assert theirs[0].uid == "emobox:ravdess/03-01-04-01-01-01-01"
    assert CORPORA["emobox:ravdess"].environment == "EMOPEFT_EMOBOX_RAVDESS"


def test_the_same_folds_give_the_same_predictions(box):
    """Its own protocol, and one of our own reader on both: three runs, one set of numbers."""
    published = protocol("emobox-ravdess-3fold", box / "audio")
    assert published.classes == ("sad", "angry", "surprised")  # our reader's order
    same = minimal(
        name="same-folds",
        classes=list(published.classes),
        labels={c: c for c in published.classes},
        folds=[{"name": "1", "test": ["01", "02"], "dev": ["03", "04"]}],
    )
    (box / "same.json").write_text(json.dumps(same | {"corpus": "ravdess"}))
    runs = {
        "published": ("emobox:ravdess", "emobox-ravdess-3fold"),
        "ours": ("ravdess", box / "same.json"),
        "alike": ("emobox:ravdess", box / "same.json"),
    }
    rows = {}
    for name, (corpus, asked) in runs.items():
        flags = ["--corpus", corpus, "--data", box / "audio", "--protocol", asked, "--fold", "1"]
        steps = ["-o", "train.epochs=2", "--out", box, "-n", name]
        assert call("-u", "fbank", "-p", "none", "-d", "emotion", *flags, *steps) == 0
        rows[name] = [
            {k: v.partition("/")[2] if k in ("id", "speaker") else v for k, v in row.items()}
            for row in predictions(box / name / "predictions.csv")
        ]
    assert len(rows["ours"]) == 12 and rows["ours"] == rows["published"] == rows["alike"]


def test_dev_parts(box):
    root = box / "audio"
    usual = protocol("emobox-ravdess", root)
    assert usual.name == "emobox-ravdess-3fold" and usual.declared == ()
    for fold, actors in zip(usual.folds, FOLDS.values(), strict=True):
        (stage,) = fold.stages
        assert {i[-2:] for i in fold.tests["test"]} == set(actors)
        assert not isinstance(stage.dev, dict) and list(stage.train or ()) == sorted(stage.train)
    assert [{i[-2:] for i in f.stages[0].dev} for f in usual.folds] == [
        {"03", "04"}, {"05", "06"}, {"01", "02"}
    ]  # fmt: skip
    random = protocol("emobox-ravdess-3fold-random-dev", root)
    assert random.declared == ("dev",)
    for fold in random.folds:
        (stage,) = fold.stages
        assert (len(stage.dev), len(stage.train)) == (24 - 19, 19)  # of 24: int(0.8 * 24) = 19
    # As sha256sum has it: 00b8…, 0ebb…, 2375…, 2f5e… and 3cf0… are the five smallest.
    assert list(random.folds[0].stages[0].dev) == [
        "03-01-04-01-01-01-03", "03-01-04-01-02-01-04", "03-01-04-01-02-01-06",
        "03-01-08-01-02-01-04", "03-01-08-01-02-01-05",
    ]  # fmt: skip
    for asked in ("emobox-ravdess-4fold", "emobox-ravdess-3fold-leak", "emobox-ravdess-x"):
        with pytest.raises(UserError, match="folds of ravdess are emobox-ravdess-3fold and"):
            protocol(asked, root)


def test_a_published_dev_part_and_single_folds(tmp_path):
    lines = [line("x", f"{i}.wav", "a" if i % 2 else "b") for i in range(6)]
    parts = {"train": lines[:2], "valid": lines[2:4], "test": lines[4:]}
    labels = {"a": "Fear", "b": "Happy"}
    metadata(tmp_path, "x", {"1": parts}, labels)
    found = protocol("emobox-x-1fold", tmp_path)
    assert found.folds[0].stages[0].dev == ("2", "3") and found.classes == ("fearful", "happy")
    with pytest.raises(UserError, match="publishes a dev part for x: leave -random-dev out"):
        protocol("emobox-x-1fold-random-dev", tmp_path)
    metadata(tmp_path, "y", {"1": {"train": lines[:4], "test": lines[4:]}}, labels)
    with pytest.raises(UserError, match="publishes no dev part for y.*emobox-y-1fold-random-dev"):
        protocol("emobox-y", tmp_path)


def test_folds_that_leak_are_refused_unless_their_name_says_so(box, monkeypatch):
    ravdess(box / "data", {"1": TREE[:10], "2": TREE[10:20], "3": TREE[20:]})
    reading = preparing.scan
    monkeypatch.setattr(preparing, "scan", lambda *_, **__: pytest.fail("audio was read"))
    with pytest.raises(UserError, match="leaks on this corpus: fold 1: speaker emobox:ravdess/02"):
        prepare(recipe(box))
    with pytest.raises(UserError, match="says 'leaks' in its name"):
        prepare(recipe(box, protocol="emobox-ravdess-3fold-random-dev"))
    monkeypatch.setattr(preparing, "scan", reading)
    for name in ("emobox-ravdess-3fold-leaks", "emobox-ravdess-3fold-random-dev-leaks"):
        plan = prepare(recipe(box, protocol=name)).plan
        audit = plan.audit()
        assert audit["clean"] is False and audit["declared"] == ["dev", "test"]
        assert audit["leaking"] == ["emobox:ravdess/02", "emobox:ravdess/04"]
        assert any("2 of 6 test speakers are trained on" in w for w in plan.warnings)
    # What does not leak may not say that it does.
    ravdess(box / "data")
    with pytest.raises(UserError, match="says that it leaks, but no speaker"):
        prepare(recipe(box, protocol="emobox-ravdess-3fold-leaks"))


def test_a_recording_on_two_sides_is_refused_unless_the_name_says_so(box):
    """A clip under two names, of two speakers."""
    one, other = (box / f"audio/x/y/{Path(TREE[i]).stem}.flac" for i in (0, -1))
    other.write_bytes(one.read_bytes())
    with pytest.raises(UserError, match="the same audio is in test and in train"):
        prepare(recipe(box))
    leaking = {"1": [*TREE[:6], TREE[6]], "2": TREE[7:20], "3": TREE[20:]}
    ravdess(box / "data", leaking)
    assert prepare(recipe(box, protocol="emobox-ravdess-3fold-leaks")).plan.audit()["leaks"] == []


def test_speakers_that_emobox_names(tmp_path):
    lines = [line("z", f"{i}.wav", "a") for i in range(4)]
    metadata(tmp_path, "z", {"1": {"train": lines[:2], "test": lines[2:]}}, {"a": "Sad"})
    touch_all(tmp_path, [f"{i}.wav" for i in range(4)])
    assert {u.speaker for u in CORPORA["emobox:z"].load(tmp_path)} == {""}
    said = [f"z-{i} 1 s{i % 2} 0 2.5 <id=z-{i},lang=en,spk=s{i % 2},emotion=a> a" for i in range(4)]
    (tmp_path / "z/data.seg.wrd.stm").write_text("\n".join(said))
    found = CORPORA["emobox:z"].load(tmp_path)
    assert [(u.id, u.speaker, u.emotion) for u in found] == [
        ("0", "s0", "sad"), ("1", "s1", "sad"), ("2", "s0", "sad"), ("3", "s1", "sad")
    ]  # fmt: skip


def test_files_of_one_name(tmp_path):
    """MELD's dia0_utt0 is in train, dev and test: the folders tell, and ids are EmoBox's keys."""
    paths = ["train/dia0.mp4", "test/dia0.mp4", "test/dia1.mp4"]
    rows = [line("m", p, "joy", key=f"m-{i}") for i, p in enumerate(paths)]
    metadata(tmp_path / "data", "m", {"1": {"train": rows[:1], "test": rows[1:]}}, {"joy": "Happy"})
    root = tmp_path / "wav"
    touch_all(root, ["a/train/dia0.wav", "b/test/dia0.wav", "dia1.flac"])
    load = CORPORA["emobox:m"].load

    def found() -> dict[str, str]:
        utterances = load(root, metadata=str(tmp_path / "data"))
        return {u.id: u.path.relative_to(root).as_posix() for u in utterances}

    assert found() == {"m-0": "a/train/dia0.wav", "m-1": "b/test/dia0.wav", "m-2": "dia1.flac"}
    for extra, text in (
        ("c/test/dia0.wav", "m-1: b/test/dia0.wav and c/test/dia0.wav may both be it"),
        ("e/dia1.wav", "m-2: dia1.flac and e/dia1.wav may both be it"),
    ):
        touch_all(root, [extra])
        with pytest.raises(TreeError, match=text):
            found()
        (root / extra).unlink()
    (root / "b/test/dia0.wav").unlink()
    with pytest.raises(TreeError, match=r"1 problem.*\n *m-1: there is no dia0.wav or .flac"):
        found()
    (root / "a/train/dia0.wav").rename(root / "a/dia0.wav")  # whose is it?
    with pytest.raises(TreeError, match="2 problems"):
        found()
    # One file cannot be two clips, though it may be either.
    both = [line("n", f"{side}/wav/d.wav", "joy", key=f"n-{side}") for side in "ab"]
    metadata(tmp_path / "data", "n", {"1": {"train": both[:1], "test": both[1:]}}, {"joy": "Happy"})
    touch_all(tmp_path / "one", ["wav/d.wav"])
    with pytest.raises(TreeError, match="n-a: wav/d.wav is another's, too"):
        CORPORA["emobox:n"].load(tmp_path / "one", metadata=str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("rows", "labels", "text"),
    [
        ([line("x", "1.wav", "c")], {"a": "Sad"}, "line 1: label_map.json has no label 'c'"),
        ([line("x", "1.wav", "A")], {"a": "Sad", "b": "Sad"}, None),  # EmoDB: neutral, Neutral
        ([line("x", "1.wav", "A")], {"a": "Sad", "A": "Calm"}, None),  # ASED: s and S
        (["{}"], {"a": "Sad"}, "key 'key' must be a text"),
        (["[]"], {"a": "Sad"}, "not a JSON object"),
        (["{"], {"a": "Sad"}, "not valid JSON"),
        ([line("x", "1.wav", "a", start_time=1.0)], {"a": "Sad"}, "a part of a longer recording"),
        ([line("x", "1.wav", "a"), line("x", "1.wav", "b")], {"a": "B", "b": "B"}, "not as before"),
        ([line("x", "1.wav", "a")], {"a": 3}, "is not EmoBox's map of labels"),
    ],
)
def test_metadata_that_are_not_emoboxs(tmp_path, rows, labels, text):
    other = [line("x", "2.wav", next(iter(labels)))]
    metadata(tmp_path, "x", {"1": {"train": rows, "test": other}}, labels)
    touch_all(tmp_path, ["1.wav", "2.wav"])
    if text is None:
        assert [u.id for u in CORPORA["emobox:x"].load(tmp_path)] == ["1", "2"]
    else:
        with pytest.raises(UserError, match=text):
            CORPORA["emobox:x"].load(tmp_path)


def test_names_and_places(box, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="name one, as --corpus emobox:ravdess"):
        CORPORA["emobox"].load(tmp_path)
    for name, text in (("emobox:../x", "is no data set"), ("ravdess:x", "leave ':x' out"),
                       ("emobx:ravdess", "did you mean emobox")):  # fmt: skip
        with pytest.raises(UserError, match=text):
            CORPORA[name]
    assert "emobox:anything" in CORPORA and "ravdess:x" not in CORPORA
    assert door.main(["check", "emobox:ravdess", str(box / "audio")]) == 0
    assert "36 utterances, 6 speakers" in capsys.readouterr().out
    with pytest.raises(UserError, match="'ravdes': did you mean ravdess"):
        CORPORA["emobox:ravdes"].load(box / "audio")
    monkeypatch.delenv("EMOPEFT_EMOBOX_METADATA")
    with pytest.raises(UserError, match="no EmoBox metadata of 'ravdess'"):
        CORPORA["emobox:ravdess"].load(box / "audio" / "x")
    for place in (box, box / "data", box / "data/ravdess"):  # checkout, data, the data set's own
        assert len(CORPORA["emobox:ravdess"].load(box / "audio", metadata=str(place))) == 36


def test_several_data_sets_at_once(box):
    rows = [line("savee", f"{s}_{e}{i:02d}.wav", e) for s in ("DC", "JE") for e in ("a", "sa")
            for i in (1, 2)]  # fmt: skip
    labels = {"a": "Angry", "sa": "Sad"}
    metadata(box / "data", "savee", {"1": {"train": rows[:4], "test": rows[4:]}}, labels)
    write_all(box / "both/savee", [f"{json.loads(r)['wav'].split('/')[-1]}" for r in rows])
    (box / "both/ravdess").symlink_to(box / "audio")
    corpora = ["emobox:ravdess", "emobox:savee"]
    pooled = minimal(
        corpus=None, corpora=corpora, classes=["sad", "angry"],
        labels=dict.fromkeys(corpora, {"sad": "sad", "angry": "angry"}),
        folds=[{"name": "1", "test": ["emobox:savee/DC"], "dev": ["emobox:ravdess/01"]}],
    )  # fmt: skip
    (box / "pooled.json").write_text(json.dumps(pooled))
    data = prepare(
        recipe(box, corpus__name="+".join(corpora), corpus__data=str(box / "both"),
               protocol=str(box / "pooled.json"))
    )  # fmt: skip
    (fold,) = data.plan.folds
    assert [e.uid for e in fold.tests["test"]][0] == "emobox:savee/DC_a01"
    assert len(fold.stages[0].train) == 20 + 4


# ---- as published ------------------------------------------------------------------------------

PUBLISHED = [
    # name, folds, clips, test speakers, those of them who are trained on
    ("ravdess", 6, 1440, 24, 0),
    ("savee", 4, 480, 4, 0),
    ("emodb", 5, 535, 10, 10),
    ("cremad", 1, 7442, 91, 91),
]


@pytest.mark.skipif(
    SHARED is None or not (SHARED / "protocols/emobox").is_dir(), reason="no EmoBox metadata"
)
@pytest.mark.parametrize(("name", "number", "clips", "speakers", "leaking"), PUBLISHED)
def test_emoboxs_folds_come_out_as_published(name, number, clips, speakers, leaking, tmp_path):
    """Utterance by utterance, from the files read here with nothing but json; audio not needed."""
    assert SHARED is not None
    place = SHARED / "protocols/emobox"
    corpus = CORPORA[f"emobox:{name}"]

    def listed(fold: int, part: str) -> list[str]:
        file = place / name / f"fold_{fold}/{name}_{part}_fold_{fold}.jsonl"
        return sorted(Path(json.loads(text)["wav"]).stem for text in file.open())

    everyone = {clip for part in ("train", "test") for clip in listed(1, part)}
    touch_all(tmp_path, [f"{clip}.flac" for clip in everyone])
    utterances = corpus.load(tmp_path, metadata=str(place))
    assert len(utterances) == clips == len(everyone) and all(u.speaker for u in utterances)
    ours = {u.id: u.emotion for u in CORPORA[name].load(tmp_path)}
    assert {u.id: u.emotion for u in utterances} == ours
    words = ("-random-dev" if number < 3 else "") + ("-leaks" if leaking else "")
    published = protocol(f"emobox-{name}-{number}fold{words}", tmp_path, metadata=str(place))
    plan = Plan.of(published, make_task("emotion", published, utterances, Settings()), utterances)
    for fold in plan.folds:
        (stage,) = fold.stages
        assert sorted(e.utterance.id for e in fold.tests["test"]) == listed(int(fold.name), "test")
        rest = sorted(e.utterance.id for e in (*stage.train, *stage.dev))
        assert rest == listed(int(fold.name), "train")
    plan.check_leaks()
    tested = {e.utterance.speaker for fold in plan.folds for e in fold.tests["test"]}
    assert len(tested) == speakers
    assert len(plan.audit().get("leaking", [])) == leaking
    if not leaking:  # the shipped folds test the same people
        shipped = load_protocol({"ravdess": "ravdess-6fold", "savee": "savee-4fold"}[name])
        theirs = [{e.utterance.speaker for e in fold.tests["test"]} for fold in plan.folds]
        assert theirs == [set(fold.tests["test"]) for fold in shipped.folds]
