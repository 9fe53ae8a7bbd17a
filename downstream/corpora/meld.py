"""MELD: ``train_sent_emo.csv`` beside ``train_splits/dia0_utt0.mp4``, and so for dev and test.

The publisher gives videos; their sound must be taken out of them first, into the same folders or
others of these names (such as PEFT-SER's ``train_splits/waves/dia0_utt0.wav``)::

    for f in */*.mp4 */*/*.mp4; do ffmpeg -n -i "$f" -vn -ac 1 -ar 16000 "${f%.mp4}.wav"; done

A folder's name says the part: train_splits, dev_splits_complete, output_repeated_splits_test
(EmoBox, preprocess/scripts/meld.py). Names stand in several parts, so that an id starts with its
part: ``train_dia0_utt0``. Two rows have no usable video in the published archive (EmoBox and
nkululeko leave the same two out) and are passed over.

A speaker is called as in the table ("Ross", "All"), which does not say the sex.
They stand in train, dev and test: the official split tests on voices that were trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from emopeft.downstream.corpora.base import Corpus, TreeError, Utterance, audio_files, register
from emopeft.downstream.corpora.table import rows
from emopeft.errors import UserError

EMOTIONS = {
    "neutral": "neutral",
    "joy": "happy",
    "surprise": "surprised",
    "anger": "angry",
    "sadness": "sad",
    "disgust": "disgusted",
    "fear": "fearful",
}
FOLDERS = {
    "train_splits": "train",
    "dev_splits_complete": "dev",
    "output_repeated_splits_test": "test",
}
COLUMNS = ("Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
NAME = re.compile(r"dia\d+_utt\d+")
ABSENT = {"train_dia125_utt3", "dev_dia110_utt7"}
TABLES = {part: f"{part}_sent_emo.csv" for part in ("train", "dev", "test")}


def _audio(root: Path) -> dict[str, Path]:
    """part_name -> file."""
    found = {}
    for path in audio_files(root):
        part = next((FOLDERS[p] for p in reversed(path.parts) if p in FOLDERS), None)
        if part and NAME.fullmatch(path.stem):
            found[f"{part}_{path.stem}"] = path
    return found


def read(root: Path) -> list[Utterance]:
    """The utterances of a MELD tree, sorted by id.

    Raises:
        UserError: a table is missing, or there is no audio at all.
        TreeError: listing rows with an unknown emotion and rows without a file.
    """
    audio = _audio(root)
    if not audio:
        raise UserError(
            f"no .wav or .flac of MELD under {root}; take the sound out of its videos with ffmpeg "
            "(downstream/corpora/meld.py has the line) and keep the folders' names: "
            f"{', '.join(FOLDERS)}"
        )
    utterances, problems = [], []
    for part, name in TABLES.items():
        for line, result in _part(_table(root, name), part, audio):
            if isinstance(result, str):
                problems.append(f"{name}, line {line}: {result}")
            elif result is not None:
                utterances.append(result)
    utterances.sort(key=lambda u: u.id)
    if problems:
        raise TreeError(root, problems, utterances)
    return utterances


def _table(root: Path, name: str) -> Path:
    found = [p for p in (root / name, *sorted(root.glob(f"*/{name}"))) if p.is_file()]
    if not found:
        raise UserError(f"{root} holds no {name}; --data must name the folder of MELD.Raw")
    return found[0]


def _part(
    table: Path, part: str, audio: dict[str, Path]
) -> Iterator[tuple[int, Utterance | str | None]]:
    for line, row in rows(table, COLUMNS):
        name = f"{part}_dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
        if name in ABSENT:
            yield line, None
        elif row["Emotion"] not in EMOTIONS:
            yield line, f"{name} has the unknown emotion '{row['Emotion']}'"
        elif name not in audio:
            yield line, f"no audio of {name}"
        else:
            yield (
                line,
                Utterance(
                    id=name,
                    path=audio[name],
                    speaker=row["Speaker"],
                    emotion=EMOTIONS[row["Emotion"]],
                    style="acted",
                    split=part,
                    traits={"dialogue": f"{part}_dia{row['Dialogue_ID']}"},
                ),
            )


register(
    Corpus(
        name="meld",
        title="MELD (Friends)",
        licence="GPL 3.0 for the labels; clips of a TV series, research only",
        citation=(
            "S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria and R. Mihalcea (2019), MELD: "
            "A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations, ACL, "
            "527-536; hours and usable clips: EmoBox"
        ),
        read=read,
        emotions=tuple(EMOTIONS.values()),
        protocol="meld-official-leaks",
        folder="the folder with train_sent_emo.csv and train_splits (MELD.Raw), audio extracted",
        language="English",
        expected={
            "neutral": 6434,
            "happy": 2308,
            "surprised": 1636,
            "angry": 1607,
            "sad": 1002,
            "disgusted": 361,
            "fearful": 358,
        },
        hours=12.1,
        homepage="https://affective-meld.github.io",
    )
)
