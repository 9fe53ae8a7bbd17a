"""SUBESCO: names like ``F_02_MONIKA_S_1_NEUTRAL_5.wav``.

Sex, speaker's number and name, sentence, emotion, take: the publisher's own description
(huggingface.co/datasets/sustcsenlp/bn_emotion_speech_corpus). Twenty speakers say ten sentences
in seven states, five times.
"""

from __future__ import annotations

import re
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "NEUTRAL": "neutral",
    "HAPPY": "happy",
    "SAD": "sad",
    "ANGRY": "angry",
    "FEAR": "fearful",
    "DISGUST": "disgusted",
    "SURPRISE": "surprised",
}
NAME = re.compile(r"([FM])_(\d\d)_([A-Z]+)_S_(\d+)_([A-Z]+)_(\d)")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem.upper())
    if match is None:
        return None
    sex, number, _, _, emotion, _ = match.groups()
    if emotion not in EMOTIONS:
        return f"unknown emotion {emotion} (one of {' '.join(EMOTIONS)})"
    return Utterance(
        id=match[0],
        path=path,
        speaker=f"{sex}_{number}",  # numbers start anew for each sex
        emotion=EMOTIONS[emotion],
        sex="female" if sex == "F" else "male",
        style="acted",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of a SUBESCO tree, sorted by name."""
    return read_names(root, _parse)


register(
    Corpus(
        name="subesco",
        title="SUST Bangla Emotional Speech Corpus (SUBESCO)",
        licence="CC BY 4.0",
        citation=(
            "S. Sultana, M. S. Rahman, M. R. Selim and M. Z. Iqbal (2021), SUST Bangla Emotional "
            "Speech Corpus (SUBESCO): An audio-only emotional speech corpus for Bangla, PLoS ONE "
            "16(4): e0250173"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="subesco-5fold",
        folder="a folder with F_02_MONIKA_S_1_NEUTRAL_5.wav and so on",
        language="Bangla",
        expected=dict.fromkeys(EMOTIONS.values(), 1000),
        speakers=20,
        hours=7.7,
        homepage="https://zenodo.org/records/4526477",
    )
)
