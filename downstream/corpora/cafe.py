"""CaFE: names like ``01-C-1-1.wav``: actor, emotion (in French), intensity, sentence.

Twelve actors, odd numbers male; six sentences in six emotions of two intensities, and neutral
(names: EmoBox, preprocess/scripts/cafe.py). The rating ``intensity`` is the one that the actor was
asked for: 1 mild, 2 strong; neutral has 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "N": "neutral",
    "J": "happy",
    "T": "sad",
    "C": "angry",
    "P": "fearful",
    "D": "disgusted",
    "S": "surprised",
}
ACTORS = [f"{actor:02d}" for actor in range(1, 13)]
NAME = re.compile(r"(\d\d)-([A-Z])-([12])-([1-6])")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem.upper())
    if match is None:
        return None
    actor, letter, intensity, _ = match.groups()
    if letter not in EMOTIONS:
        return f"unknown emotion letter {letter} (one of {' '.join(EMOTIONS)})"
    if actor not in ACTORS:
        return f"unknown actor {actor} (01 to 12)"
    return Utterance(
        id=match[0],
        path=path,
        speaker=actor,
        emotion=EMOTIONS[letter],
        sex="male" if int(actor) % 2 else "female",
        style="acted",
        ratings={"intensity": float(intensity)},
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of a CaFE tree, sorted by name."""
    return read_names(root, _parse)


def ids() -> Iterator[str]:
    """The 936 published names."""
    for actor, letter, intensity, sentence in product(ACTORS, EMOTIONS, "12", "123456"):
        if (letter, intensity) != ("N", "2"):
            yield f"{actor}-{letter}-{intensity}-{sentence}"


register(
    Corpus(
        name="cafe",
        title="Canadian French Emotional speech dataset (CaFE)",
        licence="as its publisher's page says",
        citation=(
            "P. Gournay, O. Lahaie and R. Lefebvre (2018), A Canadian French Emotional Speech "
            "Dataset, ACM Multimedia Systems Conference, 399-402; hours: EmoBox"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="cafe-6fold",
        folder="a folder with 01-C-1-1.wav and so on, in any sub-folders",
        language="French (Canada)",
        expected={e: 72 if e == "neutral" else 144 for e in EMOTIONS.values()},
        speakers=12,
        hours=1.2,
        homepage="https://zenodo.org/record/1478765",
        scales={"intensity": (1.0, 2.0)},
        ids=ids,
    )
)
