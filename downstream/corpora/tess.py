"""TESS: names like ``OAF_back_angry.wav`` (speaker, word, emotion), in whatever folders.

``ps`` is "pleasant surprise". One published file is misnamed ``OA_bite_neutral.wav``; it is read
as ``OAF_bite_neutral``.
"""

from __future__ import annotations

import re
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",
    "sad": "sad",
}
NAME = re.compile(r"(OAF?|YAF)_([^_]+)_(.+)", re.IGNORECASE)


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, word, emotion = match[1].upper(), match[2], match[3].lower()
    if emotion not in EMOTIONS:
        return f"unknown emotion '{match[3]}' (one of {' '.join(EMOTIONS)})"
    speaker = "OAF" if speaker == "OA" else speaker
    return Utterance(
        id=f"{speaker}_{word}_{emotion}",
        path=path,
        speaker=speaker,
        emotion=EMOTIONS[emotion],
        sex="female",
        style="acted",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of a TESS tree, sorted by name."""
    return read_names(root, _parse)


register(
    Corpus(
        name="tess",
        title="Toronto emotional speech set (TESS)",
        licence="CC BY-NC-ND 4.0",
        citation=(
            "M. K. Pichora-Fuller and K. Dupuis (2020), Toronto emotional speech set (TESS), "
            "Borealis, doi:10.5683/SP2/E8H2MF"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="tess-2fold-random-dev",
        folder="a folder with OAF_back_angry.wav and so on, in any sub-folders",
        language="English",
        expected=dict.fromkeys(EMOTIONS.values(), 400),
        speakers=2,
        hours=1.6,
        homepage="https://doi.org/10.5683/SP2/E8H2MF",
    )
)
