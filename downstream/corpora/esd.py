"""ESD: ``0011/Angry/0011_000351.wav``, or with train, evaluation and test below the emotion.

Speakers 0001 to 0010 speak Mandarin, 0011 to 0020 English. The emotion is the folder's name;
clips that lie in no emotion folder are looked up in the speaker's ``0011.txt``. The official
split is kept where its folders exist; it has every speaker on all its sides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register
from emopeft.errors import unknown
from emopeft.files import read_bytes

EMOTIONS = {
    "neutral": "neutral",
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "surprise": "surprised",
}
# Some of the Mandarin transcripts name the emotion in Chinese.
CHINESE = {"中立": "neutral", "生气": "angry", "快乐": "happy", "伤心": "sad", "惊喜": "surprise"}
SPLITS = ("train", "evaluation", "test")
LANGUAGES = {"english": range(11, 21), "mandarin": range(1, 11), "all": range(1, 21)}
MALE = {4, 5, 6, 8, 10, 11, 12, 13, 14, 20}  # the publisher's ReadMe
NAME = re.compile(r"(\d{4})_(\d{6})")
LARGEST_TRANSCRIPT = 16 << 20  # bytes
HOURS = 29.1  # of both languages, as EmoBox measured
CLIPS = 350  # per speaker and emotion


def _speakers(language: str) -> range:
    if language not in LANGUAGES:
        raise unknown("language of ESD", str(language), LANGUAGES)
    return LANGUAGES[language]


def transcript_labels(path: Path) -> dict[str, str]:
    """Utterance id to emotion, from a speaker's transcript (id, text, emotion; tabs).

    The files come in GB2312, UTF-16, UTF-8 and Latin-1: the first that decodes and gives lines
    that start with an id is taken.
    """
    data = read_bytes(path, LARGEST_TRANSCRIPT)
    for encoding in ("utf-8-sig", "utf-16", "gb18030", "latin-1"):
        try:
            lines = data.decode(encoding).splitlines()
        except UnicodeDecodeError:
            continue
        rows = [re.split(r"\t+", line.strip()) for line in lines]
        labels = {r[0]: r[-1].strip() for r in rows if NAME.fullmatch(r[0]) and len(r) > 1}
        if labels:
            return {name: CHINESE.get(label, label.lower()) for name, label in labels.items()}
    return {}


def read(root: Path, language: str = "english") -> list[Utterance]:
    """The utterances of an ESD tree in one language (or "all"), sorted by id."""
    speakers = _speakers(language)
    transcripts: dict[Path, dict[str, str]] = {}

    def looked_up(path: Path) -> str | None:
        table = path.parent / f"{path.stem[:4]}.txt"
        if table not in transcripts:
            transcripts[table] = transcript_labels(table) if table.is_file() else {}
        return transcripts[table].get(path.stem)

    def parse(path: Path) -> Utterance | str | None:
        match = NAME.fullmatch(path.stem)
        if match is None or int(match[1]) not in speakers:
            return None
        folders = [folder.lower() for folder in path.absolute().parts[-3:-1]]
        split = folders[-1] if folders[-1] in SPLITS else None
        folder = folders[0] if split else folders[-1]
        emotion = folder if folder in EMOTIONS else looked_up(path)
        if emotion not in EMOTIONS:
            return (
                f"no emotion: '{folder}' is none of {' '.join(EMOTIONS)}"
                if emotion is None
                else f"unknown emotion '{emotion}' in {match[1]}.txt"
            )
        return Utterance(
            id=path.stem,
            path=path,
            speaker=match[1],
            emotion=EMOTIONS[emotion],
            sex="male" if int(match[1]) in MALE else "female",
            style="acted",
            split=split,
            traits={"language": "English" if int(match[1]) > 10 else "Mandarin"},
        )

    return read_names(root, parse)


def adjust(language: str = "english") -> Mapping[str, Any]:
    """The published numbers and the protocol for a choice of languages."""
    speakers = _speakers(language)
    clips = CLIPS * len(EMOTIONS)
    return {
        "expected": dict.fromkeys(EMOTIONS.values(), CLIPS * len(speakers)),
        "speakers": len(speakers),
        "ids": lambda: (f"{s:04d}_{n:06d}" for s in speakers for n in range(1, clips + 1)),
        "hours": HOURS if language == "all" else None,
        "protocol": f"esd-{'mandarin' if language == 'mandarin' else 'english'}-5fold",
        "language": {"english": "English", "mandarin": "Mandarin"}.get(
            language, "English and Mandarin"
        ),
    }


ESD = Corpus(
    name="esd",
    title="Emotional Speech Database (ESD)",
    licence="research only, by signed agreement",
    citation=(
        "K. Zhou, B. Sisman, R. Liu and H. Li (2022), Emotional voice conversion: Theory, "
        "databases and ESD, Speech Communication 137, 1-18"
    ),
    read=read,
    emotions=tuple(EMOTIONS.values()),
    protocol="esd-english-5fold",
    folder="the folder with 0001 to 0020 holding Angry/0011_000351.wav and so on",
    language="English",
    homepage="https://hltsingapore.github.io/ESD",
    options={"language": "english (default), mandarin or all"},
    adjust=adjust,
)
register(ESD.with_options())
