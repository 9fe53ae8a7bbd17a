"""Several corpora as one: shipped over eight emotions, and made of whatever is there."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

import pytest

from emopeft.downstream.corpora import ravdess
from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.protocols.makers.base import make
from emopeft.errors import UserError
from tests.corpora.trees import touch_all
from tests.protocols.cases import SHIPPED, plan_of, utterance

CREMAD = {"ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "NEU": 1087, "SAD": 1271}
SAVEE = {"a": 15, "d": 15, "f": 15, "h": 15, "n": 30, "sa": 15, "su": 15}
NAMES = {
    "ravdess": [f"Actor_{name[-2:]}/{name}.wav" for name in ravdess.ids()],
    "cremad": [
        f"AudioWAV/{1001 + i % 91}_{'ABCDEFGHIJKLMN'[i // 91] * 3}_{emotion}_XX.wav"
        for emotion, number in CREMAD.items()
        for i in range(number)
    ],
    "tess": [
        f"{speaker}/{speaker}_word{i}_{emotion}.wav"
        for speaker in ("OAF", "YAF")
        for emotion in ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")
        for i in range(200)
    ],
    "savee": [
        f"{speaker}/{emotion}{i:02d}.wav"
        for speaker in ("DC", "JE", "JK", "KL")
        for emotion, number in SAVEE.items()
        for i in range(number)
    ],
}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """The utterances of four trees of names, as their readers give them."""
    root = tmp_path_factory.mktemp("four")
    trees = {name: touch_all(root / name, files) for name, files in NAMES.items()}
    return [u for name, tree in trees.items() for u in CORPORA[name].load(tree)]


def groups_of(plan: Plan) -> list[list[Utterance]]:
    return [[e.utterance for e in fold.tests["test"]] for fold in plan.folds]


def test_eight_emotions(four: list[Utterance]) -> None:
    """The paper's counts, every file tested once, nobody on two sides, folds alike."""
    plan = plan_of(SHIPPED["eight-emotions"], four)
    plan.check_leaks()
    assert plan.complete and plan.audit()["clean"] is True and not plan.warnings
    groups = groups_of(plan)
    everyone = [u for group in groups for u in group]
    assert len({u.uid for u in everyone}) == len(everyone) == len(four) == 12_162
    assert Counter(u.emotion for u in everyone) == {
        "angry": 1923, "disgusted": 1923, "fearful": 1923, "happy": 1923, "sad": 1923,
        "neutral": 1703, "surprised": 652, "calm": 192,
    }  # fmt: skip
    for fold in plan.folds:
        who = [{e.utterance.speaker_uid for e in part} for _, _, part in fold.parts()]
        assert sum(map(len, who)) == len(set().union(*who)) == 24 + 91 + 2 + 4
        assert {e.utterance.corpus for e in fold.stages[0].train} == set(NAMES)
    voices = [Counter(c for c, _ in {(u.corpus, u.speaker) for u in group}) for group in groups]
    assert all(4 <= v["ravdess"] <= 5 and 18 <= v["cremad"] <= 19 for v in voices)
    assert sorted(v["tess"] for v in voices) == [0, 0, 0, 1, 1]


def test_eight_emotions_that_leak_say_so(four: list[Utterance]) -> None:
    plan = plan_of(SHIPPED["eight-emotions-random-leaks"], four)
    audit = plan.audit()
    assert audit["leaks"] == [] and audit["clean"] is False and len(audit["leaking"]) == 121
    for number, group in enumerate(groups_of(plan)):
        assert 2250 < len(group) < 2620 and {u.emotion for u in group} == set(plan.task.classes)
        for u in group:
            sha = hashlib.sha256(f"{u.corpus}/{u.id}".encode()).hexdigest()
            assert int(sha, 16) % 5 == number
    # A missing file moves none of the others.
    fewer = plan_of(plan.protocol, four[1:], allow_incomplete=True)
    assert [set(b) - set(a) for a, b in zip(groups_of(plan), groups_of(fewer), strict=True)] == [
        set()
    ] * 5


# ---- pools that are made ------------------------------------------------------------------------


def clips(corpus: str, speakers: int, *labels: str, each: int = 2, **more) -> list[Utterance]:
    return [
        utterance(f"{s:02d}{label}{i}", f"{s:02d}", label, corpus=corpus, **more)
        for s in range(speakers)
        for label in labels
        for i in range(each)
    ]


IEMOCAP = clips("iemocap", 10, "excited", "happy", "angry", "sad", "neutral", "frustrated")
SIX = ("angry", "disgusted", "fearful", "happy", "neutral", "sad")


def pooled(spec: str, *parts: list[Utterance], order: str | None = None) -> Plan:
    found = [u for part in parts for u in part]
    names = order.split("+") if order else list(dict.fromkeys(u.corpus for u in found))
    protocol = make(spec, [CORPORA[name] for name in names], found)
    return plan_of(protocol, found, allow_incomplete=True)


def test_a_pool_is_the_same_however_it_is_asked_for() -> None:
    emodb = clips("emodb", 10, *SIX, "bored", sex="male")
    one = pooled("pool", IEMOCAP, emodb)
    assert one.protocol.name == "pool-emodb-iemocap-4"
    assert one.task.classes == ("neutral", "happy", "sad", "angry")
    excited = next(u for u in IEMOCAP if u.emotion == "excited")
    assert one.task.class_of(excited) == "happy"  # as IEMOCAP's own protocol has it
    for spec, order in (
        ("pool", "emodb+iemocap"),
        ("pool:classes=sad+angry+neutral+happy,folds=5", None),
    ):
        other = pooled(spec, emodb[::-1], IEMOCAP, order=order)
        assert other.hash == one.hash and other.protocol.name == one.protocol.name
    three = pooled("pool:folds=3", IEMOCAP, emodb)
    assert len(three.folds) == 3 and three.protocol.name == "pool-emodb-iemocap-4-3fold"


def test_classes_of_a_pool() -> None:
    emodb = clips("emodb", 10, *SIX, "bored")
    every = pooled("pool:classes=all", IEMOCAP, emodb)
    assert every.protocol.name == "pool-emodb-iemocap-all-7"
    assert every.task.classes[-1] == "bored" and "excited" not in every.task.classes
    some = pooled("pool:classes=excited+happy+bored", IEMOCAP, emodb)
    assert some.protocol.name == "pool-emodb-iemocap-happy-bored-excited"
    assert some.task.class_of(next(u for u in IEMOCAP if u.emotion == "excited")) == "excited"
    many = [
        clips(name, 3, *SIX) for name in ("cafe", "emovo", "emozionalmente", "subesco", "shemo")
    ]
    assert len(pooled("pool:classes=sad+angry+happy+neutral+fearful", *many).protocol.name) <= 60


def test_every_fold_tests_as_much_of_each_corpus_class_and_sex() -> None:
    """Two kinds of speakers by turns, the first two men of five: dealt by name, folds would have
    one kind, and dealt by kind men or women alone."""

    def corpus(name: str, speakers: int, each: int) -> list[Utterance]:
        return [
            dataclasses.replace(u, sex=("male", "female")[int(u.speaker) // 2 % 5 > 1])
            for u in clips(name, speakers, *SIX, each=each)
            if (u.emotion in SIX[:3]) == (int(u.speaker) % 2 == 0)
        ]

    plan = pooled("pool", corpus("cremad", 40, each=3), corpus("emodb", 20, each=4))
    plan.check_leaks()
    for group in groups_of(plan):
        people = {u.speaker_uid: u for u in group}.values()
        kinds = Counter((u.corpus, u.emotion in SIX[:3]) for u in people)
        men = Counter(u.corpus for u in people if u.sex == "male")
        assert set(kinds.values()) == {4, 2} and kinds["emodb", True] == kinds["emodb", False] == 2
        assert men["cremad"] in (3, 4) and men["emodb"] in (1, 2)  # a fifth of 16 and of 8


@pytest.mark.parametrize(
    ("spec", "parts", "words"),
    [
        ("pool:folds=2", [IEMOCAP], "folds=2 does not go with 10 speakers.* 3 to 10"),
        ("pool:folds=11", [IEMOCAP], "folds=11 does not go with 10 speakers"),
        ("pool:classes=sad", [IEMOCAP], "only the class sad; name some as pool:classes="),
        ("pool:classes=sad+hapy", [IEMOCAP], "unknown class of corpora iemocap 'hapy'.* happy"),
        ("pool", [IEMOCAP, clips("emobox:iemocap", 3, "sad", "angry")],
         "emobox:iemocap and iemocap are one data set under two names"),
        ("pool:clases=all", [IEMOCAP], "unknown option of protocol pool 'clases'.* classes"),
        ("pool:classes=bored+disgusted", [IEMOCAP, clips("emodb", 3, *SIX, "bored")],
         "corpus iemocap has none of the classes disgusted, bored; leave it out"),
        ("pool", [clips("jl", 4, "anxious", "angry"), clips("aesdd", 4, "angry", "sad"),
                  clips("urdu", 4, "angry"), clips("manifest", 4, "anxious")], "come to no class"),
        ("pool", [IEMOCAP, [Utterance("x", Path("x.wav"), "", "sad", corpus="manifest"),
                            *clips("manifest", 3, "angry", "neutral")]],
         r"1 of \d+ utterances of corpus manifest have no speaker \(x\).* leave manifest out"),
    ],
)  # fmt: skip
def test_what_cannot_be_pooled_is_told(spec: str, parts: list[list[Utterance]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        pooled(spec, *parts)
