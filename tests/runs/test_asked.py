"""What a run can be asked about another corpus: classes by name, ratings moved between scales."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from emopeft.downstream.corpora.base import CORPORA, Corpus, Utterance
from emopeft.downstream.runs.asked import Asked, asked_of
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.group import SexTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.errors import UserError
from tests.protocols.cases import utterance

EMOTION = EmotionTask(["calm", "happy", "sad", "angry", "surprised"])
RATED = DimensionalTask({"arousal": (1.0, 5.0), "valence": (1.0, 5.0)})


def clips(corpus: str, *labels: str | None, **more: Any) -> list[Utterance]:
    return [
        utterance(f"{i:02d}", "a", label, corpus=corpus, **more) for i, label in enumerate(labels)
    ]


def ask(task: Task, corpus: Corpus, us: list[Utterance], **labels: str) -> Asked:
    return asked_of(task, corpus, us, labels)


def test_classes_meet_by_name_and_what_is_lacking_is_said() -> None:
    heard = clips("iemocap", "sad", "excited", "happy", "frustrated", None, "angry", "frustrated")
    asked = ask(EMOTION, CORPORA["iemocap"], heard)
    # excited is happy in IEMOCAP's own protocol; calm and surprised are nobody's there.
    assert asked.task.classes == ("happy", "sad", "angry") and asked.places == [1, 2, 3]
    truths = [asked.task.classes[asked.task.target(u).index(1.0)] for u in asked.utterances]
    assert truths == ["sad", "happy", "happy", "angry"]
    assert asked.notes[:2] == [
        "has no calm, surprised: their scores are left out of the choice, which is among 3 of the "
        "run's 5 classes",
        "3 utterances are left out (2 frustrated, 1 unlabelled)",
    ]
    assert "differs from the published counts: happy 2 instead of 1636" in asked.notes[2]
    # The highest score is calm's, which cannot be said here; the next is sad's.
    outputs = torch.tensor([[9.0, 1.0, 3.0, 2.0, 8.0]])[:, asked.places]
    table = asked.task.table(outputs, torch.zeros(1, 3))
    assert table["prediction"] == ["sad"]
    scores = torch.softmax(torch.tensor([1.0, 3.0, 2.0]).double(), 0)
    assert [table[f"score_{c}"][0] for c in asked.task.classes] == pytest.approx(scores.tolist())


def test_a_map_of_ones_own() -> None:
    heard = clips("manifest", "joy", "anger", "anger", "sad", "neutral")
    manifest = CORPORA["manifest"]
    with pytest.raises(UserError, match="two shared classes are needed; .* --labels LABEL=CLASS"):
        ask(EMOTION, manifest, heard)
    asked = ask(EMOTION, manifest, heard, joy="happy", anger="angry", sad="")
    assert asked.task.classes == ("happy", "angry") and asked.places == [1, 3]
    assert len(asked.utterances) == 3
    assert asked.notes[-1] == "2 utterances are left out (1 neutral, 1 sad)"
    for labels, message in (
        ({"jay": "happy"}, "unknown label of corpus manifest in --labels 'jay'"),
        ({"joy": "happi"}, "unknown class of the run in --labels 'happi'"),
    ):
        with pytest.raises(UserError, match=message):
            ask(EMOTION, manifest, heard, **labels)


def test_ratings_move_between_nominal_scales() -> None:
    corpus = dataclasses.replace(
        CORPORA["manifest"], scales={"valence": (0.0, 100.0), "dominance": (1.0, 7.0)}
    )
    heard = clips("manifest", "sad", None, ratings={"valence": 25.0, "dominance": 2.0})
    heard += clips("manifest", *["sad"] * 3)[2:]
    asked = ask(RATED, corpus, heard)
    assert asked.places == [1] and len(asked.utterances) == 2
    assert asked.notes == [
        "valence is predicted on 1 to 5 and moved to 0 to 100",
        "is not rated for arousal",
        "1 utterances are left out (not rated)",
    ]
    # The head says 0 ... 1 of its scale: 3 of 1 to 5 is the middle, 50 of 0 to 100.
    table = asked.task.table(torch.tensor([[0.5], [0.25]]), torch.tensor([[25.0], [25.0]]))
    assert table == {"truth_valence": [25.0, 25.0], "prediction_valence": [50.0, 25.0]}
    with pytest.raises(UserError, match="nominal scale of 'valence' in manifest is not known"):
        ask(RATED, CORPORA["manifest"], heard)
    with pytest.raises(UserError, match="rated for nothing: one of them must be the same"):
        ask(RATED, corpus, clips("manifest", "sad"))


def test_of_several_tasks_the_first_that_can_be_asked() -> None:
    both = JointTask([SexTask(["female", "male"]), RATED, EMOTION])
    corpus = dataclasses.replace(CORPORA["manifest"], scales={"valence": (1.0, 5.0)})
    asked = ask(both, corpus, clips("manifest", "sad", ratings={"valence": 2.0}))
    assert asked.places == [3] and isinstance(asked.task, DimensionalTask)
    with pytest.raises(UserError, match="a run of task sex cannot be asked"):
        ask(SexTask(["female", "male"]), corpus, [])
