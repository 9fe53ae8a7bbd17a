"""MSP-Improv: ``session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav``, labelled in ``Evaluation.txt``.

The sessions lie at the top, or under ``Audio``; the table is called ``Evalution.txt`` in some
copies. A line per turn, then one per rater, an empty line between turns::

    UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:2.66; V:2.33; D:3.0 ; N:3.4;
    A1B2C3; Angry; Angry,Frustrated; A:3; V:2; D:3; N:4;

(the format as ertk reads it, Strong-AI-Lab/emotion, datasets/MSP-IMPROV/process.py). Numbers are
activation, valence, dominance and naturalness from 1 to 5, or NaN; 1 is the *highest* activation,
so arousal is 6 minus it. A line per rater is a vote for its first label; of a rater who stands
twice in a turn the lines are copies, as ertk found, and one counts. ``O`` is other, ``X`` no
consensus.

Whose turn it is, the first letter of the last part says, not the third part: the third names the
actor whose scenario it is, and a scenario has turns of both. In EMO-SUPERB's list of all names
(EMOsuperb/EMO-SUPERB-submission, data/IMPROV) the turns with the target sentence (T), which that
actor alone speaks, are FM for every woman and MF for every man, and the read ones (R) FF and MM,
while other turns (S, P) of one scenario are FM and MF.

R was read, one actor alone: acted. All else was said to somebody, in an improvisation or between
two: natural, as IEMOCAP's improvisations are. Counts: Busso et al. 2017, table 4.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import Corpus, TreeError, Utterance, audio_files, register
from emopeft.errors import UserError
from emopeft.files import read_bytes

EMOTIONS = {"A": "angry", "S": "sad", "H": "happy", "N": "neutral", "O": "other", "X": None}
WORDS = {word: word for word in ("angry", "sad", "happy", "neutral", "other")}
TABLES = ("Evaluation.txt", "Evalution.txt")
LARGEST_TABLE = 256 << 20  # bytes
NUMBER = r"(NaN|-?\d+(?:\.\d*)?)"
TURN = re.compile(
    rf"UTD-(IMPROV-[A-Z0-9-]+)\.avi;\s*(\w);\s*A:{NUMBER}\s*;\s*V:{NUMBER}\s*;\s*D:{NUMBER}\s*;"
    rf"(?:\s*N:{NUMBER}\s*;)?",
)
RATER = re.compile(r"([\w-]+);\s*(\w+);")
NAME = re.compile(r"IMPROV-S\d\d([AHNS])-[FM]0([1-6])-([PRST])-([FM])[FM]\d+")
INTENDED = {"A": "angry", "S": "sad", "H": "happy", "N": "neutral"}
SCALE = (1.0, 5.0)

Turn = tuple[str, dict[str, float], dict[str, float]]  # label's letter, ratings, votes


def turns(table: Path) -> Iterator[tuple[int, str, Turn | str]]:
    """Line, name (``IMPROV-S01A-...``) and what is said of each turn, or what is wrong with it."""
    lines = read_bytes(table, LARGEST_TABLE).decode("latin-1").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("UTD-IMPROV")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        match = TURN.match(lines[start])
        if match is None or match[2] not in EMOTIONS:
            yield start + 1, "", f"cannot be parsed: {lines[start][:80]!r}"
            continue
        activation, valence, dominance, naturalness = (
            math.nan if text is None else float(text) for text in match.groups()[2:]
        )
        ratings = {
            "valence": valence,
            "arousal": 6 - activation,
            "dominance": dominance,
            "naturalness": naturalness,
        }
        ratings = {name: value for name, value in ratings.items() if math.isfinite(value)}
        yield start + 1, match[1], (match[2], ratings, _votes(lines[start + 1 : end]))


def _votes(lines: list[str]) -> dict[str, float]:
    raters = {m[1]: m[2].lower() for line in lines if (m := RATER.match(line))}
    votes = Counter(WORDS.get(word, "other") for word in raters.values())
    return {label: float(votes[label]) for label in WORDS if votes[label]}


def read(root: Path, naturalness: bool = False) -> list[Utterance]:
    """The 8438 turns of an MSP-Improv tree, sorted by id.

    Raises:
        TreeError: listing lines that cannot be parsed, names that are none of the corpus, a turn
            that is labelled twice, and turns without an audio file.
    """
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise UserError(f"{root} holds no {TABLES[0]}; --data must name the folder that does")
    audio = {p.stem: p for p in audio_files(root) if p.stem.startswith("MSP-IMPROV")}
    utterances: dict[str, Utterance] = {}
    problems = []
    for line, name, turn in turns(table):
        result = turn if isinstance(turn, str) else _utterance(name, turn, audio, naturalness)
        if isinstance(result, Utterance) and result.id in utterances:
            result = f"{result.id} is labelled twice"
        if isinstance(result, str):
            problems.append(f"{table.name}, line {line}: {result}")
        else:
            utterances[result.id] = result
    found = sorted(utterances.values(), key=lambda u: u.id)
    if problems:
        raise TreeError(root, problems, found)
    return found


def _utterance(name: str, turn: Turn, audio: dict[str, Path], naturalness: bool) -> Utterance | str:
    label, ratings, votes = turn
    parts = NAME.fullmatch(name)
    if parts is None:
        return f"UTD-{name} is no turn of the corpus"
    if f"MSP-{name}" not in audio:
        return f"MSP-{name}.wav is missing"
    intended, session, scenario, sex = parts.groups()
    if not naturalness:
        ratings = {n: value for n, value in ratings.items() if n != "naturalness"}
    return Utterance(
        id=f"MSP-{name}",
        path=audio[f"MSP-{name}"],
        speaker=f"{sex}0{session}",
        emotion=EMOTIONS[label],
        session=session,
        sex="female" if sex == "F" else "male",
        style="acted" if scenario == "R" else "natural",
        ratings=ratings,
        votes=votes,
        traits={"intended": INTENDED[intended], "scenario": scenario},
    )


def adjust(naturalness: bool = False) -> Mapping[str, Any]:
    """The scales of the ratings that are read."""
    names = ("valence", "arousal", "dominance", *["naturalness"] * naturalness)
    return {"scales": dict.fromkeys(names, SCALE)}


register(
    Corpus(
        name="msp-improv",
        title="MSP-Improv",
        licence="by signed agreement with UT Dallas, research only",
        citation=(
            "C. Busso, S. Parthasarathy, A. Burmania, M. AbdelWahab, N. Sadoughi and E. Mower "
            "Provost (2017), MSP-IMPROV: An Acted Corpus of Dyadic Interactions to Study Emotion "
            "Perception, IEEE Transactions on Affective Computing 8(1), 67-80"
        ),
        read=read,
        emotions=(*INTENDED.values(), "other"),
        protocol="msp-improv-loso",
        folder="the folder with Evaluation.txt and session1 to session6 (or Audio/session1 ...)",
        language="English",
        # 555 of the 8438 turns have no consensus.
        expected={"angry": 792, "sad": 885, "happy": 2644, "neutral": 3477, "other": 85},
        utterances=8438,
        speakers=12,
        homepage="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html",
        scales=dict.fromkeys(("valence", "arousal", "dominance"), SCALE),
        options={
            "naturalness": "true: its rating, too (by default valence, arousal and dominance)"
        },
        adjust=adjust,
    )
)
