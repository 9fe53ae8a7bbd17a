"""ShEMO: names like ``female/F03S02.wav``: speaker, emotion's letter, number.

The letters are the publisher's (pariajm/sharif-emotional-speech-database). How many of the 3000
utterances each emotion has was found in no source; EmoBox counts 2838 with its own labels.
"""

from __future__ import annotations

import re
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "N": "neutral",
    "H": "happy",
    "S": "sad",
    "A": "angry",
    "F": "fearful",
    "W": "surprised",
}
NAME = re.compile(r"([FM]\d\d)([A-Z])(\d+)")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, letter, _ = match.groups()
    if letter not in EMOTIONS:
        return f"unknown emotion letter {letter} (one of {' '.join(EMOTIONS)})"
    return Utterance(
        id=path.stem,
        path=path,
        speaker=speaker,
        emotion=EMOTIONS[letter],
        sex="female" if speaker[0] == "F" else "male",
        style="acted",  # radio plays
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of a ShEMO tree, sorted by name."""
    return read_names(root, _parse)


register(
    Corpus(
        name="shemo",
        title="Sharif Emotional Speech Database (ShEMO)",
        licence="Apache 2.0, for academic purposes",
        citation=(
            "O. Mohamad Nezami, P. Jamshid Lou and M. Karami (2019), ShEMO: a large-scale "
            "validated database for Persian speech emotion detection, Language Resources and "
            "Evaluation 53(1), 1-16"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="shemo-5fold",
        folder="the folder with female/F03S02.wav and male/M02F01.wav and so on",
        language="Persian",
        utterances=3000,
        speakers=87,
        hours=3.4,
        homepage="https://github.com/pariajm/sharif-emotional-speech-database",
    )
)
