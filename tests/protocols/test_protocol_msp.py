"""The official splits of MSP-Podcast and MELD, and the sessions of MSP-Improv, as plans."""

from __future__ import annotations

import dataclasses

import pytest

from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.records.submissions import files_of
from emopeft.downstream.tasks.base import make_task
from emopeft.downstream.tasks.keys import Settings
from emopeft.errors import UserError
from tests.protocols.cases import SHIPPED, plan_of, utterance

EIGHT = ("angry", "sad", "happy", "surprised", "fearful", "disgusted", "contempt", "neutral")


def podcast(dev: str = "Development", hidden: bool = True) -> list[Utterance]:
    """Every class on every side; an unidentified speaker in train, one speaker in two tests."""
    people = {"Train": "1", dev: "2", "Test1": "3", "Test2": "3"}
    found = [
        utterance(
            f"{split}_{label}", who, label, split=split, corpus="msp-podcast",
            ratings={"valence": 4.0, "arousal": 3.0, "dominance": 5.0}, votes={label: 3.0},
        )
        for split, who in people.items()
        for label in EIGHT
    ]  # fmt: skip
    found[0] = dataclasses.replace(found[0], speaker="")
    found += [
        dataclasses.replace(
            found[-1], id=f"{split}_X", emotion=None, votes={"sad": 1.0, "angry": 1.0},
            split=split, speaker=people[split],
        )
        for split in people
    ]  # fmt: skip
    blind = [utterance(f"test3_{i}", "", None, split="Test3", corpus="msp-podcast") for i in (1, 2)]
    return found + blind * hidden


def plan(name: str, utterances: list[Utterance], task: str) -> Plan:
    protocol = SHIPPED[name]
    scales = {"msp-podcast": CORPORA["msp-podcast"].scales}
    scored = [u for u in utterances if u.split != "Test3"]
    made = make_task(task, protocol, scored, Settings(scales=scales))
    return Plan.of(protocol, made, utterances, allow_incomplete="1.11-vad" in name)


@pytest.mark.parametrize("release", ["1.7", "1.11", "1.12"])
@pytest.mark.parametrize(
    ("kind", "task", "tested"),
    [("", "emotion", 8), ("-4class", "emotion", 4), ("-votes", "emotion-soft", 8),
     ("-vad", "dimensional", 9)],
)  # fmt: skip
def test_podcast_has_three_tests_by_name(release: str, kind: str, task: str, tested: int) -> None:
    old = release == "1.7"
    found = podcast("Validation" if old else "Development", hidden=not old)
    made = plan(f"msp-podcast-{release}{kind}", found, task)
    made.check_leaks()
    (fold,) = made.folds
    assert {name: len(part) for name, part in fold.tests.items()} == {
        "test1": tested, "test2": tested
    }  # fmt: skip
    assert {name: len(part) for name, part in fold.unscored.items()} == (
        {} if old else {"test3": 2}
    )
    assert len(fold.stages[0].dev) == len(fold.stages[0].train) == tested
    audit = made.audit()
    assert audit["clean"] is None and audit["unknown"] == (1 if old else 3)


@pytest.mark.parametrize(
    ("kind", "task", "file"), [("", "emotion", "classes"), ("-vad", "dimensional", "attributes")]
)
def test_podcast_hidden_test_is_handed_in_as_the_challenge_takes_it(
    kind: str, task: str, file: str
) -> None:
    made = plan(f"msp-podcast-1.11{kind}", podcast(), task)
    assert [f.name for f in files_of(made.protocol.submission, made.task)] == [file]


def test_podcast_known_speakers_are_kept_apart() -> None:
    found = [dataclasses.replace(u, speaker="3") if u.id == "Train_sad" else u for u in podcast()]
    with pytest.raises(UserError, match="msp-podcast/3 is in test and in train"):
        plan("msp-podcast-1.11", found, "emotion").check_leaks()


def test_podcast_sizes_are_the_publishers() -> None:
    assert SHIPPED["msp-podcast-1.11-vad"].total == 151_654 - 2347  # without Test3
    assert [p.total for n, p in SHIPPED.items() if n.startswith("msp-podcast") and p.total] == [
        149_307
    ]
    assert SHIPPED["msp-podcast-1.11"].classes == EIGHT


def test_meld_is_called_what_it_is() -> None:
    friends = {
        "train": ("Ross", "Joey"), "dev": ("Ross", "Joey"), "test": ("Ross", "Mark")
    }  # fmt: skip
    protocol = SHIPPED["meld-official-leaks"]
    found = [
        utterance(f"{part}_{label}_{who}", who, label, split=part)
        for part, names in friends.items()
        for who in names
        for label in protocol.classes
    ]
    made = plan_of(protocol, found, allow_incomplete=True)
    made.check_leaks()
    assert made.audit()["leaking"] == ["meld/Ross"] and made.audit()["clean"] is False
    assert sum(CORPORA["meld"].expected.values()) == sum(protocol.counts.values()) == 13_706


def test_improv_folds_are_sessions_as_peft_sers() -> None:
    for name in ("msp-improv-loso", "msp-improv-vad-loso", "msp-improv-votes-loso"):
        folds = SHIPPED[name].folds
        assert [(f.tests["test"], f.stages[0].dev) for f in folds] == [
            ((str(k),), ("5" if k == 6 else "6",)) for k in range(1, 7)
        ]
    counts = SHIPPED["msp-improv-loso"].counts
    assert sum(counts.values()) == 7798  # as every list of its four classes has it
    assert counts == {e: CORPORA["msp-improv"].expected[e] for e in counts}
