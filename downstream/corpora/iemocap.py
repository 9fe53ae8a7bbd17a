"""IEMOCAP: ``Session{1..5}`` with ``sentences/wav`` and ``dialog/EmoEvaluation``.

Labels are the consensus column of the EmoEvaluation files, split by tabs, with the ratings in the
order valence, arousal, dominance; single raters follow, each with one label or several::

    [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
    C-E2:	Neutral;	()
    C-E3:	Neutral; Frustration;	(in their own words)
    C-F1:	Neutral;	()
    A-E3:	val 3; act 2; dom  2;	()

Votes are counted over the lines ``C-E*``: each label that a rater named is one vote (as Wu, Zhang
and Woodland 2023 count them, W-Wu/ERC-SLT22). The actors' own (``C-F*``, ``C-M*``) are no votes:
they do not rate what was heard, only improvised dialogs have them, and the published label and
means are of the other raters alone (``A-E3`` and ``A-E4`` of the first utterance, 3 2 2 and 2 3 3,
give the 2.5 2.5 2.5 of its line; ``A-F1``, 3 2 1, is not in it). ``A-`` lines, the sub-folders of
single raters and macOS's ``._*`` files are passed over.

The speaker is the session with the letter before the last index (``Ses01F_impro01_M003`` is
spoken by ``Ses01_M``): the letter in ``Ses01F`` is whose motion was captured.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from emopeft.downstream.corpora.audio import is_audio
from emopeft.downstream.corpora.base import (
    Corpus,
    TreeError,
    Utterance,
    printable,
    register,
)
from emopeft.files import read_bytes

EMOTIONS = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "excited",
    "sad": "sad",
    "ang": "angry",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgusted",
    "oth": "other",
    "xxx": "undecided",  # the raters found no majority
}
# What raters could choose, as it stands in their lines.
WORDS = {
    "neutral": "neutral",
    "neutral state": "neutral",
    "happiness": "happy",
    "excited": "excited",
    "sadness": "sad",
    "anger": "angry",
    "frustration": "frustrated",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgusted",
    "other": "other",
}
SESSIONS = ("1", "2", "3", "4", "5")
ID = re.compile(r"Ses0([1-5])[FM]_(impro|script)\w*_([FM])\w+")
LINE = re.compile(
    r"\[\s*[\d.]+\s*-\s*[\d.]+\s*\]\s+(\S+)\s+(\S+)\s+\[([^,\]]+),([^,\]]+),([^,\]]+)\]"
)
RATER = re.compile(r"C-E\d+:([^(]*)")

logger = logging.getLogger(__name__)


def read(root: Path) -> list[Utterance]:
    """The 10,039 labelled utterances of an IEMOCAP tree, sorted by session and id.

    Raises:
        TreeError: listing missing sessions and folders, lines that cannot be parsed, unknown
            labels, and labelled utterances without an audio file.
    """
    nested = root / "IEMOCAP_full_release"
    if not (root / "Session1").is_dir() and nested.is_dir():
        root = nested
    utterances: list[Utterance] = []
    problems: list[str] = []
    for session in SESSIONS:
        clips, wrong = _session(root, session)
        utterances += clips
        problems += wrong
    if problems:
        raise TreeError(root, problems, utterances)
    return utterances


def _session(root: Path, session: str) -> tuple[list[Utterance], list[str]]:
    """Utterances and problems of one session."""
    folder = root / f"Session{session}"
    evaluations = folder / "dialog" / "EmoEvaluation"
    wavs = folder / "sentences" / "wav"
    if not folder.is_dir():
        return [], [f"Session{session} is missing"]
    problems = [
        f"{part.relative_to(root)} is missing" for part in (evaluations, wavs) if not part.is_dir()
    ]
    files = sorted(evaluations.glob("*.txt")) if evaluations.is_dir() else []
    files = [file for file in files if not file.name.startswith(".")]
    if evaluations.is_dir() and not files:
        problems.append(f"{evaluations.relative_to(root)} holds no .txt file")
    if problems:
        return [], problems

    audio = {
        path.stem: path
        for dialog in sorted(wavs.iterdir())
        if dialog.is_dir() and not dialog.name.startswith(".")
        for path in sorted(dialog.iterdir())
        if is_audio(path) and not path.name.startswith(".")
    }
    utterances = []
    strange: Counter[str] = Counter()
    for file in files:
        # The label files are ASCII; Latin-1 reads any byte that went astray.
        lines = read_bytes(file).decode("latin-1").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.startswith("["):
                continue
            votes = _votes(lines[number:], strange)
            result = _parse(line, votes, session, audio, wavs.relative_to(root))
            if isinstance(result, str):
                problems.append(f"{file.relative_to(root)}, line {number}: {result}")
            else:
                utterances.append(result)
    if strange:
        words = ", ".join(f"'{printable(word)}' ({n})" for word, n in strange.most_common(5))
        logger.warning(
            "%d votes in %s name no label of IEMOCAP and are not counted: %s",
            strange.total(), evaluations, words,
        )  # fmt: skip
    unlabelled = sorted(audio.keys() - {u.id for u in utterances}) if not problems else []
    if unlabelled:
        logger.warning(
            "%d audio files in %s have no label and are left out, for example %s",
            len(unlabelled),
            wavs,
            unlabelled[0],
        )
    return sorted(utterances, key=lambda u: u.id), problems


def _votes(lines: Sequence[str], strange: Counter[str]) -> dict[str, float]:
    """Votes of the raters in the lines below an utterance's own; ``strange`` counts other words."""
    votes: Counter[str] = Counter()
    for line in lines:
        if line.startswith("["):  # the next utterance
            break
        if match := RATER.match(line):
            for word in filter(None, map(str.strip, match[1].split(";"))):
                if word.lower() in WORDS:
                    votes[WORDS[word.lower()]] += 1
                else:
                    strange[word] += 1
    return {label: float(votes[label]) for label in EMOTIONS.values() if votes[label]}


def _parse(
    line: str, votes: dict[str, float], session: str, audio: dict[str, Path], wavs: Path
) -> Utterance | str:
    match = LINE.match(line)
    if match is None:
        return f"cannot be parsed: {line[:80]!r}"
    name, label, *ratings = match.groups()
    parts = ID.fullmatch(name)
    if parts is None or parts[1] != session:
        return f"'{name}' is not an utterance of session {session}"
    if label not in EMOTIONS:
        return f"{name} has the unknown label '{label}' (one of {' '.join(EMOTIONS)})"
    try:
        valence, arousal, dominance = (float(x) for x in ratings)
    except ValueError:
        valence = arousal = dominance = math.nan
    if not all(math.isfinite(x) for x in (valence, arousal, dominance)):
        return f"{name} has ratings that are not numbers: {', '.join(ratings)}"
    if name not in audio:
        return f"{wavs / name.rpartition('_')[0] / name}.wav is missing"
    return Utterance(
        id=name,
        path=audio[name],
        speaker=f"Ses0{session}_{parts[3]}",
        emotion=EMOTIONS[label],
        session=session,
        sex="female" if parts[3] == "F" else "male",
        style="natural" if parts[2] == "impro" else "acted",
        ratings={"valence": valence, "arousal": arousal, "dominance": dominance},
        votes=votes,
    )


register(
    Corpus(
        name="iemocap",
        title="IEMOCAP",
        licence="by signed agreement with USC SAIL, research only",
        citation=(
            "C. Busso, M. Bulut, C.-C. Lee, A. Kazemzadeh, E. Mower, S. Kim, J. N. Chang, S. Lee "
            "and S. S. Narayanan (2008), IEMOCAP: interactive emotional dyadic motion capture "
            "database, Language Resources and Evaluation 42(4), 335-359"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="iemocap-superb-random-dev",
        folder="the folder with Session1 to Session5 (IEMOCAP_full_release)",
        language="English",
        expected={
            "neutral": 1708,
            "happy": 595,
            "excited": 1041,
            "sad": 1084,
            "angry": 1103,
            "frustrated": 1849,
            "surprised": 107,
            "fearful": 40,
            "disgusted": 2,
            "other": 3,
            "undecided": 2507,
        },
        speakers=10,
        hours=12.0,
        homepage="https://sail.usc.edu/iemocap",
        scales=dict.fromkeys(("valence", "arousal", "dominance"), (1.0, 5.0)),
    )
)
