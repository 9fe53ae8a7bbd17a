"""Predictions of an unscored test as a challenge takes them: the key ``submission`` of a protocol.

A format is a function of the task that says which files it has, and what stands in their rows. Each
trained fold gets files of its own: nothing is averaged over folds. Imports no torch.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError, unknown

Values = Mapping[str, Any]  # the task's columns of one example


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a submission.

    Attributes:
        name: what tells it from the others of the format.
        header: its columns, the first of which is the clip's file name.
        cells: the other columns of one example.
    """

    name: str
    header: tuple[str, ...]
    cells: Callable[[Values], list[str]]

    def text(self, rows: Sequence[tuple[Path, Prediction]]) -> str:
        """The file of these examples, each with its audio, in their order."""
        text = io.StringIO(newline="")
        out = csv.writer(text, lineterminator="\n")
        out.writerow(self.header)
        for audio, row in rows:
            # The corpus' own name: its release has .wav, whatever the clips were converted to.
            out.writerow([f"{audio.stem}.wav", *self.cells(row.values)])
        return text.getvalue()


def files_of(submission: str | None, task: Task) -> list[File]:
    """The files of a format for a task; none without a format.

    Raises:
        UserError: an unknown format, or one that has nothing to say of the task.
    """
    if submission is None:
        return []
    if submission not in SUBMISSIONS:
        raise unknown("submission format of the protocol", submission, SUBMISSIONS)
    return SUBMISSIONS[submission](task)


# ---- MSP-Podcast ------------------------------------------------------------------------------

# The corpus' letters (EmoClass of labels_consensus.csv) of our words.
LETTERS = {
    "angry": "A", "sad": "S", "happy": "H", "surprised": "U", "fearful": "F", "disgusted": "D",
    "contempt": "C", "neutral": "N",
}  # fmt: skip
SCALE = (1.0, 7.0)
ATTRIBUTES = {"EmoAct": "arousal", "EmoVal": "valence", "EmoDom": "dominance"}


def msp_podcast(task: Task) -> list[File]:
    """The challenges on MSP-Podcast of Odyssey 2024 and Interspeech 2025: a file for each track.

    Attributes: FileName,EmoAct,EmoVal,EmoDom, ratings from 1 to 7 and none beyond, as the
    organisers' own script writes them (msplabresearch/MSP-Podcast_Challenge at 1c194bb,
    eval_dim_ser_test3.py; its README calls that the correct format). Classes: FileName,EmoClass
    with the corpus' letters, as participants of 2025 wrote them (AI-Unicamp/interspeech_ser at
    e634b7e, bin/test_cat_bimodal_lazy_1head.py); the organisers published no script for it.
    """
    columns = {c.name: c for c in task.columns if c.role == "prediction"}
    files = []
    for name, column in columns.items():
        if column.classes is not None and set(column.classes) <= set(LETTERS):

            def letter(values: Values, name: str = name) -> list[str]:
                return [LETTERS[values[name]]]

            files.append(File("classes", ("FileName", "EmoClass"), letter))
    places = [_rating(columns, rating) for rating in ATTRIBUTES.values()]
    if all(places):
        _check_scale(task.describe())

        def ratings(values: Values) -> list[str]:
            return [repr(min(max(SCALE[0], float(values[place])), SCALE[1])) for place in places]

        files.append(File("attributes", ("FileName", *ATTRIBUTES), ratings))
    if not files:
        raise UserError(
            f"the protocol's submission format msp-podcast takes the classes {', '.join(LETTERS)}, "
            f"or arousal, valence and dominance, and task {task.name} predicts other things; leave "
            "the key 'submission' out of the protocol, or choose another task"
        )
    return files


def _check_scale(description: Mapping[str, Any]) -> None:
    """That the ratings are in the corpus' own units."""
    for part in description.get("parts", [description]):
        for row in part.get("dimensions", ()):
            if row["name"] in ATTRIBUTES.values() and (row["low"], row["high"]) != SCALE:
                raise UserError(
                    "the protocol's submission format msp-podcast takes ratings on the scale from 1"
                    f" to 7, and that of {row['name']} is {row['low']:g} to {row['high']:g}; leave "
                    "the key 'submission' out of the protocol"
                )


def _rating(columns: Mapping[str, Any], rating: str) -> str:
    """The column that predicts a rating, also within several tasks; "" where there is none."""
    ends = f"prediction_{rating}"
    return next((name for name in columns if name.rpartition(".")[2] == ends), "")


SUBMISSIONS: dict[str, Callable[[Task], list[File]]] = {"msp-podcast": msp_podcast}
