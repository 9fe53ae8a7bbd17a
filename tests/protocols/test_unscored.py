"""Unscored tests of a protocol: who stands in them, and that they stand nowhere else."""

from __future__ import annotations

import math

import pytest

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.rows import UNSCORED
from emopeft.errors import UserError
from tests.protocols.cases import minimal, plan_of, protocol_of, utterance

RULE = {"unit": "rule", "folds": None, "rule": {"by": "split"}, "unscored": ["test3"]}
FOLD = {"name": "1", "tests": {"near": ["a"], "far": ["d"]}, "dev": ["b"]}
LISTED = {"folds": [FOLD], "unscored": ["far"]}
IDS = {
    "unit": "id",
    "utterances": {"asad": "sad", "bsad": "sad", "csad": "sad", "chappy": "happy"},
    "folds": [{"name": "1", "tests": {"near": ["asad"], "far": ["d2", "d1"]}, "dev": ["bsad"]}],
    "unscored": ["far"],
}


def spoken(*blind: Utterance) -> list[Utterance]:
    """Two emotions of speakers a, b and c, and whoever is in the unscored test."""
    split = {"a": "Test1", "b": "dev", "c": "train"}
    known = [utterance(f"{s}{e}", s, e, split=split[s]) for s in "abc" for e in ("sad", "happy")]
    return [*known, *blind]


def blind(name: str, speaker: str = "d", emotion: str | None = None) -> Utterance:
    return utterance(name, speaker, emotion, split="Test3")


def unscored(plan: Plan) -> dict[str, list[str]]:
    return {t: [e.utterance.id for e in of] for t, of in plan.folds[0].unscored.items()}


@pytest.mark.parametrize(
    ("file", "test", "ids"),
    [(RULE, "test3", ["d1", "d2"]), (LISTED, "far", ["d1", "d2"]), (IDS, "far", ["d2", "d1"])],
    ids=["rule", "speakers", "ids"],
)
def test_who_has_no_target_is_tested_all_the_same(file, test, ids):
    # The label of d2 is no class, and no target: as if it were not there.
    found = spoken(blind("d2", emotion="amused"), blind("d1"))
    labels = {} if file is IDS else {"labels": None, "classes": None}
    plan = plan_of(protocol_of(**file, **labels), found)
    assert unscored(plan) == {test: ids} and test not in plan.folds[0].tests
    rows = [r for r in plan.rows(plan.folds[0]) if r.part == UNSCORED]
    assert [r.set for r in rows] == [test, test]
    assert all(map(math.isnan, (x for r in rows for x in r.target)))
    others = {e.utterance.id for p, _, of in plan.folds[0].parts() if p != UNSCORED for e in of}
    assert not others & {"d1", "d2"}
    told = plan_of(protocol_of(**file, **labels), spoken(blind("d2", emotion="sad"), blind("d1")))
    assert any(f"1 utterances of the test '{test}' have a target" in w for w in told.warnings)
    assert told.hash == plan.hash


def test_it_is_a_test_for_the_audit():
    plan = plan_of(protocol_of(**RULE), spoken(blind("d1"), blind("a1", "a")))
    plan.check_leaks()  # a speaker of two tests
    assert plan.audit()["folds"]["1"]["speakers"]["test"] == {"test1": 1, "test3": 2}
    for speaker, side in (("c", "train"), ("b", "dev")):
        plan = plan_of(protocol_of(**RULE), spoken(blind("d1", speaker)))
        with pytest.raises(UserError, match=f"manifest/{speaker} is in test and in {side}"):
            plan.check_leaks()
    same = dict.fromkeys([e.uid for e in plan.examples()], "0" * 64)
    with pytest.raises(UserError, match="the same audio is in test and in train"):
        plan_of(protocol_of(**RULE), spoken(blind("d1"))).with_audio(same, {}).check_leaks()


def test_the_plan_is_another_one():
    found = spoken(blind("d1"))
    without = plan_of(protocol_of(**RULE | {"unscored": []}), found)
    assert plan_of(protocol_of(**RULE), found).hash != without.hash
    assert without.folds[0].unscored == {} and list(without.folds[0].tests) == ["test1"]
    assert any("no utterance of the test 'test3' has a target" in w for w in without.warnings)


def test_counts_are_of_those_with_targets():
    file = RULE | {"counts": {"sad": 3, "happy": 3}, "total": 6}
    assert plan_of(protocol_of(**file), spoken(blind("d1", emotion="sad"))).complete


@pytest.mark.parametrize(
    ("file", "found", "says"),
    [
        (RULE, spoken(), "the unscored test 'test3' of fold 1 is not in the corpus"),
        (LISTED, spoken(), "the unscored test 'far' of fold 1 is not in the corpus"),
        (IDS, spoken(blind("d1")), "1 of 2 utterances of the unscored test 'far'"),
    ],
)
def test_what_is_not_there_is_a_gap(file, found, says):
    with pytest.raises(UserError, match=says):
        plan_of(protocol_of(**file), found)
    plan = plan_of(protocol_of(**file), found, allow_incomplete=True)
    assert not plan.complete and len(plan.folds[0].unscored) == (file is IDS)


def test_a_fold_with_nothing_to_measure_is_refused():
    found = [u for u in spoken(blind("d1")) if u.split != "Test1"]
    with pytest.raises(UserError, match="fold 1 has only unscored tests"):
        plan_of(protocol_of(**RULE), found)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (RULE | {"rule": {"by": "speaker"}}, "a rule by speaker makes none"),
        (LISTED | {"unscored": ["phone"]}, "no fold has the test 'phone'"),
        (LISTED | {"unscored": ["near", "far"]}, "fold 1 has only 'unscored' tests"),
        (LISTED | {"unscored": ["far", "far"]}, "'far' stands twice"),
        (LISTED | {"folds": [FOLD, FOLD | {"name": "2", "dev": ["d"], "tests": {"near": ["a"]}}]},
         "'d' is in an 'unscored' test and elsewhere"),
        (LISTED | {"folds": [FOLD | {"tests": {"near": ["a", "d"], "far": ["d"]}}]},
         "'d' is in an 'unscored' test and elsewhere"),
        (IDS | {"utterances": {"asad": "sad", "bsad": "sad", "csad": "happy", "d1": "sad"}},
         "'d1' is in an 'unscored' test and elsewhere"),
        (IDS | {"unit": "position", "folds": [FOLD | {"tests": {"near": [0], "far": [1]},
                                                     "dev": [2]}]}, "needs unit 'id'"),
        ({"submission": "msp-podcast"}, "name the test"),
    ],
)  # fmt: skip
def test_protocols_that_make_no_sense(file, says):
    with pytest.raises(UserError, match=says):
        protocol_of(**file)
    assert protocol_of(**minimal())
