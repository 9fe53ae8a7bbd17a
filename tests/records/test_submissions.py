"""A challenge's files, cell by cell."""

from pathlib import Path

import pytest

from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.records.submissions import files_of
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.errors import UserError

EIGHT = (
    "angry", "sad", "happy", "surprised", "fearful", "disgusted", "contempt", "neutral"
)  # fmt: skip
THREE = dict.fromkeys(("valence", "arousal", "dominance"), (1.0, 7.0))


def texts(task, *values):
    rows = [
        (Path(f"Audios/MSP-PODCAST_test3_{i}.flac"), Prediction("", "1", 0, "test3", "", {}, of))
        for i, of in enumerate(values)
    ]
    return {file.name: file.text(rows) for file in files_of("msp-podcast", task)}


def test_letters_of_the_corpus():
    made = texts(EmotionTask(EIGHT), *({"prediction": c} for c in EIGHT))
    lines = [f"MSP-PODCAST_test3_{i}.wav,{letter}" for i, letter in enumerate("ASHUFDCN")]
    assert made == {"classes": "\n".join(["FileName,EmoClass", *lines, ""])}


def test_ratings_in_the_corpus_own_units_and_none_beyond():
    names = [f"prediction_{name}" for name in THREE]
    rows = [dict(zip(names, v, strict=True)) for v in ((4.25, -3.0, 6.5), (7.5, 2.0, 0.999))]
    assert texts(DimensionalTask(THREE), *rows) == {
        "attributes": "FileName,EmoAct,EmoVal,EmoDom\n"
        "MSP-PODCAST_test3_0.wav,1.0,4.25,6.5\nMSP-PODCAST_test3_1.wav,2.0,7.0,1.0\n"
    }


def test_two_tracks_of_two_tasks():
    both = JointTask.together([EmotionTask(EIGHT[:4]), DimensionalTask(THREE)])
    assert [file.name for file in files_of("msp-podcast", both)] == ["classes", "attributes"]
    assert files_of(None, both) == []


@pytest.mark.parametrize(
    ("submission", "task", "says"),
    [
        ("msp-podcast", EmotionTask((*EIGHT, "other")), "takes the classes angry, sad"),
        (
            "msp-podcast",
            DimensionalTask({"arousal": (1.0, 7.0)}),
            "dimensional predicts other",
        ),
        ("msp-podcast", DimensionalTask(dict.fromkeys(THREE, (1.0, 5.0))), "from 1 to 7"),
        ("msp-podcasts", EmotionTask(EIGHT), "did you mean msp-podcast"),
    ],
)
def test_what_it_does_not_take(submission, task, says):
    with pytest.raises(UserError, match=says):
        files_of(submission, task)
