"""Two stages made of two corpora, or of two styles of one: who stands where, and leaks between."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from emopeft.downstream.corpora.base import CORPORA, Corpus, Utterance
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.protocols.makers import transfer
from emopeft.downstream.protocols.makers.base import make
from emopeft.downstream.protocols.protocol import parse
from emopeft.errors import UserError
from tests.data.plans import heard
from tests.protocols.cases import SHIPPED, SUPERB, fake_corpus, plan_of

STYLES = "transfer:source=acted,target=natural"


def corpora(*names: str) -> list[Corpus]:
    return [CORPORA[name] for name in names]


def spoken(corpus: str, protocol: str) -> list[Utterance]:
    """A corpus of the published size; the improvised half of IEMOCAP is natural."""
    return [
        dataclasses.replace(u, corpus=corpus, style="natural" if "impro" in u.id else "acted")
        for u in fake_corpus(SHIPPED[protocol])
    ]


@pytest.fixture(scope="module")
def iemocap() -> list[Utterance]:
    return spoken("iemocap", SUPERB)


@pytest.fixture(scope="module")
def emodb() -> list[Utterance]:
    return spoken("emodb", "emodb-loso")


@pytest.fixture(scope="module")
def ravdess() -> list[Utterance]:
    return spoken("ravdess", "ravdess-6fold")


def sizes(plan: Plan, fold: int = 0) -> dict[str, int]:
    return {f"{part} {name}": len(of) for part, name, of in plan.folds[fold].parts()}


def test_one_corpus_into_another(ravdess: list[Utterance], emodb: list[Utterance]) -> None:
    both = ravdess + emodb
    protocol = make("transfer", corpora("ravdess", "emodb"), both)
    plan = plan_of(protocol, both)
    assert protocol.name == "transfer-ravdess-to-emodb-6"
    assert plan.task.classes == ("neutral", "happy", "sad", "angry", "fearful", "disgusted")
    own = plan_of(SHIPPED["emodb-loso"], emodb)
    first = plan_of(SHIPPED["ravdess-6fold"], ravdess).folds[0]
    assert [f.name for f in plan.folds] == [f.name for f in own.folds]
    known = set(plan.task.classes)

    def of(examples: Any) -> list[str]:
        return [e.uid for e in examples if e.utterance.emotion in known]

    for fold, there in zip(plan.folds, own.folds, strict=True):
        source, target = fold.stages
        assert [source.name, target.name] == list(reversed(fold.tests)) == ["source", "target"]
        assert of(target.train) == of(there.stages[0].train)
        assert of(fold.tests["target"]) == of(there.tests["test"])
        assert of(source.train) == of(first.stages[0].train)
        assert of(source.dev) == of(first.stages[0].dev)
        assert of(fold.tests["source"]) == of(first.tests["test"])
    assert plan.audit()["clean"] is True
    other = make("transfer", corpora("emodb", "ravdess"), both)
    assert other.name == "transfer-emodb-to-ravdess-6" and len(other.folds) == 6
    four = make("transfer:classes=sad+happy+angry+neutral", corpora("ravdess", "emodb"), both)
    assert four.name == "transfer-ravdess-to-emodb-4class" and len(four.classes) == 4
    two = make("transfer:classes=sad+happy", corpora("ravdess", "emodb"), both)
    assert two.name == "transfer-ravdess-to-emodb-happy-sad"
    with pytest.raises(UserError, match="happy 262 instead of 263"):  # it is seen who is missing
        gone = next(u for u in emodb if u.emotion == "happy")
        fewer = [u for u in both if u is not gone]
        plan_of(make("transfer", corpora("ravdess", "emodb"), fewer), fewer)


def test_styles_of_one_corpus(iemocap: list[Utterance]) -> None:
    plan = plan_of(make(STYLES, corpora("iemocap"), iemocap), iemocap)
    assert plan.protocol.name == "transfer-iemocap-acted-to-natural-4class-random-dev"
    assert plan.task.classes == ("neutral", "happy", "sad", "angry")  # excited is happy
    published = plan_of(SHIPPED[SUPERB], iemocap)
    for fold, there in zip(plan.folds, published.folds, strict=True):
        for part in ("train", "dev"):
            found = [e.uid for stage in fold.stages for e in getattr(stage, part)]
            assert sorted(found) == sorted(e.uid for e in getattr(there.stages[0], part))
        assert {e.utterance.style for e in fold.stages[0].train} == {"acted"}
        assert {e.utterance.style for e in fold.tests["target"]} == {"natural"}
    apart = make(f"{STYLES},folds=iemocap-loso", corpora("iemocap"), iemocap)
    assert apart.name == "transfer-iemocap-acted-to-natural-4class"
    assert plan_of(apart, iemocap).audit()["clean"] is True


def planted(made: dict[str, Any], where: str, uid: str) -> dict[str, Any]:
    """The protocol with one utterance put among those of a stage or a test."""
    made = copy.deepcopy(made)
    stage, _, part = where.partition(".")
    for fold in made["folds"]:
        (side,) = [s for s in fold["stages"] if s["name"] == stage]
        side[part].append(uid)
    return made


@pytest.mark.parametrize("where", ["source.train", "source.dev", "target.train", "target.dev"])
@pytest.mark.parametrize("test", ["source", "target"])
def test_leaks_across_stages_and_tests_are_found(
    where: str, test: str, iemocap: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [u for u in iemocap if hash_of(u.id) % 20 == 0]
    options = transfer.Options(source="acted", target="natural", folds="iemocap-loso")
    made = dict(transfer.make(options, corpora("iemocap"), few)) | {"counts": {}}
    tested = made["folds"][0]["tests"][test]
    for fold in made["folds"][1:]:
        fold["tests"][test] = [u for u in fold["tests"][test] if u != tested[0]]
    # A speaker: one of the tested utterances stands in a stage in place of the test.
    leaking = planted(made, where, tested[0])
    for fold in leaking["folds"]:
        fold["tests"][test] = [u for u in fold["tests"][test] if u != tested[0]]
        for stage in fold["stages"]:
            for part in ("train", "dev"):
                kept = dict.fromkeys(stage[part])
                mine = f"{stage['name']}.{part}" == where
                stage[part] = [u for u in kept if mine or u != tested[0]]
    plan = plan_of(parse(leaking), few)
    with pytest.raises(UserError, match=r"fold 1: speaker iemocap/Ses01_[FM] is in test and in"):
        plan.check_leaks()
    # A recording: the same audio under another name, of another speaker.
    clean = plan_of(parse(made), few)
    clean.check_leaks()
    stage, _, part = where.partition(".")
    (side,) = [s for s in clean.folds[0].stages if s.name == stage]
    other = getattr(side, part)[0].utterance.id
    tested_id = clean.folds[0].tests[test][0].utterance.id
    with pytest.raises(UserError, match="the same audio is in test and in"):
        heard(clean, **{other: tested_id}).check_leaks()


def hash_of(name: str) -> int:
    return sum(name.encode())


@pytest.mark.parametrize(
    ("spec", "names", "says"),
    [
        ("transfer", ["iemocap"], "needs a source and a target"),
        ("transfer:source=acted", ["iemocap"], "needs a source and a target"),
        ("transfer:source=acted,target=acted", ["iemocap"], "needs a source and a target"),
        (
            "transfer:source=acted,target=shouted",
            ["iemocap"],
            "unknown style of the corpus .shouted.",
        ),
        (STYLES, ["iemocap", "emodb"], "are styles of one corpus"),
        ("transfer", ["iemocap", "emodb", "ravdess"], "takes two corpora"),
        ("transfer:source_folds=x," + STYLES.partition(":")[2], ["iemocap"], "for two corpora"),
        ("transfer:classes=sad+bored", ["iemocap", "emodb"], "unknown class of corpus iemocap"),
        ("transfer:sort=1", ["iemocap", "emodb"], "unknown option of protocol transfer"),
    ],
)
def test_mistakes(
    spec: str, names: list[str], says: str, iemocap: list[Utterance], emodb: list[Utterance],
    ravdess: list[Utterance],
) -> None:  # fmt: skip
    spoken = {"iemocap": iemocap, "emodb": emodb, "ravdess": ravdess}
    with pytest.raises(UserError, match=says):
        make(spec, corpora(*names), [u for name in names for u in spoken[name]])
