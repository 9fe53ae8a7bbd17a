"""RAVDESS, the speech part: names like ``Actor_01/03-01-05-01-02-01-12.wav``.

The seven numbers are modality, channel, emotion, intensity, statement, repetition, actor. Only
modality 03 (audio only), channel 01 (speech) is read; songs and videos are passed over.

The rating ``intensity`` is the one that the actor was asked for: 1 normal, 2 strong. Neutral was
spoken in normal intensity only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
ACTORS = [f"{actor:02d}" for actor in range(1, 25)]
INTENSITIES = {"01": 1.0, "02": 2.0}
NAME = re.compile(r"03-01-(\d\d)-(\d\d)-\d\d-\d\d-(\d\d)")


def _parse(path: Path) -> Utterance | str | None:
    match = NAME.fullmatch(path.stem)
    if match is None:
        return None
    emotion, intensity, actor = match.groups()
    if emotion not in EMOTIONS:
        return f"unknown emotion number {emotion} (01 to 08)"
    if intensity not in INTENSITIES:
        return f"unknown intensity {intensity} (01 or 02)"
    if actor not in ACTORS:
        return f"unknown actor {actor} (01 to 24)"
    return Utterance(
        id=path.stem,
        path=path,
        speaker=actor,
        emotion=EMOTIONS[emotion],
        sex="male" if int(actor) % 2 else "female",
        style="acted",
        ratings={"intensity": INTENSITIES[intensity]},
    )


def read(root: Path) -> list[Utterance]:
    """The utterances of a RAVDESS tree, sorted by name."""
    return read_names(root, _parse)


def ids() -> Iterator[str]:
    """The 1440 published names: everything crossed, neutral in normal intensity only."""
    two = ("01", "02")
    for emotion, intensity, statement, repetition, actor in product(
        EMOTIONS, two, two, two, ACTORS
    ):
        if (emotion, intensity) != ("01", "02"):
            yield f"03-01-{emotion}-{intensity}-{statement}-{repetition}-{actor}"


register(
    Corpus(
        name="ravdess",
        title="RAVDESS (speech)",
        licence="CC BY-NC-SA 4.0",
        citation=(
            "S. R. Livingstone and F. A. Russo (2018), The Ryerson Audio-Visual Database of "
            "Emotional Speech and Song (RAVDESS), PLoS ONE 13(5): e0196391"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="ravdess-6fold",
        folder="a folder with Actor_01 to Actor_24 holding 03-01-05-01-02-01-12.wav and so on",
        language="English",
        expected={e: 96 if e == "neutral" else 192 for e in EMOTIONS.values()},
        speakers=24,
        hours=1.5,
        homepage="https://zenodo.org/records/1188976",
        scales={"intensity": (1.0, 2.0)},
        ids=ids,
        duplicates=(("03-01-03-01-02-01-07", "03-01-03-01-02-02-07"),),
    )
)
