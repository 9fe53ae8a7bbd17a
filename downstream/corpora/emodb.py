"""Berlin EmoDB: names like ``wav/03a01Wa.wav``: speaker (2), text (3), emotion, version."""

from __future__ import annotations

import re
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

# The letters stand for the German words: Wut, Langeweile, Ekel, Angst, Freude, Trauer.
EMOTIONS = {
    "W": "angry",
    "L": "bored",
    "E": "disgusted",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
SEX = dict.fromkeys(("03", "10", "11", "12", "15"), "male") | dict.fromkeys(
    ("08", "09", "13", "14", "16"), "female"
)
NAME = re.compile(r"(\d\d)[ab]\d\d([A-Z])[a-z]?")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, letter = match.groups()
    if letter not in EMOTIONS:
        return f"unknown emotion letter {letter} (one of {' '.join(EMOTIONS)})"
    if speaker not in SEX:
        return f"unknown speaker {speaker} (one of {' '.join(sorted(SEX))})"
    return Utterance(
        id=path.stem,
        path=path,
        speaker=speaker,
        emotion=EMOTIONS[letter],
        sex=SEX[speaker],
        style="acted",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of an EmoDB tree, sorted by name."""
    return read_names(root, _parse)


register(
    Corpus(
        name="emodb",
        title="Berlin EmoDB",
        licence="CC0 1.0",
        citation=(
            "F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier and B. Weiss (2005), "
            "A Database of German Emotional Speech, Interspeech, 1517-1520"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="emodb-loso",
        folder="a folder with wav/03a01Wa.wav and so on",
        language="German",
        expected={
            "angry": 127,
            "bored": 81,
            "disgusted": 46,
            "fearful": 69,
            "happy": 71,
            "sad": 62,
            "neutral": 79,
        },
        speakers=10,
        hours=0.4,
        homepage="http://emodb.bilderbar.info",
    )
)
