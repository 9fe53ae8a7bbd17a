"""Emozionalmente: ``audio/*.wav``, labelled in ``metadata/samples.csv``.

``samples.csv`` has file_name, actor and emotion_expressed, the emotion that the actor was asked
for; ``users.csv`` the actors' username, gender and age; ``evaluations.csv`` a row with file_name
and emotion_recognized for each of five listeners of a clip: the votes (nkululeko,
data/emozionalmente/create.py). The last two are read where they are there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, TreeError, Utterance, audio_files, register
from emopeft.downstream.corpora.table import rows
from emopeft.errors import UserError

EMOTIONS = {
    "neutrality": "neutral",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "disgust": "disgusted",
    "surprise": "surprised",
}
SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}


def read(root: Path) -> list[Utterance]:
    """The utterances of an Emozionalmente tree, sorted by id.

    Raises:
        UserError: there is no table of the samples.
        TreeError: listing rows with an unknown emotion and rows without a file.
    """
    metadata = root / "metadata"
    if not (metadata / "samples.csv").is_file():
        raise UserError(f"{root} holds no metadata/samples.csv; --data must name the folder of it")
    audio = {path.name: path for path in audio_files(root)}
    actors = _actors(metadata / "users.csv")
    votes = _votes(metadata / "evaluations.csv")
    utterances, problems = [], []
    for line, row in rows(metadata / "samples.csv", ("file_name", "actor", "emotion_expressed")):
        name, actor, emotion = row["file_name"], row["actor"], row["emotion_expressed"]
        if emotion not in EMOTIONS:
            problems.append(f"samples.csv, line {line}: {name} has the unknown emotion '{emotion}'")
        elif name not in audio:
            problems.append(f"samples.csv, line {line}: audio/{name} is missing")
        else:
            about = dict(actors.get(actor, {}))
            utterances.append(
                Utterance(
                    id=Path(name).stem,
                    path=audio[name],
                    speaker=actor,
                    emotion=EMOTIONS[emotion],
                    sex=SEXES.get(about.pop("gender", "").lower()),
                    style="acted",
                    votes=votes.get(name, {}),
                    traits={key: value for key, value in about.items() if value},
                )
            )
    utterances.sort(key=lambda u: u.id)
    if problems:
        raise TreeError(root, problems, utterances)
    return utterances


def _actors(table: Path) -> dict[str, dict[str, str]]:
    if not table.is_file():
        return {}
    names = ("gender", "age")
    return {r["username"]: {n: r[n] for n in names} for _, r in rows(table, ("username", *names))}


def _votes(table: Path) -> dict[str, dict[str, float]]:
    if not table.is_file():
        return {}
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line, row in rows(table, ("file_name", "emotion_recognized")):
        emotion = row["emotion_recognized"]
        if emotion not in EMOTIONS:
            raise UserError(f"{table}, line {line}: unknown emotion '{emotion}'")
        votes[row["file_name"]][EMOTIONS[emotion]] += 1
    labels = EMOTIONS.values()
    return {n: {label: float(v[label]) for label in labels if v[label]} for n, v in votes.items()}


register(
    Corpus(
        name="emozionalmente",
        title="Emozionalmente",
        licence="CC BY 4.0",
        citation=(
            "F. Catania, J. W. Wilke and F. Garzotto (2025), Emozionalmente: A Crowdsourced Corpus "
            "of Simulated Emotional Speech in Italian, IEEE Transactions on Audio, Speech and "
            "Language Processing 33, 1142-1155; hours: EmoBox"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="emozionalmente-5fold",
        folder="the folder with audio and metadata/samples.csv",
        language="Italian",
        expected=dict.fromkeys(EMOTIONS.values(), 986),
        speakers=431,
        hours=6.3,
        homepage="https://zenodo.org/records/6569824",
    )
)
