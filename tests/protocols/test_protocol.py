"""Resolving a protocol on a corpus, its hash, and the audit for leaks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from emopeft.downstream.protocols.protocol import Resolved
from emopeft.errors import UserError
from tests.protocols.cases import (
    SHIPPED,
    SMALL,
    SUPERB,
    fake_corpus,
    iemocap_like,
    protocol_of,
    utterance,
)


def test_hash_by_hand_and_what_changes_it():
    protocol = protocol_of()
    resolved = protocol.resolve(SMALL)
    rows = [["manifest", "emotion", ["sad", "happy"]]]
    for side, speaker in (("train", "c"), ("dev", "b"), ("test", "a")):
        rows += [["1", side, f"{speaker}{e}", e] for e in ("happy", "sad")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert resolved.hash == hashlib.sha256(text.encode()).hexdigest()
    assert protocol.resolve(SMALL[::-1]).hash == resolved.hash  # not as the file system lists them
    moved = [dataclasses.replace(u, path=Path("/elsewhere") / u.path) for u in SMALL]
    assert protocol.resolve(moved).hash == resolved.hash
    relabelled = [*SMALL, utterance("more", "c", "happy")]
    others = [
        protocol.resolve(relabelled),
        protocol.resolve([*SMALL, utterance("more", "c")]),
        protocol_of(classes=["happy", "sad"]).resolve(SMALL),
        protocol_of(folds=[{"name": "1", "test": ["b"], "dev": ["a"]}]).resolve(SMALL),
        protocol_of(task="other").resolve(SMALL),
    ]
    assert len({resolved.hash, *(o.hash for o in others)}) == 6


def test_labels_counts_and_speakers_of_a_fold():
    labels = {"sad": "sad", "happy": "happy", "excited": "happy"}
    corpus = [*SMALL, utterance("c-exc", "c", "excited"), utterance("x", "c", "bored")]
    corpus.append(utterance("nothing", "c", None))
    resolved = protocol_of(labels=labels).resolve(corpus)
    assert resolved.counts()["1"]["train"] == {"sad": 1, "happy": 2}
    assert resolved.speakers() == {"1": {"train": ["c"], "dev": ["b"], "test": ["a"]}}
    assert resolved.label(corpus[6]) == 1 and resolved.dropped == {"bored": 1, "": 1}
    assert resolved.fold("1") is resolved.folds[0]
    for wrong in (lambda: resolved.label(corpus[7]), lambda: resolved.fold("2")):
        with pytest.raises(UserError):
            wrong()


def test_incomplete_corpora_are_refused_with_everything_that_is_missing():
    corpus = iemocap_like(SHIPPED[SUPERB])
    lacking = [u for i, u in enumerate(corpus) if i % 500]
    with pytest.raises(UserError) as error:
        SHIPPED[SUPERB].resolve(lacking)
    assert "12 of 5531 utterances are not in the corpus (Ses01" in str(error.value)
    assert SUPERB in str(error.value) and "--data" in str(error.value)
    partial = SHIPPED[SUPERB].resolve(lacking, allow_incomplete=True)
    whole = SHIPPED[SUPERB].resolve(corpus)
    assert not partial.complete and len(partial.missing) == 12 and partial.hash != whole.hash

    protocol = SHIPPED["ravdess-6fold"]
    some = [u for u in fake_corpus(protocol) if u.speaker != "07" or u.emotion == "sad"]
    some = [u for u in some if u.speaker != "09"] + [utterance("new", "25", "sad")]
    with pytest.raises(UserError) as error:
        protocol.resolve(some)
    for part in ("neutral 88 instead of 96", "speaker 25 of the corpus", "speaker 09 of the proto"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="speaker 25"):  # a stranger is not incompleteness
        protocol.resolve(some, allow_incomplete=True)


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([u for u in SMALL if u.speaker != "b"], "speaker b of the protocol"),
        ([u for u in SMALL if u.id != "csad"], "fold 1 has no training utterance of sad"),
        ([dataclasses.replace(u, speaker="") for u in SMALL], "6 utterances have no speaker"),
        ([*SMALL, SMALL[0]], "ids stand twice in the corpus \\(asad\\)"),
        ([], "no utterance has one of its labels"),
    ],
)
def test_what_does_not_fit(utterances, message):
    with pytest.raises(UserError, match=message):
        protocol_of().resolve(utterances)


def test_an_id_protocol_notices_other_labels():
    ids = {f"{s}{e}": e for s in "abc" for e in ("sad", "happy")}
    folds = [{"name": "1", "test": ["asad"], "dev": ["bsad"], "train": ["chappy", "csad"]}]
    protocol = protocol_of(unit="id", utterances=ids, folds=folds)
    assert [u.id for u in protocol.resolve(SMALL).folds[0].train] == ["chappy", "csad"]
    other = [dataclasses.replace(SMALL[0], emotion="happy"), *SMALL[1:]]
    with pytest.raises(UserError, match="labelled otherwise in the corpus \\(asad\\)"):
        protocol.resolve(other)


def by_session(*rows: tuple[str, str], **changes) -> Resolved:
    """Two utterances per (session, speaker); test session 1, dev 2, train 3."""
    corpus = [
        utterance(f"{s}{speaker}{e}", speaker, e, session=s)
        for s, speaker in rows
        for e in ("sad", "happy")
    ]
    folds = [{"name": "1", "test": ["1"], "dev": ["2"], "train": ["3"]}]
    return protocol_of(unit="session", folds=folds, **changes).resolve(corpus)


CLEAN = (("1", "a"), ("2", "b"), ("3", "c"))


def test_a_clean_audit_is_plain_data():
    audit = by_session(*CLEAN).audit()
    assert audit["clean"] and json.loads(json.dumps(audit)) == audit
    assert audit["folds"]["1"]["speakers"] == {"train": 1, "dev": 1, "test": 1}


@pytest.mark.parametrize(
    ("rows", "declared", "message"),
    [
        ((*CLEAN, ("3", "a")), False, "speaker a is in test and in train"),
        ((*CLEAN, ("2", "a")), False, "speaker a is in test and in dev"),
        ((*CLEAN, ("3", "b")), False, "speaker b is in dev and in train"),
        ((*CLEAN, ("3", "a")), True, "speaker a is in test and in train"),
        ((*CLEAN, ("2", "a")), True, "speaker a is in test and in dev"),
        ((*CLEAN, ("3", "b")), True, None),
        ((*CLEAN, ("3", "")), False, "2 utterances have no speaker"),
    ],
)
def test_leaks_stop_a_run_unless_the_name_declares_them(rows, declared, message):
    changes = {"name": "mine-random-dev", "speaker_overlap": ["dev"]} if declared else {}
    resolved = by_session(*rows, **changes)
    assert resolved.audit()["clean"] == (message is None)
    if message is None:
        resolved.check_leaks()
        assert resolved.audit()["folds"]["1"]["dev_train"] == ["b"]  # allowed, but in the record
    else:
        with pytest.raises(UserError, match=message):
            resolved.check_leaks()


def test_a_declaration_without_the_name_or_a_name_without_it_counts_for_nothing():
    with pytest.raises(UserError, match="random-dev"):
        by_session(*CLEAN, speaker_overlap=["dev"])
    with pytest.raises(UserError, match="in dev and in train"):
        by_session(*CLEAN, ("3", "b"), name="mine-random-dev").check_leaks()
    sneaky = dataclasses.replace(
        by_session(*CLEAN, ("3", "b")).protocol, speaker_overlap=("dev",)
    )  # not through the file
    resolved = dataclasses.replace(by_session(*CLEAN, ("3", "b")), protocol=sneaky)
    assert not resolved.audit()["clean"]


def test_one_file_under_two_ids_or_one_utterance_on_two_sides_leaks():
    twins = [*SMALL[:-1], dataclasses.replace(SMALL[-1], path=SMALL[0].path)]
    with pytest.raises(UserError, match="asad is on two sides"):
        protocol_of().resolve(twins).check_leaks()
    resolved = protocol_of().resolve(SMALL)
    fold = resolved.folds[0]
    both = dataclasses.replace(fold, dev=(*fold.dev, fold.train[0]))
    with pytest.raises(UserError, match="chappy is on two sides"):
        dataclasses.replace(resolved, folds=(both,)).check_leaks()


def test_the_superb_protocol_is_clean_only_because_it_declares_its_dev_part():
    resolved = SHIPPED[SUPERB].resolve(iemocap_like(SHIPPED[SUPERB]))
    resolved.check_leaks()
    assert len(resolved.audit()["folds"]["1"]["dev_train"]) == 8  # all training speakers
    renamed = dataclasses.replace(resolved.protocol, name="iemocap-superb")
    with pytest.raises(UserError, match="in dev and in train"):
        dataclasses.replace(resolved, protocol=renamed).check_leaks()
