"""IEMOCAP's protocols whose folds are sessions, as Python data; those of SUPERB are in build.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emopeft.downstream.protocols.tables import PEFT_SER, VOTED, folds_of, following, protocol_of

SESSIONS = [str(k) for k in range(1, 6)]
IEMOCAP_LABELS = {
    "neutral": "neutral",
    "happy": "happy",
    "excited": "happy",
    "angry": "angry",
    "sad": "sad",
}
LAST_IS_DEV = [([s], [[t for t in SESSIONS if t != s][-1]]) for s in SESSIONS]  # as PEFT-SER


def iemocap_tables() -> Iterator[dict[str, Any]]:
    """All of them."""
    yield _all_labels()
    yield from _rated()
    yield _votes()


def _all_labels() -> dict[str, Any]:
    counts = {
        "neutral": 1708, "happy": 595, "excited": 1041, "angry": 1103, "sad": 1084,
        "frustrated": 1849, "surprised": 107, "fearful": 40,
    }  # fmt: skip
    return protocol_of(
        "iemocap-loso-all",
        "iemocap",
        tuple(counts),
        counts,
        "Leave one session out, speakers apart everywhere: fold k tests session k, the last "
        "remaining session is the dev part. Every consensus category by itself; disgusted (2 "
        "utterances, too few for train, dev and test), other and undecided drop out.",
        "consensus labels of IEMOCAP's EmoEvaluation files (Busso et al. 2008); dev as in "
        f"{PEFT_SER}",
        LAST_IS_DEV,
        unit="session",
    )


def _rated() -> Iterator[dict[str, Any]]:
    common = {
        "version": 1,
        "corpus": "iemocap",
        "task": ["dimensional"],
        "total": 10039,
        "unit": "session",
    }
    text = (
        "All 10,039 utterances with valence, arousal and dominance, whatever their label; fold k "
        "tests session k"
    )
    yield {
        "name": "iemocap-vad-loso",
        "description": f"{text}, the next session is the dev part: speakers apart everywhere.",
        "source": "ratings of IEMOCAP's EmoEvaluation files (Busso et al. 2008); dev: fixed here",
        **common,
        "folds": folds_of(following([[session] for session in SESSIONS])),
    }
    yield {
        "name": "iemocap-vad-random-dev",
        "description": (
            f"{text}; the dev part is about a fifth of the other utterances, those whose id's "
            "SHA-256 leaves 0 modulo 5, so dev speakers are training speakers, as in SUPERB."
        ),
        "source": (
            "ratings of IEMOCAP's EmoEvaluation files (Busso et al. 2008); dev: fixed here, "
            "SUPERB publishes one for its 5531 utterances only"
        ),
        **common,
        "speaker_overlap": ["dev"],
        "folds": folds_of(
            [([s], {"part": None, "modulus": 5, "remainder": 0}) for s in SESSIONS],
        ),
    }


def _votes() -> dict[str, Any]:
    classes = ("neutral", "happy", "angry", "sad")
    return {
        "name": "iemocap-votes-loso",
        "version": 1,
        "corpus": "iemocap",
        "task": VOTED,
        "description": (
            "Every utterance that a rater gave one of 4 classes (excited counts as happy), with a "
            "consensus or without; fold k tests session k, the last remaining session is the dev "
            "part. How many have no consensus was not published; those that have one are counted."
        ),
        "source": (
            "votes of IEMOCAP's EmoEvaluation files (Busso et al. 2008), without the speakers' "
            f"own; dev as in {PEFT_SER}"
        ),
        "classes": list(classes),
        "labels": IEMOCAP_LABELS,
        "counts": {"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084},
        "unlabelled": True,
        "unit": "session",
        "folds": folds_of(LAST_IS_DEV),
    }
