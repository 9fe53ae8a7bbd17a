"""Small corpora and protocol files for the protocol tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.protocols.parting import parted
from emopeft.downstream.protocols.protocol import Protocol, list_protocols, parse
from emopeft.downstream.tasks.emotion import EmotionTask

SHIPPED = {protocol.name: protocol for protocol in list_protocols()}
SUPERB = "iemocap-superb-random-dev"


def utterance(name: str, speaker: str = "a", emotion: str | None = "sad", **more) -> Utterance:
    return Utterance(name, Path(f"{name}.wav"), speaker, emotion, **more)


def plan_of(protocol: Protocol, utterances: Iterable[Utterance], **more) -> Plan:
    """The plan of `EmotionTask`; utterances made by hand are the protocol's corpus'."""
    corpus = protocol.corpora[0]
    known = [dataclasses.replace(u, corpus=u.corpus or corpus) for u in utterances]
    task = EmotionTask.of(protocol, parted(protocol, known)[0])
    return Plan.of(protocol, task, known, **more)


def sides(plan: Plan, fold: int = 0) -> dict[str, list[Utterance]]:
    """Train, dev and test of a fold that has one of each."""
    return {part: [e.utterance for e in found] for part, _, found in plan.folds[fold].parts()}


def speakers(plan: Plan, fold: int = 0) -> dict[str, list[str]]:
    """Who stands on each side, sorted."""
    return {part: sorted({u.speaker for u in us}) for part, us in sides(plan, fold).items()}


def iemocap_like(protocol: Protocol) -> list[Utterance]:
    """The utterances of an id protocol as IEMOCAP's reader gives them."""
    return [
        utterance(i, f"{i[:5]}_{i.split('_')[-1][0]}", label, session=i[4])
        for i, label in protocol.utterances.items()
    ]


def fake_corpus(protocol: Protocol) -> list[Utterance]:
    """A corpus of the published size that fits the protocol, whatever its unit."""
    if protocol.prefixed:
        return [u for corpus in protocol.corpora for u in _published(corpus, protocol)]
    if protocol.utterances:
        return iemocap_like(protocol)
    if protocol.rule and protocol.corpus == "manifest":
        return [
            utterance(f"{s}{i}", s, ["sad", "happy"][i % 2], session=s, split=split)
            for s, split in zip("abcd", ("train", "train", "dev", "test"), strict=True)
            for i in range(4)
        ]
    names = sorted({name for fold in protocol.folds for name in fold.tests["test"]})
    names = names or [f"s{i:02d}" for i in range(29)]  # a rule by speaker
    found = []
    for label, number in (protocol.counts or counted(protocol)).items():
        for i in range(number):
            place = names[i % len(names)]
            name = f"{place}_word{i // len(names)}_{label}"
            found.append(utterance(name, place, label, session=place))
    return found


def _published(corpus: str, protocol: Protocol) -> list[Utterance]:
    """As many utterances of each class as one of several corpora has, shared by its speakers."""
    tested = (name for fold in protocol.folds for name in fold.tests["test"])
    names = sorted(n.partition("/")[2] for n in tested if n.startswith(f"{corpus}/"))
    return [
        utterance(
            f"{names[i % len(names)]}_{label}{i}", names[i % len(names)], label, corpus=corpus
        )
        for label, number in CORPORA[corpus].expected.items()
        for i in range(number)
    ]


def counted(protocol: Protocol) -> dict[str, int]:
    """Some number of each class, where only that of all is published, or none."""
    share, rest = divmod(protocol.total or 300, len(protocol.classes))
    return {name: share + (i < rest) for i, name in enumerate(protocol.classes)}


def minimal(**changes) -> dict:
    """A small valid protocol file; None removes a key."""
    value = {
        "name": "mine",
        "version": 1,
        "corpus": "manifest",
        "task": "emotion",
        "description": "d",
        "source": "s",
        "classes": ["sad", "happy"],
        "labels": {"sad": "sad", "happy": "happy"},
        "unit": "speaker",
        "folds": [{"name": "1", "test": ["a"], "dev": ["b"], "train": ["c"]}],
        **changes,
    }
    return {key: v for key, v in value.items() if v is not None}


def protocol_of(**changes) -> Protocol:
    return parse(minimal(**changes))


SMALL = [utterance(f"{s}{e}", s, e) for s in "abc" for e in ("sad", "happy")]
