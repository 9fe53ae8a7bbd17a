"""Several tasks at once: masks, names, weights, and what only helps."""

import math

import pytest
import torch

from emopeft.downstream.tasks.base import make_task, task_of
from emopeft.downstream.tasks.joint import JointTask
from emopeft.errors import UserError
from tests.tasks.helpers import protocol, settings, utterance

LABELS = {"neutral": "neutral", "happy": "happy"}
CLIPS = [
    utterance("a", emotion="happy", ratings={"valence": 4.0}, sex="female"),
    utterance("b", emotion="neutral", sex="male"),
    utterance("c", ratings={"valence": 2.0}),
    utterance("d", sex="male"),
]


def joint(spec: str = "emotion+dimensional+sex", **keys) -> JointTask:
    task = make_task(spec, protocol(LABELS), CLIPS, settings(**keys))
    assert isinstance(task, JointTask)
    return task


def rows(task: JointTask) -> torch.Tensor:
    return torch.tensor([task.target(clip) for clip in CLIPS[:3]])


def test_an_utterance_counts_for_what_is_known_of_it():
    task, nan = joint(), math.nan
    assert task.target_names == (
        "emotion.neutral", "emotion.happy", "dimensional.valence", "sex.female", "sex.male",
    )  # fmt: skip
    assert task.target(CLIPS[0]) == (0, 1, 4, 1, 0)
    expected = torch.tensor([[0, 1, 4, 1, 0], [1, 0, nan, 0, 1], [nan, nan, 2, nan, nan]])
    assert torch.equal(rows(task).nan_to_num(-9), expected.nan_to_num(-9))
    assert task.target(CLIPS[3]) is None  # sex alone is not what is asked
    assert [task.class_of(clip) for clip in CLIPS] == ["happy", "neutral", None, None]
    assert task.classes == ("neutral", "happy")
    assert make_task("dimensional+sex", protocol(), CLIPS, settings()).classes == ()


def test_the_loss_is_the_weighted_sum_of_the_parts_on_what_they_know():
    task = joint(task_weights={"emotion": 2.0, "sex": 0.5})
    outputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets, weights = rows(task).double(), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    emotion, ratings, sex = task.parts.values()
    expected = (
        2.0 * emotion.loss(outputs[:2, :2], targets[:2, :2], weights[:2])
        + ratings.loss(outputs[[0, 2], 2:3], targets[[0, 2], 2:3], torch.tensor([2, 1]) / 3)
        + 0.5 * sex.loss(outputs[:2, 3:], targets[:2, 3:], weights[:2])
    )
    assert task.loss(outputs, targets, weights).item() == pytest.approx(expected.item(), abs=1e-7)


def test_tables_measures_and_missing_truths():
    task = joint()
    outputs, targets = torch.zeros(3, 5), rows(task)
    outputs[:, 1] = 1.0
    table = task.table(outputs, targets)
    assert list(table) == [c.name for c in task.columns]
    assert table["emotion.truth"] == ["happy", "neutral", ""]
    assert table["sex.truth"] == ["female", "male", ""]
    assert math.isnan(table["dimensional.truth_valence"][1])
    for column in task.columns:
        for cell in table[column.name]:
            value = column.read(column.write(cell))
            assert value == cell or (math.isnan(value) and math.isnan(cell))
    measures = task.measure(table)
    assert measures["emotion.uar"] == 0.5 and measures["emotion.confusion"] == [[0, 1], [0, 1]]
    assert measures["dimensional.ccc"] == 0
    assert task.chance(table) == {"emotion.uar": 0.5, "dimensional.ccc": 0.0}
    assert task.main == "emotion.uar"
    assert joint(main="dimensional.ccc").main == "dimensional.ccc"
    assert "sex.uar" in {m.name for m in task.shown}
    assert "sex.accuracy" not in {m.name for m in task.shown}
    for row, target in zip(zip(*table.values(), strict=True), targets.tolist(), strict=True):
        cells = dict(zip(table, row, strict=True))
        task.check(cells)
        for name, truth in task.truths(target).items():
            same = truth == cells[name] or (math.isnan(truth) and math.isnan(cells[name]))
            assert same, name


def test_mistakes():
    with pytest.raises(UserError, match=r"loss\.task_weights.*emotoin"):
        joint(task_weights={"emotoin": 1.0})
    with pytest.raises(UserError, match=r"metric.*'uar'"):
        joint(main="uar")
    alike = [utterance("a", emotion="happy", sex="male"), utterance("b", emotion="neutral")]
    with pytest.raises(UserError, match="all utterances are of one sex"):
        make_task("emotion+sex", protocol(LABELS), alike, settings())
    with pytest.raises(UserError, match="trait of the corpus 'age'"):
        make_task("emotion+group", protocol(LABELS), CLIPS, settings(group="age"))


def test_the_group_is_a_named_trait():
    clips = [utterance("a", emotion="happy", traits={"age": "old"}),
             utterance("b", emotion="neutral", traits={"age": "young"})]  # fmt: skip
    task = make_task("emotion+group", protocol(LABELS), clips, settings(group="age"))
    assert isinstance(task, JointTask) and task.parts["group"].classes == ("old", "young")
    assert task_of(task.describe()).describe() == task.describe()


@pytest.mark.parametrize(
    "change",
    [
        {"parts": None}, {"parts": []}, {"main": 3}, {"main": "uar"}, {"name": "emotion+sex"},
        {"name": "emotion+emotion"}, {"name": "+"}, {"version": 9},
    ],
)  # fmt: skip
def test_descriptions_are_data(change):
    description = joint().describe()
    assert task_of(description).describe() == description
    with pytest.raises(UserError):
        task_of(description | change)
    newer = [part | {"version": 7} for part in description["parts"]]
    with pytest.raises(UserError, match="version"):
        task_of(description | {"parts": newer})
