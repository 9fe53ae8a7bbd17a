"""EMOVO: names like ``f1/dis-f1-b1.wav``: emotion (in Italian), actor, sentence.

Six actors say fourteen sentences in seven states (names: EmoBox, preprocess/scripts/emovo.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "neu": "neutral",
    "dis": "disgusted",
    "gio": "happy",
    "pau": "fearful",
    "rab": "angry",
    "sor": "surprised",
    "tri": "sad",
}
ACTORS = ("f1", "f2", "f3", "m1", "m2", "m3")
SENTENCES = (
    *(f"b{n}" for n in range(1, 4)),
    *(f"l{n}" for n in range(1, 5)),
    *(f"n{n}" for n in range(1, 6)),
    "d1",
    "d2",
)
NAME = re.compile(r"([a-z]{3})-([fm][1-3])-([a-z]\d)")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem.lower())
    if match is None:
        return None
    emotion, actor, _ = match.groups()
    if emotion not in EMOTIONS:
        return f"unknown emotion '{emotion}' (one of {' '.join(EMOTIONS)})"
    return Utterance(
        id=match[0],
        path=path,
        speaker=actor,
        emotion=EMOTIONS[emotion],
        sex="female" if actor[0] == "f" else "male",
        style="acted",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of an EMOVO tree, sorted by name."""
    return read_names(root, _parse)


def ids() -> Iterator[str]:
    """The 588 published names."""
    return (f"{e}-{a}-{s}" for e, a, s in product(EMOTIONS, ACTORS, SENTENCES))


register(
    Corpus(
        name="emovo",
        title="EMOVO",
        licence="as its publisher's page says",
        citation=(
            "G. Costantini, I. Iaderola, A. Paoloni and M. Todisco (2014), EMOVO Corpus: an "
            "Italian Emotional Speech Database, LREC, 3501-3504; hours: EmoBox"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="emovo-loso",
        folder="a folder with f1/dis-f1-b1.wav and so on",
        language="Italian",
        expected=dict.fromkeys(EMOTIONS.values(), 84),
        speakers=6,
        hours=0.5,
        homepage="http://voice.fub.it/activities/corpora/emovo/index.html",
        ids=ids,
    )
)
