"""The protocols over several corpora, as Python data: eight emotions of four acted corpora."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora import cremad, ravdess
from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.protocols.rules import speaker_groups
from emopeft.downstream.protocols.tables import folds_of, following
from emopeft.errors import UserError

CORPORA_OF_EIGHT = ("ravdess", "cremad", "tess", "savee")
EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
HUBERT8 = "HuBERT on eight emotions (anonymous ACL submission): corpora, classes and counts"
TEXT = (
    "RAVDESS, CREMA-D, TESS and SAVEE as one corpus of 12,162 files. 8 classes; calm is RAVDESS' "
    "alone, and CREMA-D has no surprised."
)


def _common() -> dict[str, Any]:
    labels = {
        name: {label: label for label in EIGHT if label in CORPORA[name].emotions}
        for name in CORPORA_OF_EIGHT
    }
    counts: Counter[str] = sum((Counter(CORPORA[c].expected) for c in CORPORA_OF_EIGHT), Counter())
    return {
        "version": 1,
        "corpora": list(CORPORA_OF_EIGHT),
        "task": "emotion",
        "classes": list(EIGHT),
        "labels": labels,
        "counts": {label: counts[label] for label in EIGHT},
        "total": sum(counts.values()),
    }


def eight_emotions(metadata: Path) -> dict[str, Any]:
    """The four corpora, folds of speakers.

    Args:
        metadata: a folder with CREMA-D's tables of files and of actors; who talks how much, and
            the actors' sexes.

    Raises:
        UserError: a table is missing, or does not give the published counts.
    """
    return {
        **_common(),
        "name": "eight-emotions",
        "description": f"{TEXT} Five folds of speakers, balanced over corpora, classes and sexes "
        "(the two of TESS are tested in two folds); dev: the next group; the other three are "
        "trained on.",
        "source": f"{HUBERT8}; its splits are not stated: folds fixed here",
        "unit": "speaker",
        "folds": folds_of(following(speaker_groups(_sizes(metadata), 5))),
    }


def eight_emotions_leaking() -> dict[str, Any]:
    """The four corpora, folds drawn over files, so that all speakers are on all sides."""
    return {
        **_common(),
        "name": "eight-emotions-random-leaks",
        "description": f"{TEXT} Five folds of files, chosen by the SHA-256 of their names; dev: "
        "the next group. Speakers, and the sentences they say, are on all sides: for comparison "
        "with numbers that were reached so, never for how a model does on new voices.",
        "source": f"{HUBERT8}; its splits are not stated: folds fixed here",
        "speaker_overlap": ["dev", "test"],
        "unit": "rule",
        "rule": {"by": "id", "folds": 5},
    }


def _sizes(metadata: Path) -> dict[str, Counter[str]]:
    """corpus/speaker -> files per class of the corpus, and per sex."""
    sexes = cremad.actors_of(metadata)
    sizes: dict[str, Counter[str]] = {}

    def add(corpus: str, speaker: str, label: str, sex: str, number: int = 1) -> None:
        cells = sizes.setdefault(f"{corpus}/{speaker}", Counter())
        cells[f"{corpus}/{label}"] += number
        cells[f"{corpus} {sex}"] += number

    for name in ravdess.ids():
        *_, emotion, _, _, _, actor = name.split("-")
        add("ravdess", actor, ravdess.EMOTIONS[emotion], "male" if int(actor) % 2 else "female")
    for name in cremad.hashes(metadata):
        actor, _, emotion = name.split("_")[:3]
        add("cremad", actor, cremad.EMOTIONS[emotion], sexes[actor]["sex"])
    for corpus, speakers, sex in (("tess", "OAF YAF", "female"), ("savee", "DC JE JK KL", "male")):
        for speaker in speakers.split():
            for label, number in CORPORA[corpus].expected.items():
                add(corpus, speaker, label, sex, number // len(speakers.split()))
    for corpus in CORPORA_OF_EIGHT:
        for label, number in CORPORA[corpus].expected.items():
            found = sum(cells[f"{corpus}/{label}"] for cells in sizes.values())
            if found != number:
                raise UserError(
                    f"{metadata}: {corpus} comes to {found} files of {label}, published are "
                    f"{number}; get CREMA-D's tables again"
                )
    return sizes
