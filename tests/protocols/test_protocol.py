"""A plan of a protocol on a corpus, its hash, and the audit for leaks."""

from __future__ import annotations

import dataclasses
import json

import pytest

from emopeft.downstream.data.fold import Example
from emopeft.downstream.data.plan import Plan
from emopeft.errors import UserError
from tests.protocols.cases import (
    SHIPPED,
    SMALL,
    SUPERB,
    fake_corpus,
    iemocap_like,
    plan_of,
    protocol_of,
    sides,
    speakers,
    utterance,
)


def test_labels_counts_and_speakers_of_a_fold():
    labels = {"sad": "sad", "happy": "happy", "excited": "happy"}
    corpus = [*SMALL, utterance("c-exc", "c", "excited"), utterance("x", "c", "bored")]
    corpus.append(utterance("nothing", "c", None))
    plan = plan_of(protocol_of(labels=labels), corpus)
    assert plan.counts()["1"]["train"] == {"train": {"sad": 1, "happy": 2}}
    assert speakers(plan) == {"train": ["c"], "dev": ["b"], "test": ["a"]}
    assert plan.dropped == {"bored": 1, "": 1}
    excited = dataclasses.replace(corpus[6], corpus="manifest")
    assert plan.target(Example(excited)) == (0.0, 1.0)
    assert plan.fold("1") is plan.folds[0]
    bored = Example(dataclasses.replace(corpus[7], corpus="manifest"))
    for wrong in (lambda: plan.target(bored), lambda: plan.fold("2")):
        with pytest.raises(UserError):
            wrong()


def test_incomplete_corpora_are_refused_with_everything_that_is_missing():
    corpus = iemocap_like(SHIPPED[SUPERB])
    lacking = [u for i, u in enumerate(corpus) if i % 500]
    with pytest.raises(UserError) as error:
        plan_of(SHIPPED[SUPERB], lacking)
    assert "12 of 5531 utterances are not in the corpus (Ses01" in str(error.value)
    assert SUPERB in str(error.value) and "--data" in str(error.value)
    partial = plan_of(SHIPPED[SUPERB], lacking, allow_incomplete=True)
    whole = plan_of(SHIPPED[SUPERB], corpus)
    assert not partial.complete and len(partial.missing) == 12 and partial.hash != whole.hash

    protocol = SHIPPED["ravdess-6fold"]
    some = [u for u in fake_corpus(protocol) if u.speaker != "07" or u.emotion == "sad"]
    some = [u for u in some if u.speaker != "09"] + [utterance("new", "25", "sad")]
    with pytest.raises(UserError) as error:
        plan_of(protocol, some)
    for part in ("neutral 88 instead of 96", "speaker 25 of the corpus", "speaker 09 of the proto"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="speaker 25"):  # a stranger is not incompleteness
        plan_of(protocol, some, allow_incomplete=True)


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
        plan_of(protocol_of(), utterances)


def test_an_id_protocol_notices_other_labels():
    ids = {f"{s}{e}": e for s in "abc" for e in ("sad", "happy")}
    folds = [{"name": "1", "test": ["asad"], "dev": ["bsad"], "train": ["chappy", "csad"]}]
    protocol = protocol_of(unit="id", utterances=ids, folds=folds)
    assert [u.id for u in sides(plan_of(protocol, SMALL))["train"]] == ["chappy", "csad"]
    other = [dataclasses.replace(SMALL[0], emotion="happy"), *SMALL[1:]]
    with pytest.raises(UserError, match="labelled otherwise in the corpus \\(asad\\)"):
        plan_of(protocol, other)


def by_session(*rows: tuple[str, str], **changes) -> Plan:
    """Two utterances per (session, speaker); test session 1, dev 2, train 3."""
    corpus = [
        utterance(f"{s}{speaker}{e}", speaker, e, session=s)
        for s, speaker in rows
        for e in ("sad", "happy")
    ]
    folds = [{"name": "1", "test": ["1"], "dev": ["2"], "train": ["3"]}]
    return plan_of(protocol_of(unit="session", folds=folds, **changes), corpus)


CLEAN = (("1", "a"), ("2", "b"), ("3", "c"))


def test_a_clean_audit_is_plain_data():
    audit = by_session(*CLEAN).audit()
    assert audit["clean"] and json.loads(json.dumps(audit)) == audit
    one = {"train": {"train": 1}, "dev": {"train": 1}, "test": {"test": 1}}
    assert audit["folds"]["1"]["speakers"] == one


@pytest.mark.parametrize(
    ("rows", "declared", "message"),
    [
        ((*CLEAN, ("3", "a")), False, "speaker manifest/a is in test and in train"),
        ((*CLEAN, ("2", "a")), False, "speaker manifest/a is in test and in dev"),
        ((*CLEAN, ("3", "b")), False, "speaker manifest/b is in dev and in train"),
        ((*CLEAN, ("3", "a")), True, "speaker manifest/a is in test and in train"),
        ((*CLEAN, ("2", "a")), True, "speaker manifest/a is in test and in dev"),
        ((*CLEAN, ("3", "b")), True, None),
        ((*CLEAN, ("3", "")), False, "2 utterances have no speaker"),
        ((*CLEAN, ("3", "")), True, "2 utterances have no speaker"),
    ],
)
def test_leaks_stop_a_run_unless_the_name_declares_them(rows, declared, message):
    changes = {"name": "mine-random-dev", "speaker_overlap": ["dev"]} if declared else {}
    plan = by_session(*rows, **changes)
    assert plan.audit()["clean"] == (message is None)
    if message is None:
        plan.check_leaks()
        shared = plan.audit()["folds"]["1"]["shared_speakers"]
        assert shared["dev_train"] == ["manifest/b"]  # allowed, but in the record
    else:
        with pytest.raises(UserError, match=message):
            plan.check_leaks()


def test_a_declaration_without_the_name_or_a_name_without_it_counts_for_nothing():
    with pytest.raises(UserError, match="random-dev"):
        by_session(*CLEAN, speaker_overlap=["dev"])
    with pytest.raises(UserError, match="in dev and in train"):
        by_session(*CLEAN, ("3", "b"), name="mine-random-dev").check_leaks()
    sneaky = dataclasses.replace(
        by_session(*CLEAN, ("3", "b")).protocol, speaker_overlap=("dev",)
    )  # not through the file
    plan = dataclasses.replace(by_session(*CLEAN, ("3", "b")), protocol=sneaky)
    assert not plan.audit()["clean"]


def test_a_test_that_leaks_says_so_in_its_name():
    """Published folds that do not keep speakers apart; the name says it, and nothing else may."""
    rows = (("1", "a"), ("2", "b"), ("3", "a"))
    with pytest.raises(UserError, match="fold 1: speaker manifest/a is in test and in train"):
        by_session(*rows).check_leaks()
    for changes, text in (
        ({"speaker_overlap": ["test"]}, "'leaks' is not in 'mine"),
        ({"speaker_overlap": ["test"], "name": "mine-random-dev"}, "'leaks' is not in"),
        ({"speaker_overlap": ["test"], "name": "mine-bleaks"}, "'leaks' is not in"),
        ({"speaker_overlap": ["train"], "name": "mine-leaks"}, "may hold dev and test"),
    ):
        with pytest.raises(UserError, match=text):
            by_session(*rows, **changes)
    leaks = {"name": "mine-leaks", "speaker_overlap": ["dev", "test"]}
    plan = by_session(*rows, **leaks)
    plan.check_leaks()
    audit = plan.audit()
    assert audit["clean"] is False and audit["leaking"] == ["manifest/a"]
    assert any("1 of 1 test speakers are trained on" in warning for warning in plan.warnings)
    with pytest.raises(UserError, match="says that it leaks, but no speaker of a test"):
        by_session(*CLEAN, **leaks).check_leaks()
    with pytest.raises(UserError, match="in test and in train"):  # the name alone is not enough
        by_session(*rows, name="mine-leaks").check_leaks()


def test_one_utterance_on_two_sides_leaks():
    plan = plan_of(protocol_of(), SMALL)
    (stage,) = plan.folds[0].stages
    both = dataclasses.replace(stage, dev=(*stage.dev, stage.train[0]))
    fold = dataclasses.replace(plan.folds[0], stages=(both,))
    with pytest.raises(UserError, match="manifest/chappy is on two sides"):
        dataclasses.replace(plan, folds=(fold,)).check_leaks()


def test_the_superb_protocol_is_clean_only_because_it_declares_its_dev_part():
    plan = plan_of(SHIPPED[SUPERB], iemocap_like(SHIPPED[SUPERB]))
    plan.check_leaks()
    assert (
        len(plan.audit()["folds"]["1"]["shared_speakers"]["dev_train"]) == 8
    )  # all training speakers
    renamed = dataclasses.replace(plan.protocol, name="iemocap-superb")
    with pytest.raises(UserError, match="in dev and in train"):
        dataclasses.replace(plan, protocol=renamed).check_leaks()
