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

# MSP-Podcast's releases; of those with a third test its labels are hidden. Utterances with labels.
RELEASES: dict[str, dict[str, Any]] = {
    "1.7": {"labelled": None, "hidden": False},
    "1.11": {"labelled": 84_030 + 19_815 + 30_647 + 14_815, "hidden": True},
    "1.12": {"labelled": None, "hidden": True},
}
EIGHT = ("angry", "sad", "happy", "surprised", "fearful", "disgusted", "contempt", "neutral")
CHALLENGE = "2024 Odyssey challenge, MSP-UTD/MSP-Podcast_Challenge (read at 3f60a42)"
PODCAST_SOURCE = f"split and sizes: the publisher's page and read-me; classes: {CHALLENGE}"


def msp_tables() -> Iterator[dict[str, Any]]:
    """All of them."""
    yield from _improv()
    for release in RELEASES:
        yield from _podcast(release)
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


def _podcast(release: str) -> Iterator[dict[str, Any]]:
    """Classes, four classes, ratings and votes of a release, each on the official split."""
    facts, name = RELEASES[release], f"msp-podcast-{release}"
    tests = "test1, test2 and test3" if facts["hidden"] else "test1 and test2"
    text = (
        f"The official split of release {release}, dev called Validation or Development. {tests} "
        "are tests of their own and never pooled: they are different populations that share "
        "speakers. Unidentified speakers take part, so that the sides are apart as published only."
    )
    common: dict[str, Any] = {
        "version": 1,
        "corpus": "msp-podcast",
        "source": PODCAST_SOURCE,
        "unknown_speakers": True,
        "unit": "rule",
        "rule": {"by": "split"},
    }
    if facts["hidden"]:
        text += " The labels of test3 are hidden: it is predicted, not measured."
        common["unscored"] = ["test3"]
    challenge = {"submission": "msp-podcast"} if facts["hidden"] else {}
    eight = {"classes": list(EIGHT), "labels": {label: label for label in EIGHT}}
    yield {
        "name": name,
        "task": "emotion",
        "description": f"{text} The challenge's 8 classes; other and no consensus drop out.",
        **eight,
        **common,
        **challenge,
    }
    yield {
        "name": f"{name}-4class",
        "task": "emotion",
        "description": (
            f"{text} {FOUR_TEXT}, as PEFT-SER, which also leaves unidentified speakers out and "
            "tests test1 alone."
        ),
        "classes": list(FOUR),
        "labels": {label: label for label in FOUR},
        **common,
    }
    yield {
        "name": f"{name}-votes",
        "task": VOTED,
        "description": (
            f"{text} Every turn that a rater gave one of the challenge's 8 classes, with a "
            "consensus or without."
        ),
        "unlabelled": True,
        **eight,
        **common,
    }
    total = {"total": facts["labelled"]} if facts["labelled"] else {}
    yield {
        "name": f"{name}-vad",
        "task": ["dimensional"],
        "description": f"{text} All turns with ratings, whatever their label.",
        **total,
        **common,
        **challenge,
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
