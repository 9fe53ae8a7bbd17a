"""Small corpora and protocol files for the protocol tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols import schema
from emopeft.downstream.protocols.protocol import Protocol, list_protocols

SHIPPED = {protocol.name: protocol for protocol in list_protocols()}
SUPERB = "iemocap-superb-random-dev"


def utterance(name: str, speaker: str = "a", emotion: str | None = "sad", **more) -> Utterance:
    return Utterance(name, Path(f"{name}.wav"), speaker, emotion, **more)


def iemocap_like(protocol: Protocol) -> list[Utterance]:
    """The utterances of an id protocol as IEMOCAP's reader gives them."""
    return [
        utterance(i, f"{i[:5]}_{i.split('_')[-1][0]}", label, session=i[4])
        for i, label in protocol.utterances.items()
    ]


def fake_corpus(protocol: Protocol) -> list[Utterance]:
    """A corpus of the published size that fits the protocol, whatever its unit."""
    if protocol.utterances:
        return iemocap_like(protocol)
    if protocol.rule:
        return [
            utterance(f"{s}{i}", s, ["sad", "happy"][i % 2], session=s, split=split)
            for s, split in zip("abcd", ("train", "train", "dev", "test"), strict=True)
            for i in range(4)
        ]
    names = sorted({name for fold in protocol.folds for name in fold.test})
    found = []
    for label, number in protocol.counts.items():
        for i in range(number):
            place = names[i % len(names)]
            name = f"{place}_word{i // len(names)}_{label}"
            found.append(utterance(name, place, label, session=place))
    return found


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
    data = schema.parse(minimal(**changes))
    return Protocol(**{f.name: getattr(data, f.name) for f in dataclasses.fields(data)})


SMALL = [utterance(f"{s}{e}", s, e) for s in "abc" for e in ("sad", "happy")]
