"""The audit of a plan: speakers and audio, over all stages and tests."""

from __future__ import annotations

import dataclasses
import json

import pytest

from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.data.plan import audit_rows, read_rows, write_rows
from emopeft.errors import UserError
from tests.data.plans import heard, staged
from tests.protocols.cases import SMALL, plan_of, protocol_of, utterance


def test_a_leak_between_any_stage_and_any_test_is_seen():
    """REVIEW A5: the audit is over all stages and tests."""
    one = {"name": "one", "train": ["c"], "dev": ["d"]}
    two = {"name": "two", "train": ["f"], "dev": ["e"]}
    plan = staged({"near": ["a"], "far": ["b"]}, one, two)
    assert heard(plan).audit()["clean"] is True
    for uid, other, pair in (
        ("cbad", "bsad", "test and in train"),  # first stage, second test
        ("fbad", "bsad", "test and in train"),
        ("dbad", "asad", "test and in dev"),
        ("dbad", "fsad", "dev and in train"),  # dev of one stage, train of another
    ):
        same = {uid.replace("bad", "sad"): other}
        with pytest.raises(UserError, match=f"the same audio is in {pair}"):
            heard(plan, **same).check_leaks()
    with pytest.raises(UserError, match="speaker manifest/d is in dev and in train"):
        staged({"near": ["a"]}, one, two | {"train": ["d"]}).check_leaks()
    # The same utterances may be tested twice, and the audit says so.
    both = staged({"near": ["a", "b"], "far": ["b"]}, one)
    both.check_leaks()
    assert both.audit()["folds"]["1"]["test_overlaps"] == {"near+far": 2}


def test_the_same_audio_under_two_names_is_a_leak():
    """REVIEW A5: a test part byte-identical to train was recorded as clean."""
    plan = plan_of(protocol_of(), SMALL)
    heard(plan).check_leaks()
    copied = heard(plan, asad="csad")
    with pytest.raises(UserError, match="fold 1: the same audio is in test and in train "):
        copied.check_leaks()
    audit = copied.audit()
    assert audit["clean"] is False
    assert audit["folds"]["1"]["shared_audio"]["test_train"] == [["manifest/asad", "manifest/csad"]]


def test_what_a_corpus_publishes_twice_is_declared_but_never_tested():
    """REVIEW A5: RAVDESS' and CREMA-D's pairs."""
    pair = ("03-01-03-01-02-01-07", "03-01-03-01-02-02-07")
    assert CORPORA["ravdess"].duplicates == (pair,) and len(CORPORA["cremad"].duplicates) == 3
    folds = [{"name": "1", "test": ["a"], "dev": ["b"], "train": ["c"]}]
    plan = dataclasses.replace(
        plan_of(protocol_of(folds=folds), SMALL),
        duplicates=(("manifest/bsad", "manifest/csad"), ("manifest/asad", "manifest/chappy")),
    )
    heard(plan, bsad="csad").check_leaks()
    assert heard(plan, bsad="csad").audit()["folds"]["1"]["shared_audio"]["dev_train"]
    with pytest.raises(UserError, match="in test and in train"):
        heard(plan, asad="chappy").check_leaks()
    with pytest.raises(UserError, match="in dev and in train"):
        heard(plan, bhappy="chappy").check_leaks()
    # A thousand silent clips on both sides are named once each, not a million times.
    names = [f"{s}{i}" for s in "abc" for i in range(1000)]
    corpus = [utterance(n, n[0], ("sad", "happy")[int(n[1:]) % 2]) for n in names]
    silent = heard(plan_of(protocol_of(), corpus), **dict.fromkeys(names, "silence"))
    assert len(silent.audit()["folds"]["1"]["shared_audio"]["test_train"]) == 1999


def test_unknown_speakers_are_unknown_not_disjoint():
    corpus = [*SMALL[:4], *(dataclasses.replace(u, speaker="") for u in SMALL[4:])]
    ids = {u.id: u.emotion for u in corpus}
    sides = {"test": list(ids)[:2], "dev": list(ids)[2:4], "train": list(ids)[4:]}
    by_id = {"unit": "id", "utterances": ids, "folds": [{"name": "1", **sides}]}
    with pytest.raises(UserError, match="2 utterances have no speaker"):
        plan_of(protocol_of(**by_id), corpus).check_leaks()
    plan = plan_of(protocol_of(unknown_speakers=True, **by_id), corpus)
    plan.check_leaks()
    audit = plan.audit()
    assert audit["clean"] is None and audit["unknown"] == 2 and audit["unknown_allowed"] is True
    assert audit["folds"]["1"]["unknown_speakers"] == {"train": 2, "dev": 0, "test": 0}
    assert "2 utterances have no known speaker" in " ".join(plan.warnings)
    leaking = heard(plan, asad="csad").audit()
    assert leaking["clean"] is False and leaking["leaks"]  # what is known still counts


def test_the_audit_is_made_of_the_rows_alone(tmp_path):
    plan = heard(plan_of(protocol_of(), SMALL), asad="csad")
    file = tmp_path / "examples.csv"
    write_rows(file, plan.rows(plan.folds[0]), plan.task.target_names)
    audit = audit_rows({"1": read_rows(file)})
    assert audit == plan.audit() and json.loads(json.dumps(audit)) == audit
