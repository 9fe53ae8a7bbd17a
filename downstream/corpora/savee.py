"""SAVEE: ``DC/a01.wav`` (a folder per speaker) or ``DC_a01.wav`` (all in one), ids ``DC_a01``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "a": "angry",
    "d": "disgusted",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}
SPEAKERS = ("DC", "JE", "JK", "KL")
NAME = re.compile(r"(?:([A-Z]{2})_)?([a-z]{1,2})(\d\d)", re.IGNORECASE)


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker = (match[1] or path.absolute().parent.name).upper()
    emotion = match[2].lower()
    if speaker not in SPEAKERS:
        # Without a prefix, a file in some other folder is simply not of the corpus.
        return f"speaker '{speaker}' is none of {' '.join(SPEAKERS)}" if match[1] else None
    if emotion not in EMOTIONS:
        return f"unknown emotion '{match[2]}' (one of {' '.join(EMOTIONS)})"
    return Utterance(
        id=f"{speaker}_{emotion}{match[3]}",
        path=path,
        speaker=speaker,
        emotion=EMOTIONS[emotion],
        sex="male",
        style="acted",
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of a SAVEE tree, sorted by id."""
    return read_names(root, _parse)


def ids() -> Iterator[str]:
    """The 480 published utterances: 15 sentences per emotion, 30 when neutral."""
    for speaker in SPEAKERS:
        for letter in EMOTIONS:
            for number in range(1, 31 if letter == "n" else 16):
                yield f"{speaker}_{letter}{number:02d}"


register(
    Corpus(
        name="savee",
        title="Surrey Audio-Visual Expressed Emotion (SAVEE)",
        licence="research only",
        citation=(
            "S. Haq and P. J. B. Jackson (2010), Multimodal Emotion Recognition, in W. Wang (ed.), "
            "Machine Audition, IGI Global, 398-423"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="savee-4fold",
        folder="a folder with DC/a01.wav or DC_a01.wav and so on (speakers DC JE JK KL)",
        language="English",
        expected={e: 120 if e == "neutral" else 60 for e in EMOTIONS.values()},
        speakers=4,
        hours=0.5,
        homepage="http://kahlan.eps.surrey.ac.uk/savee",
        ids=ids,
    )
)
