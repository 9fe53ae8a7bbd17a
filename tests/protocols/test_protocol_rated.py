"""Protocols of ratings and of votes: who takes part, on which side, and how many there must be."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter

import pytest

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.protocols.protocol import Protocol
from emopeft.downstream.tasks.base import Column, Task
from emopeft.errors import UserError
from tests.protocols.cases import SHIPPED, iemocap_like, minimal, protocol_of, sides, utterance
from tests.tasks.toy import Together

# Utterances per session: what counts is that they are 10,039 in all.
SESSIONS = dict(zip("12345", (1819, 1811, 2136, 2103, 2170), strict=True))


def rated() -> list[Utterance]:
    """As many utterances as IEMOCAP has, with valence, many of them of no class."""
    return [
        utterance(
            f"Ses0{session}F_impro01_{'FM'[i % 2]}{i:04d}",
            f"Ses0{session}_{'FM'[i % 2]}",
            ["neutral", "undecided", "other", "frustrated"][i % 4],
            session=session,
            corpus="iemocap",
            ratings={"valence": i % 9 / 2 + 1},
        )
        for session, number in SESSIONS.items()
        for i in range(number)
    ]


class Shares(Task):
    """A distribution over a protocol's classes, from votes."""

    name = "shares"

    def __init__(self, protocol: Protocol):
        self.protocol = protocol

    @property
    def target_names(self) -> tuple[str, ...]:
        return self.protocol.classes

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column("truth", "truth", classes=self.protocol.classes),)

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        labels = self.protocol.labels[utterance.corpus]
        shares: Counter[str] = Counter()
        for label, votes in utterance.votes.items():
            if label in labels:
                shares[labels[label]] += votes
        return tuple(shares[c] / shares.total() for c in self.target_names) if shares else None


def test_the_sessions_add_up():
    assert sum(SESSIONS.values()) == 10039 == SHIPPED["iemocap-vad-loso"].total


@pytest.mark.parametrize("name", ["iemocap-vad-loso", "iemocap-vad-random-dev"])
def test_all_of_iemocap_is_tested_once(name):
    plan = Plan.of(SHIPPED[name], Together(), rated())
    plan.check_leaks()
    assert plan.complete and not plan.dropped
    tested = Counter(e.utterance.id for fold in plan.folds for e in fold.tests["test"])
    assert len(tested) == 10039 and set(tested.values()) == {1}
    for i, fold in enumerate(plan.folds):
        found = sides(plan, i)
        assert {u.session for u in found["test"]} == {fold.name}
        assert sum(map(len, found.values())) == 10039
        if name == "iemocap-vad-loso":
            assert {u.session for u in found["dev"]} == {str((i + 1) % 5 + 1)}
            assert not {u.speaker for u in found["dev"]} & {u.speaker for u in found["train"]}
        else:
            dev = {u.id for u in found["dev"]}
            for u in found["dev"] + found["train"]:
                number = int(hashlib.sha256(u.id.encode()).hexdigest(), 16)
                assert (number % 5 == 0) == (u.id in dev)
            share = len(found["dev"]) / (10039 - len(found["test"]))
            assert 0.17 < share < 0.23
            assert {u.speaker for u in found["dev"]} == {u.speaker for u in found["train"]}


def test_one_utterance_less_is_noticed():
    with pytest.raises(UserError, match="published counts: 10038 in all instead of 10039"):
        Plan.of(SHIPPED["iemocap-vad-loso"], Together(), rated()[:-1])
    plan = Plan.of(SHIPPED["iemocap-vad-loso"], Together(), rated()[:-1], allow_incomplete=True)
    assert not plan.complete


def voted() -> list[Utterance]:
    """SUPERB's utterances with votes, and in each session some without a consensus."""
    labelled = [
        dataclasses.replace(u, corpus="iemocap", votes={u.emotion: 2.0, "frustrated": 1.0})
        for u in iemocap_like(SHIPPED["iemocap-loso"])
    ]
    more = [
        ("a", "undecided", {"angry": 1.0, "sad": 1.0, "fearful": 1.0}),
        ("b", "frustrated", {"frustrated": 2.0, "excited": 1.0}),
        ("c", "frustrated", {"frustrated": 3.0}),  # no vote for a class
        ("d", None, {}),
    ]
    return labelled + [
        utterance(name + k, f"Ses0{k}_F", label, session=k, corpus="iemocap", votes=votes)
        for k in SESSIONS
        for name, label, votes in more
    ]


def test_votes_without_a_consensus_take_part():
    protocol = SHIPPED["iemocap-votes-loso"]
    plan = Plan.of(protocol, Shares(protocol), voted())
    plan.check_leaks()
    assert plan.dropped == {"frustrated": 5, "": 5} and plan.complete
    tested = [e for fold in plan.folds for e in fold.tests["test"]]
    assert len(tested) == 5531 + 10
    targets = {e.utterance.id: plan.target(e) for e in tested}
    assert targets["a3"] == (0, 0, 0.5, 0.5)  # neutral, happy, angry, sad
    assert targets["b3"] == (0, 1, 0, 0)
    devs = {
        fold.name: {u.session for u in sides(plan, i)["dev"]} for i, fold in enumerate(plan.folds)
    }
    assert devs == {"1": {"5"}, "2": {"5"}, "3": {"5"}, "4": {"5"}, "5": {"4"}}
    without = [u for u in voted() if u.id != "Ses01F_impro01_F000"]  # neutral
    with pytest.raises(UserError, match="neutral 1707 instead of 1708"):
        Plan.of(protocol, Shares(protocol), without)


def test_without_the_key_only_labels_of_the_map_take_part():
    protocol = dataclasses.replace(SHIPPED["iemocap-votes-loso"], unlabelled=False)
    plan = Plan.of(protocol, Shares(protocol), voted())
    assert sum(plan.dropped.values()) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unlabelled": True, "labels": None, "classes": None}, "'unlabelled' adds to those of"),
        ({"unlabelled": True, "utterances": {"a": "sad"}}, "it needs them, and no 'utterances'"),
        ({"unlabelled": 1}, "key 'unlabelled'"),
        ({"total": -1}, "key 'total'"),
        ({"total": 10**10}, "key 'total'"),
        ({"total": "many"}, "key 'total'"),
    ],
)
def test_keys_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        protocol_of(**changes)


def test_neither_key_is_in_the_plans_hash():
    people = [
        utterance(f"{s}{e}", s, e, corpus="manifest") for s in "abc" for e in ("sad", "happy")
    ]
    hashes = set()
    for changes in ({}, {"total": 6}, {"unlabelled": True}):
        protocol = protocol_of(**changes)
        voted = [dataclasses.replace(u, votes={u.emotion or "": 1.0}) for u in people]
        hashes.add(Plan.of(protocol, Shares(protocol), voted).hash)
    assert len(hashes) == 1 and "total" not in minimal()


def test_classes_from_labels_and_votes():
    protocol = protocol_of(labels=None, classes=None)
    people = [
        utterance("a", "a", "sad", corpus="manifest", votes={"sad": 2.0, "happy": 1.0}),
        utterance("b", "b", None, corpus="manifest", votes={"angry": 1.0}),
    ]
    assert protocol.labelling(people) == (("sad",), {"manifest": {"sad": "sad"}})
    names = ("angry", "happy", "sad")
    assert protocol.labelling(people, votes=True) == (
        names,
        {"manifest": {name: name for name in names}},
    )
