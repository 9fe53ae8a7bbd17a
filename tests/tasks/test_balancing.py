"""Weights of unequal classes: by hand, and as scikit-learn and Cui et al. define them."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.utils.class_weight import compute_sample_weight

from emopeft.downstream.tasks.balancing import KINDS, class_balance
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from tests.tasks.toy import Together


def one_hot(*counts: int) -> torch.Tensor:
    labels = [c for c, n in enumerate(counts) for _ in range(n)]
    return torch.nn.functional.one_hot(torch.tensor(labels), len(counts)).double()


def test_balanced_is_inverse_frequency() -> None:
    targets = one_hot(70, 20, 9, 1)
    wanted = compute_sample_weight("balanced", targets.argmax(-1).numpy())
    torch.testing.assert_close(class_balance(targets, "balanced"), torch.tensor(wanted))


def test_effective_numbers_by_hand() -> None:
    """N = 4, b = 3/4: E_1 = 1, E_3 = 1 + 3/4 + 9/16 = 37/16."""
    found = class_balance(one_hot(1, 3), "effective")
    rare, common = 1.0, 16 / 37
    k = 4 / (rare + 3 * common)
    assert found.tolist() == pytest.approx([k * rare] + [k * common] * 3, rel=1e-14)


def test_effective_numbers_of_a_large_corpus() -> None:
    """Against the sum 1 + b + b^2 ... of whole numbers; the order is inverse frequency's."""
    counts = (4000, 600, 35)
    found = class_balance(one_hot(*counts), "effective")
    total = sum(counts)
    numbers = [math.fsum(((total - 1) / total) ** k for k in range(n)) for n in counts]
    each = [found[sum(counts[:c])].item() for c in range(3)]
    for c in (1, 2):
        assert each[c] / each[0] == pytest.approx(numbers[0] / numbers[c], rel=1e-11)
    balanced = class_balance(one_hot(*counts), "balanced")
    assert 1 < each[1] / each[0] < balanced[4000] / balanced[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_weight_is_one(kind: str) -> None:
    assert class_balance(one_hot(70, 20, 9, 1), kind).mean().item() == pytest.approx(1, abs=1e-12)
    assert class_balance(one_hot(1), kind).tolist() == [1.0]
    assert class_balance(one_hot(5, 5), kind).tolist() == pytest.approx([1.0] * 10)


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_and_clips_without_a_label(kind: str) -> None:
    hard = one_hot(6, 2)
    weights = class_balance(hard, kind)
    # As many votes of each class, in other clips: a clip has the weights of its classes' shares.
    soft = torch.tensor([[0.75, 0.25]] * 8, dtype=torch.float64)
    shared = 0.75 * weights[0] + 0.25 * weights[-1]
    scale = 1.0 if kind == "balanced" else float(shared)  # its mean is 1, too
    assert (class_balance(soft, kind) * scale).tolist() == pytest.approx([float(shared)] * 8)
    # Those of which nothing is known change nothing, and weigh 1.
    for nothing in (math.nan, 0.0):
        more = torch.cat([hard, torch.full((3, 2), nothing, dtype=torch.float64)])
        assert class_balance(more, kind).tolist() == [*weights.tolist(), 1.0, 1.0, 1.0]
    alone = torch.full((3, 2), math.nan)
    assert class_balance(alone, kind).tolist() == [1.0] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_is_not_there(kind: str) -> None:
    weights = class_balance(one_hot(6, 0, 2), kind)
    assert bool(weights.isfinite().all()) and float(weights[-1]) > float(weights[0])


def test_a_task_has_them_or_says_that_it_has_not() -> None:
    targets = one_hot(3, 1)
    task = EmotionTask(["a", "b"])
    assert torch.equal(task.balance(targets, "effective"), class_balance(targets, "effective"))
    with pytest.raises(UserError, match=r"train\.sampling are for classes, and task together has"):
        Together().balance(targets, "balanced")
