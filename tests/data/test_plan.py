"""A plan: stages and named tests, its hashes by hand, its rows, and its audit."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.data.fold import Example
from emopeft.downstream.data.plan import (
    Plan,
    fold_audio_hash_of,
    fold_hash_of,
    read_rows,
    write_rows,
)
from emopeft.downstream.measures.columns import Column
from emopeft.downstream.protocols.protocol import Protocol
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError
from tests.data.plans import SPOKEN, heard, sha, staged
from tests.protocols.cases import SMALL, plan_of, protocol_of, utterance

# ---- hashes and rows --------------------------------------------------------------------------


def test_hash_by_hand_and_what_changes_it():
    plan = plan_of(protocol_of(), SMALL)
    head = [{"name": "train", "method": None, "freeze": [], "keys": {}}]
    lines = [json.dumps(head, sort_keys=True)]
    for part, name, speaker in (
        ("train", "train", "c"),
        ("dev", "train", "b"),
        ("test", "test", "a"),
    ):
        for e, target in (("happy", [0.0, 1.0]), ("sad", [1.0, 0.0])):
            uid, who = f"manifest/{speaker}{e}", f"manifest/{speaker}"
            lines.append(json.dumps([part, name, uid, who, "clean", 1.0, target]))
    fold = sha("".join(line + "\n" for line in lines))
    task = {"classes": ["sad", "happy"], "name": "emotion", "version": 1}
    whole = json.dumps([task, [["1", fold]]], sort_keys=True, separators=(",", ":"))
    assert plan.hash == sha(whole) and plan.fold_hash(plan.folds[0]) == fold

    assert plan_of(protocol_of(), SMALL[::-1]).hash == plan.hash  # not as files are listed
    assert heard(plan).hash == plan.hash
    stage = {"name": "train", "dev": ["b"], "train": ["c"]}
    one = {"name": "1", "test": ["a"]}
    more = ({"name": "x"}, {"method": "lora"}, {"freeze": ["head"]}, {"keys": {"lr": 1}})
    relabelled = [*SMALL, utterance("more", "c", "happy")]
    others = [
        plan_of(protocol_of(), relabelled),
        plan_of(protocol_of(), [*SMALL, utterance("more", "c")]),
        plan_of(protocol_of(classes=["happy", "sad"]), SMALL),
        plan_of(protocol_of(folds=[{"name": "1", "test": ["b"], "dev": ["a"]}]), SMALL),
        plan_of(protocol_of(folds=[{"name": "2", "test": ["a"], "dev": ["b"]}]), SMALL),
        plan_of(protocol_of(corpus="emodb"), SMALL),
        *(plan_of(protocol_of(folds=[one | {"stages": [stage | m]}]), SMALL) for m in more),
        plan_of(protocol_of(folds=[{"name": "1", "tests": {"x": ["a"]}, "dev": ["b"]}]), SMALL),
    ]  # fmt: skip
    assert len({plan.hash, *(o.hash for o in others)}) == len(others) + 1
    weighted = dataclasses.replace(plan.folds[0].stages[0].train[0], weight=2.0)
    stages = (dataclasses.replace(plan.folds[0].stages[0], train=(weighted,)),)
    other = dataclasses.replace(plan, folds=(dataclasses.replace(plan.folds[0], stages=stages),))
    assert other.hash != plan.hash


def test_one_stage_written_out_is_the_shorthand():
    stage = {"name": "train", "dev": ["b"], "train": ["c"]}
    folds = [{"name": "1", "tests": {"test": ["a"]}, "stages": [stage]}]
    assert plan_of(protocol_of(folds=folds), SMALL).hash == plan_of(protocol_of(), SMALL).hash


def test_the_audio_is_part_of_the_plan():
    """REVIEW A4: other waveforms under the same names are seen."""
    plan = heard(plan_of(protocol_of(), SMALL))
    other = heard(plan, csad="another waveform")
    assert plan.hash == other.hash and plan.audio_hash != other.audio_hash
    fold = plan.folds[0]
    assert plan.fold_audio_hash(fold) == fold_audio_hash_of(plan.rows(fold))
    assert plan.audio_hash == Plan.audio_hash_of({"1": plan.fold_audio_hash(fold)})
    # Of each fold by itself: another one's audio is not in it.
    folds = [{"name": str(i), "test": [t], "dev": [d], "train": ["c"]} for i, t, d in
             ((1, "a", "b"), (2, "b", "d"))]  # fmt: skip
    corpus = [*SMALL, utterance("dsad", "d"), utterance("dhappy", "d", "happy")]
    two = heard(plan_of(protocol_of(folds=folds), corpus))
    changed = heard(two, dsad="another waveform")
    same = [two.fold_audio_hash(f) == changed.fold_audio_hash(f) for f in two.folds]
    assert same == [True, False]


class Ratings(Task):
    """Two numbers, some of them not rated."""

    name = "ratings"

    @property
    def target_names(self) -> tuple[str, ...]:
        return ("valence", "arousal")

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        values = (utterance.ratings.get("valence"), utterance.ratings.get("arousal"))
        if values == (None, None):
            return None
        return tuple(math.nan if v is None else v for v in values)

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column("valence", "truth", missing=True),)


RATED = [
    utterance(f"{s}{i}", s, None, corpus="manifest", ratings=ratings)
    for s in "abc"
    for i, ratings in enumerate([{"valence": 1.5, "arousal": 2.0}, {"arousal": 1 / 3}, {}])
]


def ratings(**changes) -> Protocol:
    return protocol_of(
        **{"task": ["emotion", "ratings"], "labels": None, "classes": None} | changes
    )


def test_a_task_without_classes_takes_what_it_has_targets_for():
    plan = Plan.of(ratings(), Ratings(), RATED)
    ids = [e.utterance.id for _, _, examples in plan.folds[0].parts() for e in examples]
    assert ids == ["c0", "c1", "b0", "b1", "a0", "a1"] and plan.dropped == {"": 3}
    assert plan.counts()["1"]["test"] == {"test": {}} and plan.warnings == ()
    listed = ratings(unit="id", utterances=["a0", "b0", "c0"],
                     folds=[{"name": "1", "test": ["a0"], "dev": ["b0"]}])  # fmt: skip
    assert len(Plan.of(listed, Ratings(), RATED).examples()) == 3
    bare = ratings(unit="id", utterances=["a2", "b0", "c0"],
                   folds=[{"name": "1", "test": ["a2"], "dev": ["b0"]}])  # fmt: skip
    with pytest.raises(UserError, match=r"1 utterances have no target \(a2\)"):
        Plan.of(bare, Ratings(), RATED)


def test_rows_are_read_again_as_they_were_written(tmp_path):
    plan = heard(Plan.of(ratings(), Ratings(), RATED))
    fold = plan.folds[0]
    rows = plan.rows(fold)
    file = tmp_path / "examples.csv"
    write_rows(file, rows, plan.task.target_names)
    again = read_rows(file)
    assert [r[:-1] for r in again] == [r[:-1] for r in rows]
    assert repr(again) == repr(rows)  # NaN is not equal to itself; 1/3 with every digit
    assert fold_hash_of(fold.heads(), again) == plan.fold_hash(fold)
    assert Plan.hash_of(plan.task, {"1": fold_hash_of(fold.heads(), again)}) == plan.hash
    header = file.read_text().splitlines()[0]
    assert header == "part,set,id,speaker,view,weight,audio,target_valence,target_arousal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("part,", "prat,"), "line 1: the header"),
        (lambda t: t.replace("train,train,", "train,../..,", 1), "line 2: the set"),
        (lambda t: t.replace("train,train,", "trian,train,", 1), "line 2: the part 'trian'"),
        (lambda t: t.replace(",1.0,", ",nan,", 1), "line 2: the weight 'nan' is not a number"),
        (lambda t: t.replace(",1.0,", ",-1.0,", 1), "line 2: the weight '-1.0'"),
        (lambda t: t.replace("manifest/c0", "manifest/\x1b[2J", 1), "line 2: the id"),
        (lambda t: t.replace("clean", "", 1), "line 2: the view '' is no name"),
        (lambda t: t.replace(sha("c0"), "0" * 63), "line 2: the audio"),
        (lambda t: t.replace(",1.5,", ",inf,", 1), "line 2: the target 'inf'"),
        (lambda t: t.replace(",1.5,", f",{'9' * 5000},", 1), "line 2: the target"),
        (lambda t: t.replace(",1.5,", ",", 1), "line 2: 8 values under a header of 9"),
        (lambda t: t.replace(",1.5,", ',"1.5,', 1), "line .: "),
    ],
)
def test_rows_that_are_no_rows(tmp_path, change, message):
    plan = heard(Plan.of(ratings(), Ratings(), RATED))
    file = tmp_path / "examples.csv"
    write_rows(file, plan.rows(plan.folds[0]), plan.task.target_names)
    text = file.read_text()
    assert (changed := change(text)) != text
    file.write_text(changed)
    with pytest.raises(UserError, match=message) as error:
        read_rows(file)
    assert "examples.csv" in str(error.value) and "\x1b" not in str(error.value)


def test_one_changed_byte_of_the_rows_gives_one_sentence_or_rows(tmp_path):
    plan = heard(plan_of(protocol_of(), SMALL))
    file = tmp_path / "examples.csv"
    write_rows(file, plan.rows(plan.folds[0]), plan.task.target_names)
    data = file.read_bytes()
    draw = random.Random(0)
    for _ in range(400):
        changed = bytearray(data)
        changed[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(changed)
        try:
            assert all(isinstance(row.weight, float) for row in read_rows(file))
        except UserError as error:
            assert "examples.csv" in str(error)


# ---- stages, tests, views ---------------------------------------------------------------------


def test_stages_and_named_tests_in_order():
    plan = staged(
        {"near": ["a"], "far": ["b"]},
        {"name": "adapt", "train": ["c"], "dev": ["d"], "method": "lora:r=4"},
        {"name": "finish", "dev": ["e"], "freeze": ["head"], "keys": {"lr": 1e-5}},
    )
    (fold,) = plan.folds
    found = [(p, name, sorted({e.utterance.speaker for e in ex})) for p, name, ex in fold.parts()]
    assert found == [
        ("train", "adapt", ["c"]),
        ("dev", "adapt", ["d"]),
        ("train", "finish", ["c", "f"]),  # in no test and no dev part
        ("dev", "finish", ["e"]),
        ("test", "near", ["a"]),
        ("test", "far", ["b"]),
    ]
    assert fold.heads()[1] == {
        "name": "finish", "method": None, "freeze": ["head"], "keys": {"lr": 1e-5}
    }  # fmt: skip
    assert [e.key for e in fold.examples()] == list(dict.fromkeys(
        e.key for _, _, ex in fold.parts() for e in ex
    ))  # fmt: skip
    heard(plan).check_leaks()


def test_choosing_folds():
    folds = [{"name": n, "test": [t], "dev": ["b"]} for n, t in (("1", "a"), ("x", "c"))]
    plan = plan_of(protocol_of(folds=folds), SPOKEN)
    assert [f.name for f in plan.choose("all")] == ["1", "x"]
    assert [f.name for f in plan.choose("x, 1,x")] == ["x", "1"]
    with pytest.raises(UserError, match="unknown fold of protocol mine '3'"):
        plan.choose("1,3")


def test_a_view_is_part_of_an_examples_key():
    one = Example(utterance("x", corpus="ravdess"))
    assert (one.uid, one.key) == ("ravdess/x", "ravdess/x")
    assert dataclasses.replace(one, view="noise10").key == "ravdess/x@noise10"
    for text, wrong in (
        ("nois", "is no view: unknown transformation 'nois': did you mean noise"),
        ("babble", "is 'babble', which is made of other recordings"),
        ("noise:folder=/x", "is 'noise:folder=/x', which is made of other recordings"),
    ):
        for where in ({"view": text}, {"stages": [{"name": "s", "dev": ["b"], "view": text}]}):
            fold = {"name": "1", "test": ["a"], "dev": ["b"], **where}
            fold = {k: v for k, v in fold.items() if k != "dev" or "stages" not in where}
            with pytest.raises(UserError, match=wrong):
                protocol_of(folds=[fold])
    fold = {"name": "1", "test": ["a"], "dev": ["b"], "view": "noise:snr=10.0"}
    plan = plan_of(protocol_of(folds=[fold]), SPOKEN)
    assert {e.view for e in plan.folds[0].tests["test"]} == {"noise:snr=10"}
    assert {e.view for e in plan.folds[0].stages[0].train} == {"noise:snr=10"}
    stages = [{"name": "s", "dev": ["b"]}]
    fold = {"name": "1", "test": ["a"], "stages": stages, "view": "telephone"}
    plan = plan_of(protocol_of(folds=[fold]), SPOKEN)
    assert {e.view for e in plan.folds[0].tests["test"]} == {"telephone"}
    assert {e.view for e in plan.folds[0].stages[0].train} == {"clean"}


# ---- several corpora --------------------------------------------------------------------------


def both_corpora() -> tuple[Protocol, list[Utterance]]:
    """RAVDESS and EmoDB each have a speaker 03 and, here, an utterance 1."""
    protocol = protocol_of(
        corpus=None,
        corpora=["ravdess", "emodb"],
        labels={
            "ravdess": {"sad": "sad", "calm": "happy"},
            "emodb": {"sad": "sad", "happy": "happy"},
        },
        folds=[{"name": "1", "test": ["emodb/03"], "dev": ["ravdess/04"], "train": ["ravdess/03"]}],
    )
    corpus = [
        utterance(f"{speaker}-{i}", speaker, emotion, corpus=name)
        for name, emotions, people in (
            ("ravdess", ("sad", "calm", "happy"), ("03", "04")),
            ("emodb", ("sad", "happy"), ("03",)),
        )
        for speaker in people
        for i, emotion in enumerate(emotions)
    ]
    return protocol, corpus


def test_one_corpus_speaker_03_is_not_the_others():
    protocol, corpus = both_corpora()
    plan = plan_of(protocol, corpus)
    plan.check_leaks()
    rows = plan.rows(plan.folds[0])
    assert {(r.id, r.speaker) for r in rows if r.part == "test"} == {
        ("emodb/03-0", "emodb/03"), ("emodb/03-1", "emodb/03")
    }  # fmt: skip
    assert {r.id for r in rows if r.part == "train"} == {"ravdess/03-0", "ravdess/03-1"}
    assert plan.dropped == {"ravdess/happy": 2}  # each corpus has a label map of its own
    assert protocol.corpus == "ravdess+emodb"
    assert ("ravdess/03-01-03-01-02-01-07", "ravdess/03-01-03-01-02-02-07") in plan.duplicates
    swapped = [dataclasses.replace(u, corpus="ravdess", id="e" + u.id) if u.corpus == "emodb" else u
               for u in corpus]  # fmt: skip
    with pytest.raises(UserError, match="speaker emodb/03 of the protocol is not in the corpus"):
        plan_of(protocol, swapped)


def test_the_same_id_in_two_corpora_is_two_utterances():
    protocol, corpus = both_corpora()
    twins = [dataclasses.replace(u, id=u.id[-1]) if u.speaker == "03" else u for u in corpus]
    assert len(plan_of(protocol, twins).examples()) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpora": ["ravdess", "ravdess"]}, "key 'corpora': 'ravdess' stands twice"),
        ({"labels": {"sad": "sad", "happy": "happy"}}, "a map of labels for each"),
        ({"labels": {"ravdess": {"sad": "sad", "calm": "happy"}}}, "name the same corpora"),
        ({"corpus": "ravdess"}, "not both"),
    ],
)
def test_files_with_several_corpora_that_contradict_themselves(changes, message):
    labels = {"sad": "sad", "happy": "happy"}
    file = {"corpus": None, "corpora": ["ravdess", "emodb"]}
    file |= {"labels": {"ravdess": labels, "emodb": labels}}
    protocol_of(**file)
    with pytest.raises(UserError, match=message):
        protocol_of(**file | changes)


# ---- warnings ---------------------------------------------------------------------------------


def test_parts_that_say_little_are_warned_of():
    """REVIEW A16: nothing warned of a test part of one speaker, or of two classes of four."""
    folds = [{"name": "1", "test": ["1"], "dev": ["2"], "train": ["3"]}]
    corpus = [
        utterance(f"{s}{e}", f"{s}{e % 2}", ("sad", "happy")[e], session=s)
        for s in "123"
        for e in (0, 1)
    ]
    protocol = protocol_of(unit="session", folds=folds)
    assert plan_of(protocol, corpus).warnings == ()
    alone = [dataclasses.replace(u, speaker="1") if u.session == "1" else u for u in corpus]
    (warning,) = plan_of(protocol, alone).warnings
    assert warning.startswith("the test part of fold 1 has one speaker")
    sad = [u for u in corpus if (u.session, u.emotion) != ("2", "happy")]
    first, second = plan_of(protocol, sad).warnings
    assert "the dev part of fold 1 has no utterance of happy: its numbers are over 1 of 2" in first
    assert "the dev part of fold 1 has one speaker" in second
    assert plan_of(protocol_of(), SMALL).warnings == ()  # leaving one speaker out was asked for
