"""Losses of all tasks: gradients against finite differences in double precision, masks, splits."""

import math

import pytest
import torch

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.tasks.base import Task, task_classes, task_of
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.tasks.keys import LossKeys
from emopeft.downstream.tasks.rating_losses import LOSSES
from emopeft.downstream.tasks.votes import MultiTask, SoftTask
from emopeft.downstream.training.step_loss import StepLoss
from emopeft.errors import UserError

NAMES = ("neutral", "happy", "sad")
SCALES = {"valence": (1.0, 5.0), "arousal": (0.0, 10.0)}


def dimensional(losses: str, **weights: float) -> DimensionalTask:
    return DimensionalTask(SCALES, loss=LossKeys(dimensions=losses, dimension_weights=weights))


TASKS = {
    "cross_entropy": EmotionTask(NAMES),
    "focal": EmotionTask(NAMES, loss=LossKeys(classes="focal")),
    "kl": SoftTask(NAMES),
    "soft": SoftTask(NAMES, loss=LossKeys(votes="cross_entropy")),
    "multi": MultiTask(NAMES),
    **{name: dimensional(name) for name in LOSSES},
    "ccc+mse": dimensional("ccc+mse", valence=2.0, arousal=0.5),
    "joint": JointTask([EmotionTask(NAMES), dimensional("ccc")], {"emotion": 0.3}),
    "joint additive": JointTask([EmotionTask(NAMES), dimensional("mae+mse")]),
}


def batch(task: Task, size: int = 7, missing: bool = True, seed: int = 0):
    """Outputs, targets and weights in double precision."""
    draw = torch.Generator().manual_seed(seed)
    columns = []
    parts = task.parts.values() if isinstance(task, JointTask) else [task]
    for number, part in enumerate(parts):
        if isinstance(part, DimensionalTask):
            own = torch.rand(size, 2, generator=draw, dtype=torch.float64) * 4 + 1
            if missing:
                own[1, 0] = own[3] = math.nan
        elif isinstance(part, EmotionTask):
            classes = torch.randint(3, (size,), generator=draw)
            own = torch.nn.functional.one_hot(classes, 3).double()
            if missing and len(parts) > 1:
                own[4 + number] = math.nan
        else:
            own = torch.randint(1, 4, (size, 3), generator=draw).double()
        columns.append(own)
    outputs = torch.randn(size, task.outputs, generator=draw, dtype=torch.float64)
    weights = torch.rand(size, generator=draw, dtype=torch.float64) + 0.1
    return outputs, torch.cat(columns, 1), weights / weights.sum()


@pytest.mark.parametrize("name", TASKS)
def test_gradients_are_those_of_finite_differences(name):
    task = TASKS[name]
    outputs, targets, weights = batch(task)
    losses, gradient = task.gradient(outputs[None], targets, weights)
    assert losses[0].item() == pytest.approx(task.loss(outputs, targets, weights).item(), abs=1e-14)
    step, flat = 1e-6, outputs.flatten()
    for i in range(len(flat)):
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[i] += sign * step
            ends.append(task.loss(moved.view_as(outputs), targets, weights).item())
        difference = (ends[0] - ends[1]) / (2 * step)
        assert gradient.flatten()[i].item() == pytest.approx(difference, abs=3e-9), i


@pytest.mark.parametrize("name", TASKS)
def test_several_models_at_once_are_each_by_itself(name):
    task = TASKS[name]
    several = [batch(task, seed=seed) for seed in range(3)]
    outputs, targets, weights = (torch.stack(parts) for parts in zip(*several, strict=True))
    losses, gradients = task.gradient(outputs, targets, weights)
    for i, one in enumerate(several):
        loss, gradient = task.gradient(one[0][None], one[1], one[2])
        assert torch.allclose(losses[i], loss[0], rtol=0, atol=1e-14)
        assert torch.allclose(gradients[i], gradient[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", TASKS)
def test_weight_zero_is_as_good_as_not_there(name):
    task = TASKS[name]
    outputs, targets, weights = batch(task)
    longer = (
        torch.cat([outputs, torch.full_like(outputs[:2], 50.0)]),
        torch.cat([targets, targets[:2]]),
        torch.cat([weights, torch.zeros(2, dtype=torch.float64)]),
    )
    loss, gradient = task.gradient(longer[0][None], *longer[1:])
    assert loss[0].item() == pytest.approx(task.loss(outputs, targets, weights).item(), abs=1e-12)
    assert not gradient[0, -2:].any()


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.additive])
def test_an_additive_loss_is_the_sum_of_its_parts(name):
    task = TASKS[name]
    outputs, targets, weights = batch(task)
    parts = [
        task.loss(outputs[i : i + 2], targets[i : i + 2], weights[i : i + 2])
        for i in range(0, 7, 2)
    ]
    assert sum(parts).item() == pytest.approx(
        task.loss(outputs, targets, weights).item(), abs=1e-14
    )


def test_which_losses_are_sums():
    additive = {name for name, task in TASKS.items() if task.additive}
    assert additive == {
        "cross_entropy", "focal", "kl", "soft", "multi", "mse", "mae", "joint additive"
    }  # fmt: skip


def test_ccc_by_hand():
    """Ratings 1 2 3 4 of a scale from 1 to 5, outputs that mean 2 2 4 4: 1 - 0.8 (1 / 1.25)."""
    task = DimensionalTask({"valence": (1.0, 5.0)})
    outputs = torch.tensor([[0.25], [0.25], [0.75], [0.75]], dtype=torch.float64)
    targets = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    even = torch.full((4,), 0.25, dtype=torch.float64)
    assert task.loss(outputs, targets, even).item() == pytest.approx(1 - 2 / 2.5, abs=1e-15)
    rmse = DimensionalTask({"valence": (1.0, 5.0)}, loss=LossKeys(dimensions="rmse"))
    assert rmse.loss(outputs, targets, even).item() == pytest.approx(math.sqrt(0.5) / 4, abs=1e-15)


@pytest.mark.parametrize("losses", LOSSES)
def test_batches_without_a_value_have_a_finite_loss_and_gradient(losses):
    """Constant ratings, a single one, none at all, outputs that are the ratings."""
    task = DimensionalTask({"valence": (0.0, 1.0)}, loss=LossKeys(dimensions=losses))
    nan = math.nan
    cases = [
        ([[0.5], [0.5], [0.5]], [[0.5], [0.5], [0.5]]),
        ([[0.1], [0.2], [0.9]], [[0.5], [0.5], [0.5]]),
        ([[0.1], [0.2], [0.9]], [[0.5], [nan], [nan]]),
        ([[0.1], [0.2], [0.9]], [[nan], [nan], [nan]]),
        ([[0.5], [0.2], [0.9]], [[0.5], [nan], [nan]]),
    ]
    for outputs, targets in cases:
        loss, gradient = task.gradient(
            torch.tensor([outputs]), torch.tensor(targets), torch.full((3,), 1 / 3)
        )
        assert loss.isfinite().all() and gradient.isfinite().all(), (outputs, targets)
    nobody = task.loss(torch.zeros(3, 1), torch.full((3, 1), nan), torch.full((3,), 1 / 3))
    assert nobody == 0


def test_the_batch_of_ccc_is_a_key_and_cuts_the_batch_as_drawn():
    task = dimensional("ccc")
    several = [batch(task, size=11, seed=seed) for seed in range(3)]
    step = StepLoss(task, TrainKeys(loss_batch=4))

    def expected(outputs, targets, weights):
        return sum(
            weights[p].sum() * task.loss(outputs[p], targets[p], weights[p] / weights[p].sum())
            for p in (slice(0, 4), slice(4, 8), slice(8, 11))
        )

    outputs, targets, weights = (torch.stack(parts) for parts in zip(*several, strict=True))
    leaves = outputs.clone().requires_grad_()
    wanted = torch.stack([expected(*one) for one in zip(leaves, targets, weights, strict=True)])
    wanted.sum().backward()
    losses, gradients = step.gradient(outputs, targets, weights)
    assert torch.allclose(losses, wanted, rtol=0, atol=1e-14)
    assert torch.allclose(gradients, leaves.grad, rtol=0, atol=1e-14)
    # One batch for all models, as the rates of a search have it.
    shared, _ = step.gradient(outputs, targets[0], weights[0])
    assert shared[0].item() == pytest.approx(wanted[0].item(), abs=1e-14)
    whole = StepLoss(task, TrainKeys()).gradient(outputs, targets, weights)[0]
    assert ((whole - wanted).abs() > 1e-3).all()  # it matters
    # Filled-up batches: parts of weight 0 add nothing, and are no NaN.
    filled = torch.cat([weights[:, :4], torch.zeros(3, 7, dtype=torch.float64)], 1)
    filled = filled / filled.sum(1, keepdim=True)
    losses, gradients = step.gradient(outputs, targets, filled)
    assert losses.isfinite().all() and not gradients[:, 4:].any()
    # Of a sum over utterances the parts are the whole.
    assert StepLoss(TASKS["cross_entropy"], TrainKeys(loss_batch=2)).whole(100)


def test_focal_of_gamma_zero_is_cross_entropy_and_a_sure_hit_has_a_finite_gradient():
    focal = EmotionTask(NAMES, loss=LossKeys(classes="focal", gamma=0.0))
    outputs, targets, weights = batch(focal)
    one, other = (
        t.gradient(outputs[None], targets, weights) for t in (focal, TASKS["cross_entropy"])
    )
    assert torch.allclose(one[0], other[0]) and torch.allclose(one[1], other[1])
    half = EmotionTask(NAMES, loss=LossKeys(classes="focal", gamma=0.5))
    sure = torch.tensor([[[200.0, 0.0, 0.0]]])
    _, gradient = half.gradient(sure, torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", TASKS)
def test_a_description_makes_the_task_again(name):
    task = TASKS[name]
    again = task_of(task.describe())
    assert again.describe() == task.describe() and again.columns == task.columns
    assert again.outputs == task.outputs and again.metrics == task.metrics


def test_which_tasks_go_together():
    assert [c.name for c in task_classes("emotion+dimensional+sex")] == [
        "emotion", "dimensional", "sex"
    ]  # fmt: skip
    for spec, word in (
        ("emotion+emotion", "twice"),
        ("sex+group", "emotion+sex+group"),
        ("emotion+dimension", "dimensional"),
        ("emotion+", "unknown task"),
    ):
        with pytest.raises(UserError, match=word.replace("+", r"\+")):
            task_classes(spec)
