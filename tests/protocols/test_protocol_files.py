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
    protocol_of,
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
    resolved = SHIPPED["manifest-speakers"].resolve(corpus)
    resolved.check_leaks()
    assert resolved.classes == ("happy", "sad") and len(resolved.folds) == folds
    assert sorted(u.id for f in resolved.folds for u in f.test) == sorted(u.id for u in corpus)
    sizes = [len(f.test) for f in resolved.folds]
    assert max(sizes) - min(sizes) <= 4  # the most one speaker has
    assert SHIPPED["manifest-speakers"].resolve(corpus[::-1]).hash == resolved.hash


def test_a_speaker_with_most_of_the_data_is_a_fold_alone():
    corpus = [*speech(12), *(utterance(f"big-{i}", "big", "sad") for i in range(50))]
    folds = SHIPPED["manifest-speakers"].resolve(corpus).speakers().values()
    assert ["big"] in [sides["test"] for sides in folds]


def test_manifest_sessions_take_the_next_session_as_dev():
    resolved = SHIPPED["manifest-sessions"].resolve(speech(12))
    resolved.check_leaks()
    sides = [({u.session for u in f.test}, {u.session for u in f.dev}) for f in resolved.folds]
    assert sides == [({"t0"}, {"t1"}), ({"t1"}, {"t2"}), ({"t2"}, {"t0"})]
    crossing = [dataclasses.replace(u, speaker="s00") if u.id == "s07-0" else u for u in speech(12)]
    with pytest.raises(UserError, match="s00 is in test and in dev"):
        SHIPPED["manifest-sessions"].resolve(crossing).check_leaks()


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
    resolved = SHIPPED["manifest-split"].resolve(split_of(**sides))
    resolved.check_leaks()
    assert resolved.speakers() == {"1": {"train": ["a", "b"], "dev": [dev], "test": [test]}}


def test_a_split_of_ones_own_is_audited_too():
    mixed = split_of(train="ab", dev="b", test="d")
    with pytest.raises(UserError, match="speaker b is in dev and in train"):
        SHIPPED["manifest-split"].resolve(mixed).check_leaks()
    SHIPPED["manifest-split-random-dev"].resolve(mixed).check_leaks()
    with pytest.raises(UserError, match="in test and in train"):
        worse = split_of(train="ab", dev="c", test="b")
        SHIPPED["manifest-split-random-dev"].resolve(worse).check_leaks()


@pytest.mark.parametrize(
    ("protocol", "corpus", "message"),
    [
        ("manifest-speakers", speech(2), "at least three"),
        ("manifest-speakers", [dataclasses.replace(u, speaker="") for u in speech(4)], "no speake"),
        ("manifest-sessions", SMALL, "6 of 6 utterances have no session"),
        ("manifest-split", SMALL, "'ahappy' has no split"),
        ("manifest-split", split_of(train="a", dve="b", test="c"), "did you mean dev"),
        ("manifest-split", split_of(train="a", test="c"), "split 'dev'"),
        ("manifest-split", split_of(train="a", dev="b", test="c", evaluation="d"), "either"),
        ("manifest-speakers", [u for u in speech(4) if u.emotion == "sad"], "two labels"),
        ("manifest-speakers", [utterance("u", "a", None)], "no utterance"),
    ],
)
def test_manifests_that_give_no_folds(protocol, corpus, message):
    with pytest.raises(UserError, match=message):
        SHIPPED[protocol].resolve(corpus)


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
        ({"lables": {}}, "unknown key 'lables' in the protocol: did you mean labels"),
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
        ({"folds": {}}, "key 'folds' must be a list"),
        ({"folds": [{"name": "1", "test": ["a"]}]}, r"key 'folds\[0\].dev' is missing"),
        ({"folds": [{**A_FOLD, "dev": []}]}, r"key 'folds\[0\].dev' is empty"),
        ({"folds": [{**A_FOLD, "dev": ["a"]}]}, "'a' is in test and in dev"),
        ({"folds": [{**A_FOLD, "train": ["a"]}]}, "'a' is in test and in train"),
        ({"folds": [{**A_FOLD, "name": "a/b"}]}, r"key 'folds\[0\].name'"),
        ({"folds": [A_FOLD, A_FOLD]}, "name '1' stands twice"),
        ({"folds": [{**A_FOLD, "dev": {"modulus": 0, "remainder": 0}}]}, "remainder"),
        ({"folds": [{**A_FOLD, "dev": {"modulo": 5}}]}, "unknown key 'modulo'"),
        ({"speaker_overlap": ["test"]}, "key 'speaker_overlap'"),
        ({"speaker_overlap": ["dev"]}, "random-dev"),
        ({"unit": "id"}, "needs the key 'utterances'"),
        ({"unit": "id", "utterances": {"x": "sad"}}, "'a' is not in 'utterances'"),
        ({"unit": "position", "utterances": {"x": "sad"}}, r"folds\[0\].test\[0\]"),
        (
            {
                "unit": "position",
                "utterances": {"x": "sad", "y": "sad"},
                "folds": [{"name": "1", "test": [0], "dev": [2]}],
            },
            "position 2 is past",
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
        (b"{", "not a valid protocol"),
        (b"[1, 2]", "must be an object"),
        (b"\xff\xfe", "cannot read"),
        (b'{"name": "a", "name": "b"}', "key 'name' stands twice"),
        (b"[" * 100_000, "not a valid protocol"),
        (b"", "not a valid protocol"),
    ],
)
def test_files_that_are_no_protocol(tmp_path, content, message):
    own = tmp_path / "mine.json"
    own.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_protocol(own)
    with pytest.raises(UserError, match="does not exist"):
        load_protocol(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot read"):
        load_protocol(tmp_path)
