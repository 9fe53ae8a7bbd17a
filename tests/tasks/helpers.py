"""Utterances and protocols for tests of tasks."""

from pathlib import Path

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.protocol import Protocol, parse
from emopeft.downstream.tasks.keys import LabelKeys, LossKeys, Settings

SCALES = {"toy": {"valence": (1.0, 5.0), "arousal": (0.0, 10.0)}}


def utterance(name: str = "a", **fields) -> Utterance:
    """An utterance of the corpus toy."""
    emotion = fields.pop("emotion", None)
    return Utterance(name, Path(f"{name}.wav"), "s1", emotion, corpus="toy", **fields)


def protocol(labels: dict[str, str] | None = None, by: str = "speaker") -> Protocol:
    """A protocol of the corpus toy."""
    value = {
        "name": "toy-speakers", "version": 1, "corpus": "toy", "task": "emotion",
        "description": "for tests", "source": "here", "unit": "rule", "rule": {"by": by},
    }  # fmt: skip
    if labels:
        value |= {"labels": labels, "classes": list(dict.fromkeys(labels.values()))}
    return parse(value)


def settings(**keys) -> Settings:
    """Of the keys of both sections."""
    own = set(LabelKeys.__dataclass_fields__)
    return Settings(
        LabelKeys(**{k: v for k, v in keys.items() if k in own}),
        LossKeys(**{k: v for k, v in keys.items() if k not in own}),
        SCALES,
    )
