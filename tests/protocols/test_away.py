"""One corpus' own folds, tested on whole others; classes that corpora share."""

from __future__ import annotations

import dataclasses

import pytest

from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.protocols.makers.base import make
from emopeft.downstream.protocols.makers.shared import canonical, shared_labels
from emopeft.errors import UserError
from tests.protocols.cases import SHIPPED, fake_corpus, plan_of, utterance

FOUR = "classes=angry+happy+neutral+sad"


def of(*names: str) -> list[Utterance]:
    """Published corpora, each as one of its protocols has it."""
    return [
        dataclasses.replace(u, corpus=SHIPPED[name].corpus)
        for name in names
        for u in fake_corpus(SHIPPED[name])
    ]


def made(spec: str, utterances: list[Utterance], *corpora: str):
    return make(spec, [CORPORA[name] for name in corpora], utterances)


def ids(examples) -> list[str]:
    return [e.uid for e in examples]


@pytest.mark.parametrize(
    ("home", "full", "four"),
    [
        ("ravdess", "ravdess-6fold", "ravdess-6fold-4class"),
        ("emodb", "emodb-loso", "emodb-loso-4class"),
        ("tess", "tess-2fold-random-dev", "tess-2fold-4class-random-dev"),
    ],
)
def test_home_is_the_shipped_protocol_of_these_classes(home: str, full: str, four: str) -> None:
    """The shipped four-class folds were made by other code: same sides, order and targets."""
    other = "savee" if home != "savee" else "emodb"
    everyone = of(full, "savee-4fold")
    protocol = made(f"away:home={home},{FOUR}", everyone, other, home)
    plan = plan_of(protocol, everyone)
    shipped = plan_of(SHIPPED[four], [u for u in everyone if u.corpus == home])
    assert protocol.name.startswith(f"away-{home}-on-savee-neutral-happy-sad-angry")
    assert protocol.declared == SHIPPED[four].declared and not plan.audit()["leaks"]
    for own, fold in zip(shipped.folds, plan.folds, strict=True):
        assert own.name == fold.name and list(fold.tests) == [home, "savee"]
        assert ids(fold.tests[home]) == ids(own.tests["test"])
        assert ids(fold.stages[0].train) == ids(own.stages[0].train)
        assert ids(fold.stages[0].dev) == ids(own.stages[0].dev)
        assert [plan.task.class_of(e.utterance) for e in fold.tests[home]] == [
            shipped.task.class_of(e.utterance) for e in own.tests["test"]
        ]
        # The other corpus whole: 15 clips of each speaker and class, 30 neutral ones.
        assert len(fold.tests["savee"]) == 4 * (3 * 15 + 30)
        assert {e.utterance.corpus for e in fold.stages[0].train} == {home}


def test_the_order_of_corpora_changes_nothing_and_homes_differ() -> None:
    everyone = of("ravdess-6fold", "emodb-loso", "savee-4fold")
    three = made("away", everyone, "ravdess", "emodb", "savee")
    assert list(three.folds[0].tests) == ["ravdess", "emodb", "savee"]
    assert three == made("away:home=ravdess", everyone[::-1], "savee", "ravdess", "emodb")
    one = made("away:home=ravdess", everyone, "ravdess", "emodb")
    assert one.name == "away-ravdess-on-emodb-6"
    assert one.classes == ("neutral", "happy", "sad", "angry", "fearful", "disgusted")
    assert made("away", everyone, "emodb", "ravdess").name == "away-emodb-on-ravdess-6"
    # A copy that lacks a clip of the other corpus is not whole.
    lost = next(u for u in everyone if u.corpus == "emodb" and u.emotion == "sad")
    rest = [u for u in everyone if u is not lost and u.corpus != "savee"]
    with pytest.raises(UserError, match="published counts: sad 253 instead of 254"):
        plan_of(made("away", rest, "ravdess", "emodb"), rest)


def test_labels_are_merged_as_each_corpus_merges_them() -> None:
    mixed = [*of("iemocap-loso"), *of("emodb-loso")]
    mixed.append(utterance("Ses01F_x", "Ses01_F", "excited", session="1", corpus="iemocap"))
    corpora = [CORPORA["emodb"], CORPORA["iemocap"]]
    classes, labels = shared_labels(corpora, mixed)
    assert classes == ("neutral", "happy", "sad", "angry")
    assert labels["iemocap"]["excited"] == "happy" and "excited" not in labels["emodb"]
    chosen, _ = shared_labels(corpora, mixed, ["sad", "happy"])
    assert chosen == canonical(["sad", "happy"]) == ("happy", "sad")


@pytest.mark.parametrize(
    ("spec", "corpora", "message"),
    [
        ("away:home=tess", ("emodb", "savee"), "home of protocol away among the corpora 'tess'"),
        ("away", ("emodb",), "needs another corpus to go to: --corpus emodb\\+OTHER"),
        ("away:classes=angry", ("emodb", "savee"), "share only angry; two classes are needed"),
        ("away:classes=angry+bored", ("emodb", "savee"), "class of corpus savee 'bored'"),
        ("away:folds=savee-4fold", ("emodb", "savee"), "is for savee, not emodb"),
        ("away:fold=1", ("emodb", "savee"), "option of protocol away 'fold'"),
    ],
)
def test_mistakes(spec: str, corpora: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(spec, of("emodb-loso", "savee-4fold"), *corpora)


def test_one_data_set_under_two_names_is_refused() -> None:
    with pytest.raises(UserError, match="ravdess and emobox:ravdess are one data set"):
        made("away", of("ravdess-6fold"), "ravdess", "emobox:ravdess")
