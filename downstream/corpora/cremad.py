"""CREMA-D: names like ``AudioWAV/1001_DFA_ANG_XX.wav``: actor, sentence, emotion, intensity.

The actors' sex, age, race and ethnicity come from the publisher's VideoDemographics.csv when
it lies in the tree (or is named by the option ``demographics``); without it they are unknown.

The label is the emotion that the actor was asked for. What raters took a clip for is in the
publisher's processedResults/tabulatedVotes.csv, read when it lies in the tree or is named by the
option ``votes``. Other raters heard the voice, saw the face, or both: ``votes_of`` says whose votes
are taken. Voice, where nothing is said: those raters heard what a model hears.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, Utterance, read_names, register
from emopeft.errors import UserError, unknown
from emopeft.files import read_text

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")
DEMOGRAPHICS = "VideoDemographics.csv"
TRAITS = ("Age", "Race", "Ethnicity")
UNKNOWN = "unknown"  # the race of one actor
LARGEST_TABLE = 16 << 20  # bytes
HASHES = "AudioWAV_sha256_size.tsv"
VOTES = "tabulatedVotes.csv"
RESULTS = "processedResults"  # the folder of the table in the publisher's tree
SHOWN = {"voice": 1, "face": 2, "both": 3}  # first digit of the row's number: 100000 x it + clip
LETTERS = {emotion[0]: label for emotion, label in EMOTIONS.items()}  # columns of the table


def _find(root: Path, name: str) -> Path | None:
    """A table in the tree, or beside it when ``root`` is the AudioWAV folder itself."""
    folders = [root, root / "AudioWAV", root / RESULTS]
    if root.absolute().name.lower() == "audiowav":
        folders += [root.absolute().parent, root.absolute().parent / RESULTS]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _demographics(path: Path) -> dict[str, dict[str, str]]:
    """Actor -> sex, and age, race and ethnicity where the table has them."""
    try:
        text = read_text(path, LARGEST_TABLE).removeprefix("\ufeff")
        rows = {
            row["ActorID"].strip(): {
                name.lower(): row[name].strip() for name in ("Sex", *TRAITS) if row.get(name)
            }
            for row in csv.DictReader(io.StringIO(text, newline=""))
        }
        sexes = {actor: row["sex"] for actor, row in rows.items()}
    except (csv.Error, KeyError, AttributeError) as error:
        raise UserError(
            f"cannot read {path}: it must be CREMA-D's {DEMOGRAPHICS} with the columns ActorID "
            f"and Sex ({type(error).__name__}: {error})"
        ) from error
    for actor, sex in sexes.items():
        if sex.lower() not in ("male", "female"):
            raise UserError(f"{path}: actor {actor} has the sex '{sex}', not Male or Female")
    for row in rows.values():
        for name, value in row.items():
            row[name] = value.lower()
            if not value.isprintable() or len(value) > 100:
                raise UserError(f"{path}: the {name} {value[:60]!r} is no plain text")
    return rows


def actors_of(place: Path) -> dict[str, dict[str, str]]:
    """Actor -> sex and the like, from the published table in ``place``; needs no audio.

    Raises UserError where there is no such table.
    """
    table = _find(place, DEMOGRAPHICS)
    if table is None:
        raise UserError(f"no {DEMOGRAPHICS} in {place}; get it from CREMA-D's publisher")
    return _demographics(table)


def votes(place: Path, of: str = "voice") -> dict[str, dict[str, float]]:
    """Clip id -> label -> how many raters chose it, from the published table; needs no audio.

    Args:
        place: tabulatedVotes.csv, or a folder that holds it as the publisher's tree does.
        of: what the raters were shown: "voice", "face" or "both".

    Raises:
        UserError: there is no such table, or a row whose votes are not the number of raters or
            give another agreement (the largest share) than the table's own columns say.
    """
    if of not in SHOWN:
        raise unknown("choice of votes_of", str(of), SHOWN)
    table = _find(place, VOTES) if place.is_dir() else place
    if table is None or not table.is_file():
        raise UserError(f"no {VOTES} at {place}; give CREMA-D's table as -o corpus.options.votes")
    result: dict[str, dict[str, float]] = {}
    reader = csv.DictReader(io.StringIO(read_text(table, LARGEST_TABLE), newline=""))
    try:
        for row in reader:
            if int(row[""]) // 100_000 != SHOWN[of]:
                continue
            counts = {label: int(row[letter]) for letter, label in LETTERS.items()}
            raters, agreement = int(row["numResponses"]), float(row["agreement"])
            if min(counts.values()) < 0 or sum(counts.values()) != raters or raters < 1:
                raise ValueError(f"the votes do not add up to {raters} raters")
            if abs(max(counts.values()) / raters - agreement) > 1e-6:
                raise ValueError(f"the votes do not give an agreement of {agreement}")
            clip = row["fileName"].strip()
            if NAME.fullmatch(clip) is None or clip in result:
                raise ValueError(f"{clip[:60]!r} is no clip, or stands twice")
            result[clip] = {label: float(count) for label, count in counts.items() if count}
    except (csv.Error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{table}, line {reader.line_num}: this is not CREMA-D's {VOTES} "
            f"({type(error).__name__}: {error}); get it again from its publisher"
        ) from error
    if not result:
        raise UserError(f"{table} holds no votes on the {of}; get it again from its publisher")
    return result


def read(
    root: Path,
    demographics: str | Path | None = None,
    votes: str | Path | None = None,
    votes_of: str = "voice",
) -> list[Utterance]:
    """The utterances of a CREMA-D tree, sorted by name."""
    table = Path(demographics) if demographics else _find(root, DEMOGRAPHICS)
    actors = _demographics(table) if table else {}
    raters = _chosen_votes(root, votes, votes_of)

    def parse(path: Path) -> Utterance | str | None:
        match = NAME.fullmatch(path.stem.upper())
        if match is None:
            return None
        actor, emotion = match[1], match[3]
        if emotion not in EMOTIONS:
            return f"unknown emotion {emotion} (one of {' '.join(EMOTIONS)})"
        return Utterance(
            id=match[0],
            path=path,
            speaker=actor,
            emotion=EMOTIONS[emotion],
            sex=actors.get(actor, {}).get("sex"),
            style="acted",
            traits={k: v for k, v in actors.get(actor, {}).items() if k != "sex" and v != UNKNOWN},
            votes=raters.get(match[0], {}),
        )

    return read_names(root, parse)


def _chosen_votes(
    root: Path, place: str | Path | None, of: str
) -> Mapping[str, Mapping[str, float]]:
    """The votes of the table that is named, or lies in the tree; none where there is no table."""
    table = Path(place).expanduser() if place else _find(root, VOTES)
    if table is None and of == "voice":
        return {}
    return votes(table or root, of)


def hashes(place: Path) -> dict[str, tuple[str, int]]:
    """The published files: ``{file name: (SHA-256, bytes)}``.

    Args:
        place: the table (lines of SHA-256, size and file name, split by tabs), or a tree that
            holds it as AudioWAV_sha256_size.tsv.

    Raises:
        UserError: when there is no table, or a line of it is not such a triple.
    """
    table = _find(place, HASHES) if place.is_dir() else place
    if table is None or not table.is_file():
        raise UserError(
            f"no hash table at {place}: give it as --hashes FILE, or put {HASHES} into the tree"
        )
    result: dict[str, tuple[str, int]] = {}
    lines = read_text(table, LARGEST_TABLE).splitlines()
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"([0-9a-f]{64})\t(\d+)\t(\S+)", line.strip())
        if match is None:
            raise UserError(
                f"{table}, line {number}: expected SHA-256, size and file name split by tabs"
            )
        result[match[3]] = (match[1], int(match[2]))
    if not result:
        raise UserError(f"the hash table {table} is empty")
    return result


register(
    Corpus(
        name="cremad",
        title="CREMA-D",
        licence="ODbL 1.0",
        citation=(
            "H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova and R. Verma (2014), "
            "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, IEEE Transactions on "
            "Affective Computing 5(4), 377-390"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="cremad-5fold",
        folder="a folder with AudioWAV/1001_DFA_ANG_XX.wav and so on",
        language="English",
        expected={e: 1087 if e == "neutral" else 1271 for e in EMOTIONS.values()},
        speakers=91,
        hours=5.3,
        homepage="https://github.com/CheyneyComputerScience/CREMA-D",
        hashes=hashes,
        # Whole takes under two labels; whose emotion is meant cannot be told.
        duplicates=(
            ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
            ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
            ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
        ),
        options={
            "demographics": f"{DEMOGRAPHICS}, when not in the tree (sex, age, race, ethnicity)",
            "votes": f"{VOTES}, or its folder, when it is not in the tree",
            "votes_of": "whose votes: raters of the voice (default), the face, or both",
        },
    )
)
