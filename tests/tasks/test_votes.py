"""Soft labels and several labels, from raters' votes."""

import math

import pytest
import torch

from emopeft.downstream.tasks.base import task_of
from emopeft.downstream.tasks.votes import MultiTask, SoftTask
from emopeft.errors import UserError
from tests.tasks.helpers import protocol, settings, utterance

LABELS = {"neutral": "neutral", "happy": "happy", "excited": "happy", "sad": "sad"}
CLIPS = [
    utterance("a", emotion="happy", votes={"happy": 1, "excited": 1, "neutral": 1}),
    utterance("b", votes={"neutral": 1, "sad": 1, "angry": 1}),
    utterance("c", votes={"angry": 3}),
    utterance("d", emotion="sad"),
]


def soft(**keys) -> SoftTask:
    return SoftTask.of(protocol(LABELS), CLIPS, settings(**keys))


def test_votes_are_mapped_and_others_left_out():
    task = soft(no_consensus="keep")
    assert task.classes == ("neutral", "happy", "sad")
    assert [task.target(clip) for clip in CLIPS] == [(1, 2, 0), (1, 0, 1), None, None]
    assert [task.class_of(clip) for clip in CLIPS] == ["happy", None, None, None]
    assert [soft().target(clip) for clip in CLIPS] == [(1, 2, 0), None, None, None]
    assert soft().describe() != task.describe()  # other utterances: another plan


def test_what_is_written_and_measured():
    task = soft(no_consensus="keep")
    targets = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 1.0]])
    outputs = torch.log(torch.tensor([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]]))
    table = task.table(outputs, targets)
    assert list(table) == [c.name for c in task.columns]
    assert table["truth"] == ["happy", ""] and table["prediction"] == ["happy", "happy"]
    assert table["votes_happy"] == [2.0, 0.0]
    measures = task.measure(table)
    assert measures["uar"] == 1  # of the one utterance that has a consensus
    assert measures["agreed"] == pytest.approx((2 / 3 + 0) / 2)
    nll = -(math.log(0.25) / 3 + 2 * math.log(0.5) / 3 + math.log(0.1)) / 2
    assert measures["nll"] == pytest.approx(nll, rel=1e-6)
    assert measures["raters"]["utterances"] == 2
    (line,) = task.remarks([measures])
    assert "two agree 16.67 %" in line and "UAR" in line and "58.33 %" in line
    assert task.remarks([measures, measures | {"raters": None}]) == []
    for row, target in zip(zip(*table.values(), strict=True), targets.tolist(), strict=True):
        cells = dict(zip(table, row, strict=True))
        assert task.truths(target).items() <= cells.items()
        task.check(cells)


def test_kl_is_zero_for_the_votes_themselves():
    votes = torch.tensor([[1.0, 2.0, 1.0], [4.0, 0.0, 4.0]])
    even = torch.full((2,), 0.5)
    perfect = torch.log((votes / votes.sum(1, keepdim=True)).clamp_min(1e-12))
    assert soft().loss(perfect, votes, even) == pytest.approx(0, abs=1e-6)
    entropy = soft(votes="cross_entropy").loss(perfect, votes, even)
    assert entropy.item() == pytest.approx((1.5 * math.log(2) + math.log(2)) / 2, rel=1e-5)


def test_several_labels_are_those_above_one_in_k():
    task = MultiTask.of(protocol(LABELS), CLIPS, settings())
    targets = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 1.0]])
    outputs = torch.log(torch.tensor([[0.35, 0.4, 0.25], [0.1, 0.8, 0.1]]))
    table = task.table(outputs, targets)
    assert [table[f"prediction_{c}"] for c in task.classes] == [[1, 0], [1, 1], [0, 0]]
    # A third of the votes is not more than a third: the truths are happy; neutral and sad.
    measures = task.measure(table)
    assert measures["exact"] == 0
    assert measures["macro_f1"] == pytest.approx((0 + 2 / 3 + 0) / 3)
    assert measures["micro_f1"] == pytest.approx(2 * 1 / (3 + 3))
    cells = {name: values[0] for name, values in table.items()}
    task.check(cells)
    with pytest.raises(ValueError, match="1/K"):
        task.check(cells | {"prediction_sad": 1})
    with pytest.raises(ValueError, match="add up"):
        task.check(cells | {"score_sad": 0.9})


def test_a_corpus_without_votes_is_refused():
    with pytest.raises(UserError, match="toy has no raters' votes"):
        SoftTask.of(protocol(LABELS), CLIPS[3:], settings())


def test_a_class_that_is_nobodys_consensus_is_learned_all_the_same():
    from emopeft.downstream.protocols.resolving import resolve

    clips = [
        utterance(f"c{i}", votes={"happy": 2, "neutral": 2 + i % 2, "sad": 1}, session=str(i))
        for i in range(6)
    ]
    by_session = protocol(by="session")
    for task in (SoftTask.of(by_session, clips, settings(no_consensus="keep")),
                 MultiTask.of(by_session, clips, settings())):  # fmt: skip
        assert len(resolve(by_session, clips, task).folds) == 6


@pytest.mark.parametrize("task", [soft(), soft(no_consensus="keep")])
def test_descriptions(task):
    assert task_of(task.describe()).describe() == task.describe()
    with pytest.raises(UserError, match="no_consensus"):
        task_of(task.describe() | {"no_consensus": "perhaps"})
    with pytest.raises(UserError, match="task.classes"):
        task_of(task.describe() | {"classes": ["one"]})
