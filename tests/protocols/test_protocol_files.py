"""Protocol files of a user's own, and folds made from a user's own data."""

from __future__ import annotations

import dataclasses
import json

import pytest

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.protocol import load_protocol
from emopeft.errors import UserError
from tests.protocols.cases import (
    SHIPPED,
    SMALL,
    minimal,
    plan_of,
    protocol_of,
    sides,
    speakers,
    utterance,
)


def speech(speakers: int, per_speaker: int = 2, **more) -> list[Utterance]:
    return [
        utterance(f"s{s:02d}-{i}", f"s{s:02d}", ("sad", "happy")[i % 2], session=f"t{s // 4}")
        for s in range(speakers)
        for i in range(per_speaker + s % 3)
    ]


@pytest.mark.parametrize(("speakers", "folds"), [(3, 3), (10, 10), (11, 5), (37, 5)])
def test_manifest_speakers(speakers, folds):
    corpus = speech(speakers)
    plan = plan_of(SHIPPED["manifest-speakers"], corpus)
    plan.check_leaks()
    assert plan.task.describe()["classes"] == ["happy", "sad"] and len(plan.folds) == folds
    assert sorted(e.utterance.id for f in plan.folds for e in f.tests["test"]) == sorted(
        u.id for u in corpus
    )
    sizes = [len(f.tests["test"]) for f in plan.folds]
    assert max(sizes) - min(sizes) <= 4  # the most one speaker has
    assert plan_of(SHIPPED["manifest-speakers"], corpus[::-1]).hash == plan.hash


def test_manifest_sessions_take_the_next_session_as_dev():
    plan = plan_of(SHIPPED["manifest-sessions"], speech(12))
    plan.check_leaks()
    found = [sides(plan, i) for i in range(3)]
    sessions = [({u.session for u in s["test"]}, {u.session for u in s["dev"]}) for s in found]
    assert sessions == [({"t0"}, {"t1"}), ({"t1"}, {"t2"}), ({"t2"}, {"t0"})]
    crossing = [dataclasses.replace(u, speaker="s00") if u.id == "s07-0" else u for u in speech(12)]
    with pytest.raises(UserError, match="manifest/s00 is in test and in dev"):
        plan_of(SHIPPED["manifest-sessions"], crossing).check_leaks()


def split_of(**sides: str) -> list[Utterance]:
    """Per name of a split, the utterances of its speakers."""
    return [
        utterance(f"{name}-{speaker}{e}", speaker, e, split=name)
        for name, speakers in sides.items()
        for speaker in speakers
        for e in ("sad", "happy")
    ]


@pytest.mark.parametrize(
    ("sides", "dev", "test"),
    [
        ({"train": "ab", "dev": "c", "test": "d"}, "c", "d"),
        ({"Train": "ab", "Validation": "c", "Test": "d"}, "c", "d"),
        ({"train": "ab", "development": "c", "evaluation": "d"}, "c", "d"),
        ({"train": "ab", "evaluation": "c", "test": "d"}, "c", "d"),
    ],
)
def test_manifest_split(sides, dev, test):
    plan = plan_of(SHIPPED["manifest-split"], split_of(**sides))
    plan.check_leaks()
    assert speakers(plan) == {"train": ["a", "b"], "dev": [dev], "test": [test]}


@pytest.mark.parametrize(
    ("sides", "tests"),
    [
        ({"Test10": "g", "Test2": "d", "Test1": "e"}, ["test1", "test2", "test10"]),
        ({"test_clean": "d", "TEST": "e", "test-Phone.1": "g"},
         ["test", "test-phone.1", "test_clean"]),
        ({"Test3": "d", "TEST3": "e"}, ["test3"]),
        ({"test1": "de", "test2": "d"}, ["test1", "test2"]),  # a speaker in two tests is no leak
    ],
)  # fmt: skip
def test_each_named_test_of_a_split_stands_by_itself(sides, tests):
    found = split_of(Train="ab", Development="c", **sides)
    plan = plan_of(SHIPPED["manifest-split"], found)
    plan.check_leaks()
    assert list(plan.folds[0].tests) == tests
    for test, examples in plan.folds[0].tests.items():
        own = {u.id for u in found if u.split.lower() == test}
        assert {e.utterance.id for e in examples} == own
    for u in found[:2]:  # of speaker a, who is trained on
        leak = [dataclasses.replace(u, id=f"x{u.id}", split=max(sides))]
        with pytest.raises(UserError, match="speaker manifest/a is in test and in train"):
            plan_of(SHIPPED["manifest-split"], found + leak).check_leaks()


def test_a_split_of_ones_own_is_audited_too():
    mixed = split_of(train="ab", dev="b", test="d")
    with pytest.raises(UserError, match="speaker manifest/b is in dev and in train"):
        plan_of(SHIPPED["manifest-split"], mixed).check_leaks()
    plan_of(SHIPPED["manifest-split-random-dev"], mixed).check_leaks()
    with pytest.raises(UserError, match="in test and in train"):
        worse = split_of(train="ab", dev="c", test="b")
        plan_of(SHIPPED["manifest-split-random-dev"], worse).check_leaks()


@pytest.mark.parametrize(
    ("protocol", "corpus", "message"),
    [
        ("manifest-speakers", speech(2), "at least three"),
        ("manifest-speakers", [dataclasses.replace(u, speaker="") for u in speech(4)], "no speake"),
        ("manifest-sessions", SMALL, "6 of 6 utterances have no session"),
        ("manifest-split", SMALL, "'ahappy' has no split"),
        ("manifest-split", split_of(train="a", dve="b", test="c"), "did you mean dev"),
        ("manifest-split", split_of(train="a", test="c"), "split 'dev'"),
        ("manifest-split", split_of(train="a", dev="b"), "split 'test'"),
        *(
            ("manifest-split", split_of(train="a", dev="b", **{name: "c"}), "names no test: call")
            for name in ("tests", "test 1", "test:phone", "test-", "test-ü", "test1" + 60 * "x")
        ),
        ("manifest-split", split_of(train="a", dev="b", test="c", evaluation="d"), "either"),
        ("manifest-split", split_of(train="a", dev="b", test1="c", evaluation="d"), "either"),
        ("manifest-speakers", [u for u in speech(4) if u.emotion == "sad"], "two labels"),
        ("manifest-speakers", [utterance("u", "a", None)], "no utterance"),
    ],
)
def test_manifests_that_give_no_folds(protocol, corpus, message):
    with pytest.raises(UserError, match=message):
        plan_of(SHIPPED[protocol], corpus)


def test_unknown_names_and_a_users_own_file(tmp_path):
    with pytest.raises(UserError, match="did you mean .*ravdess-6fold"):
        load_protocol("ravdes-6fold")
    own = tmp_path / "mine.json"
    own.write_text(json.dumps(minimal()))
    assert load_protocol(str(own)) == load_protocol(own) == protocol_of()
    assert load_protocol(own).fold_names == ("1",)
    own.write_text(json.dumps(minimal(corpus="ravdes")))
    with pytest.raises(UserError, match="did you mean ravdess"):
        load_protocol(own)


A_FOLD = {"name": "1", "test": ["a"], "dev": ["b"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "key 'name' is missing"),
        ({"name": "../../etc"}, "key 'name'"),
        ({"version": "1"}, "key 'version'"),
        ({"version": True}, "key 'version'"),
        ({"lables": {}}, r"unknown key 'lables' \(did you mean labels"),
        ({"unit": "actor"}, "key 'unit'"),
        ({"labels": None}, "key 'labels' is missing"),
        ({"labels": {"sad": "sad", "x": "glad"}}, "class 'glad' is not in 'classes'"),
        ({"labels": {"sad": "sad"}}, "same classes"),
        ({"labels": {"sad": 3}}, "key 'labels.sad'"),
        ({"classes": ["sad"], "labels": {"sad": "sad"}}, "at least two classes"),
        ({"classes": ["sad", "sad"]}, "key 'classes': 'sad' stands twice"),
        ({"counts": {"sad": -1, "happy": 1}}, "key 'counts.sad'"),
        ({"counts": {"sad": 1}}, "same classes"),
        ({"folds": []}, "key 'folds' is missing or empty"),
        ({"folds": {}}, "key 'folds' must be"),
        ({"folds": [{"name": "1", "test": ["a"]}]}, r"key 'folds\.0': the key 'dev' is missing"),
        ({"folds": [{**A_FOLD, "dev": []}]}, r"key 'folds\.0\.dev': is empty"),
        ({"folds": [{**A_FOLD, "dev": ["a"]}]}, "'a' is in test and in dev"),
        ({"folds": [{**A_FOLD, "train": ["a"]}]}, "'a' is in test and in train"),
        ({"folds": [{**A_FOLD, "name": "a/b"}]}, r"key 'folds\.0\.name'"),
        ({"folds": [A_FOLD, A_FOLD]}, "name '1' stands twice"),
        ({"folds": [{**A_FOLD, "dev": {"modulus": 5, "remainder": 5}}]}, "remainder"),
        ({"folds": [{**A_FOLD, "dev": {"modulo": 5}}]}, r"folds\.0\.dev\.modulus' is missing"),
        ({"speaker_overlap": ["test"]}, "key 'speaker_overlap'"),
        ({"speaker_overlap": ["dev"]}, "random-dev"),
        ({"unit": "id"}, "needs the key 'utterances'"),
        ({"unit": "id", "utterances": {"x": "sad"}}, "'a' is not in 'utterances'"),
        ({"unit": "position", "utterances": {"x": "sad"}}, r"folds\.0\.test' must hold places"),
        (
            {
                "unit": "position",
                "utterances": {"x": "sad", "y": "sad"},
                "folds": [{"name": "1", "test": [0], "dev": [2]}],
            },
            "position 2 is past",
        ),
        (
            {
                "unit": "position",
                "utterances": {"x": "sad", "y": "sad"},
                "folds": [{"name": "1", "test": [0, 0], "dev": [1]}],
            },
            "'0' stands twice",
        ),
        ({"utterances": {"x": "glad"}}, "class 'glad'"),
        ({"unit": "rule"}, "unit 'rule' needs"),
        ({"rule": {"by": "speaker"}}, "key 'rule' belongs"),
        ({"unit": "rule", "folds": None, "rule": {"by": "age"}}, "key 'rule.by'"),
        ({"unit": "rule", "folds": None, "rule": {"by": "speaker", "folds": 2}}, "rule.folds"),
    ],
)
def test_wrong_files_name_the_key(tmp_path, changes, message):
    own = tmp_path / "mine.json"
    own.write_text(json.dumps(minimal(**changes)))
    with pytest.raises(UserError, match=message) as error:
        load_protocol(own)
    assert str(own) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[1, 2]", "the whole must be an object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"name": "a", "name": "b"}', "the key 'name' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "not valid JSON"),
    ],
)
def test_files_that_are_no_protocol(tmp_path, content, message):
    own = tmp_path / "mine.json"
    own.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_protocol(own)
    with pytest.raises(UserError, match="does not exist"):
        load_protocol(tmp_path / "none.json")
    with pytest.raises(UserError, match="is a folder"):
        load_protocol(tmp_path)
