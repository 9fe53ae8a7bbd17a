"""JL corpus: names like ``female1_angry_10a_1.wav``: speaker, emotion, sentence, repetition.

Two women and two men of New Zealand, five primary emotions and five secondary ones, 240 clips each
(names: nkululeko, data/jl/process_database.py, which reads ``Raw JL corpus (unchecked and
unannotated)/JL(wav+txt)``).
"""

from __future__ import annotations

import re
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = (
    "neutral", "happy", "sad", "angry", "excited",
    "anxious", "apologetic", "assertive", "concerned", "encouraging",
)  # fmt: skip
NAME = re.compile(r"((?:fe)?male[12])_([a-z]+)_\d+[ab]_[12]")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, emotion = match.groups()
    if emotion not in EMOTIONS:
        return f"unknown emotion '{emotion}' (one of {' '.join(EMOTIONS)})"
    return Utterance(
        id=path.stem,
        path=path,
        speaker=speaker,
        emotion=emotion,
        sex=speaker[:-1],
        style="acted",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of a JL tree, sorted by name."""
    return read_names(root, _parse)


register(
    Corpus(
        name="jl",
        title="JL corpus",
        licence="as its publisher's page says",
        citation=(
            "J. James, L. Tian and C. I. Watson (2018), An Open Source Emotional Speech Corpus for "
            "Human Robot Interaction Applications, Interspeech, 2768-2772; hours: EmoBox"
        ),
        read=read,
        emotions=EMOTIONS,
        protocol="jl-loso",
        folder="a folder with female1_angry_10a_1.wav and so on",
        language="English",
        expected=dict.fromkeys(EMOTIONS, 240),
        speakers=4,
        hours=1.4,
        homepage="https://www.kaggle.com/tli725/jl-corpus",
    )
)
