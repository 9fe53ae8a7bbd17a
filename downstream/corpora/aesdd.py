"""AESDD: names like ``anger/a03 (4).wav``: emotion's letter, utterance, speaker.

The publisher's description gives ``xAA (B)`` (read-me of v1.0; further actors follow it), some
files have a letter after the speaker for a second take, some a speaker with a leading zero. One
file, ``s05 (3).wav``, cannot be decoded as published and is passed over, as EmoBox and nkululeko
do; 604 are left, and five emotions: there is no neutral. Who of the six is a woman is not
published.
"""

from __future__ import annotations

import re
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "a": "angry",
    "d": "disgusted",
    "f": "fearful",
    "h": "happy",
    "s": "sad",
}
NAME = re.compile(r"([a-z])(\d\d) ?\(0?(\d)([a-z]?)\)")
BROKEN = "s05 (3)"


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem.lower())
    if match is None or path.stem == BROKEN:
        return None
    letter, number, speaker, take = match.groups()
    if letter not in EMOTIONS:
        return f"unknown emotion letter {letter} (one of {' '.join(EMOTIONS)})"
    return Utterance(
        id=f"{letter}{number}-{speaker}{take}",
        path=path,
        speaker=speaker,
        emotion=EMOTIONS[letter],
        style="acted",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of an AESDD tree, sorted by id."""
    return read_names(root, _parse)


register(
    Corpus(
        name="aesdd",
        title="Acted Emotional Speech Dynamic Database (AESDD)",
        licence="as its publisher's page says",
        citation=(
            "N. Vryzas, R. Kotsakis, A. Liatsou, C. A. Dimoulas and G. Kalliris (2018), Speech "
            "Emotion Recognition for Performance Interaction, Journal of the Audio Engineering "
            "Society 66(6), 457-467; numbers and hours: EmoBox"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="aesdd-loso",
        folder="a folder with anger/a03 (4).wav and so on",
        language="Greek",
        expected={"angry": 121, "disgusted": 122, "fearful": 120, "happy": 119, "sad": 122},
        speakers=6,
        hours=0.7,
        homepage="http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/",
    )
)
