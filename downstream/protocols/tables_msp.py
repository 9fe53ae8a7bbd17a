"""The protocols of MSP-Improv, MSP-Podcast and MELD, as Python data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emopeft.downstream.protocols.tables import (
    FOUR,
    FOUR_TEXT,
    PEFT_SER,
    VOTED,
    folds_of,
    protocol_of,
)

SESSIONS = [str(k) for k in range(1, 7)]
LAST_IS_DEV = [([s], [[t for t in SESSIONS if t != s][-1]]) for s in SESSIONS]  # as PEFT-SER
IMPROV_COUNTS = {"neutral": 3477, "happy": 2644, "sad": 885, "angry": 792}
IMPROV_TEXT = (
    "Leave one session out, speakers apart everywhere: fold k tests session k, the last remaining "
    "session is the dev part."
)
IMPROV_SOURCE = f"counts: Busso et al. 2017, table 4; folds: {PEFT_SER}"


def msp_tables() -> Iterator[dict[str, Any]]:
    """All of them."""
    yield from _improv()
    yield _meld()


def _improv() -> Iterator[dict[str, Any]]:
    yield protocol_of(
        "msp-improv-loso",
        "msp-improv",
        FOUR,
        IMPROV_COUNTS,
        f"{IMPROV_TEXT} {FOUR_TEXT}; other and no consensus drop out.",
        IMPROV_SOURCE,
        LAST_IS_DEV,
        unit="session",
    )
    yield protocol_of(
        "msp-improv-votes-loso",
        "msp-improv",
        FOUR,
        IMPROV_COUNTS,
        f"{IMPROV_TEXT} Every turn that a rater gave one of 4 classes, with a consensus or "
        "without; those that have one are counted.",
        IMPROV_SOURCE,
        LAST_IS_DEV,
        unit="session",
        task=VOTED,
        unlabelled=True,
    )
    yield {
        "name": "msp-improv-vad-loso",
        "version": 1,
        "corpus": "msp-improv",
        "task": ["dimensional"],
        "description": (
            f"{IMPROV_TEXT} All turns with valence, arousal or dominance, whatever their label; "
            "arousal is turned round, so that high means high."
        ),
        "source": f"folds: {PEFT_SER}",
        "unit": "session",
        "folds": folds_of(LAST_IS_DEV),
    }


def _meld() -> dict[str, Any]:
    counts = {
        "neutral": 6434, "happy": 2308, "sad": 1002, "angry": 1607, "fearful": 358,
        "disgusted": 361, "surprised": 1636,
    }  # fmt: skip
    return {
        "name": "meld-official-leaks",
        "version": 1,
        "corpus": "meld",
        "task": "emotion",
        "description": (
            "The official split into train, dev and test by dialogue. It leaks: the six main "
            "speakers are in all of its parts, so that test measures known voices. All 7 classes, "
            "without the two clips that cannot be decoded."
        ),
        "source": "Poria et al. 2019; counts of what can be decoded: EmoBox (Ma et al. 2024)",
        "classes": list(counts),
        "labels": {label: label for label in counts},
        "counts": counts,
        "speaker_overlap": ["dev", "test"],
        "unit": "rule",
        "rule": {"by": "split"},
    }
