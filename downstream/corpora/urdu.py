"""URDU: names like ``Angry/SM1_F11_A011.wav``: speaker, file of the speaker, emotion and number.

Talk shows; 100 clips of each of four emotions (EmoBox, preprocess/scripts/urdu.py). The paper
names 38 speakers, the file names only 29 (EmoBox's count), and one of them (SM5) has 72 of the 100
neutral clips.
"""

from __future__ import annotations

import re
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {"N": "neutral", "H": "happy", "S": "sad", "A": "angry"}
NAME = re.compile(r"(S[FM]\d+)_F\d+_([A-Z])\d+")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, letter = match.groups()
    if letter not in EMOTIONS:
        return f"unknown emotion letter {letter} (one of {' '.join(EMOTIONS)})"
    return Utterance(
        id=path.stem,
        path=path,
        speaker=speaker,
        emotion=EMOTIONS[letter],
        sex="female" if speaker[1] == "F" else "male",
        style="natural",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of an URDU tree, sorted by name."""
    return read_names(root, _parse)


register(
    Corpus(
        name="urdu",
        title="URDU",
        licence="as its publisher's page says",
        citation=(
            "S. Latif, A. Qayyum, M. Usman and J. Qadir (2018), Cross Lingual Speech Emotion "
            "Recognition: Urdu vs. Western Languages, FIT, 88-93; speakers and hours: EmoBox"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="urdu-5fold",
        folder="the folder with Angry/SM1_F11_A011.wav and so on",
        language="Urdu",
        expected=dict.fromkeys(EMOTIONS.values(), 100),
        speakers=29,
        hours=0.3,
        homepage="https://github.com/siddiquelatif/urdu-dataset",
    )
)
