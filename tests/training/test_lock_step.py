"""Probes in lock-step give the numbers of probes one by one, on every device."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from emopeft.downstream.models.grouped_heads import GroupedHeads
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training import side_by_side
from emopeft.downstream.training.lock_step import lock_steps
from emopeft.downstream.training.probes import Probe
from emopeft.downstream.training.side_by_side import train_probes
from emopeft.errors import UserError
from tests.tasks.toy import Together
from tests.training.cases import CASES, CLASSES, RATES, TASK, data, keys_of, probe_of

# With batches of 32: 3 steps an epoch, 3, and 2; the last of 26, 6 and 9 utterances.
PARTS = [range(90), range(70), range(20, 61)]


def probes_of(
    device: torch.device, folder: Path | None = None, task: Task = TASK, **options: Any
) -> list[Probe]:
    """Of every part one, each with a seed of its own."""
    means, targets = data()
    if task is not TASK:  # ratings, of which no batch has all alike
        targets = targets + 0.2 * means[:, 0, :CLASSES]
    means = means.to(device)
    return [
        probe_of(
            seed=seed, means=means, targets=targets, train=train, task=task,
            checkpoint=folder / f"{seed}.pt" if folder else None, **options,
        )
        for seed, train in enumerate(PARTS)
    ]  # fmt: skip


def train(probes: Sequence[Probe], together: bool) -> Sequence[Probe]:
    assert sorted(n for n, _ in train_probes(probes, quiet=True, together=together)) == [0, 1, 2]
    return probes


def train_until(probes: Sequence[Probe], together: bool, steps: int) -> None:
    """Train and be interrupted after about so many steps of one trial each."""
    stop, done = threading.Event(), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done >= steps * len(probes) * len(RATES):
            stop.set()

    if together:
        (stack,) = lock_steps(probes)
        stack.run(advance, stop, lambda probe: None)
    else:
        for probe in probes:
            stop.clear()
            done = (len(probes) - 1) * steps * len(RATES)  # as if the others were there
            probe.run(advance, stop)


def assert_equal(found: Sequence[Probe], wanted: Sequence[Probe]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.error is None
        for mine, theirs in zip(one.trials, other.trials, strict=True):
            assert mine.failure == theirs.failure
            assert mine.steps == theirs.steps
            assert mine.selection.best_step == theirs.selection.best_step
            histories = mine.selection.history, theirs.selection.history
            for now, then in zip(*histories, strict=True):
                assert now == pytest.approx(then, abs=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_same_numbers_as_one_by_one(case: str, device: torch.device) -> None:
    """REVIEW B: probes as many threads on one stream of a GPU; folds are stacked as rates are."""
    changes, options = CASES[case]
    task = Together() if case == "whole-batch loss" else TASK
    keys = keys_of(**{"steps": 150, "eval_every": 25, **changes})
    first, second = (probes_of(device, keys=keys, task=task, **options) for _ in range(2))
    wanted = train(first, together=False)
    found = train(second, together=True)
    assert_equal(found, wanted)
    assert not any(t.failure for p in found for t in p.trials)
    if case == "early stopping":
        assert len({t.steps for p in found for t in p.trials}) > 4  # each heard its own dev part
        assert len({p.total for p in found}) > 1


def test_probes_of_several_states_and_a_sum(device: torch.device) -> None:
    """They lie on the same means; sums train apart from single states."""
    layers = ["0", "2", "last", "weighted_sum", "1"]
    keys = keys_of(steps=100, eval_every=25)

    def probes() -> list[Probe]:
        means, targets = data()
        there = means.to(device)
        return [probe_of(keys, 0, there, targets, layers=of, standardise=True) for of in layers]

    found, wanted = probes(), probes()
    assert [len(stack.probes) for stack in lock_steps(found)] == [3, 1, 1]
    list(train_probes(found, quiet=True, together=True))
    list(train_probes(wanted, quiet=True, together=False))
    assert_equal(found, wanted)
    assert len({tuple(p.trials[0].selection.history[-1].values()) for p in found}) == len(layers)


@pytest.mark.parametrize("task", [TASK, Together()], ids=["additive", "whole batch"])
def test_a_rate_that_diverges_harms_no_other(task: Task, device: torch.device) -> None:
    keys = keys_of(optimizer="sgd", clip=None, steps=60, eval_every=20, select=task.main)
    rates = [1e30, 1e-2, 1e-3]
    first, second = (probes_of(device, keys=keys, task=task, rates=rates) for _ in range(2))
    found = train(first, together=True)
    wanted = train(second, together=False)
    for probe in found:
        assert "1e+30" in (probe.trials[0].failure or "")
        assert [t.failure for t in probe.trials[1:]] == [None, None]
    for one, other in zip(found, wanted, strict=True):
        # How a loss ceases to be a number depends on the order of the sums.
        one.trials, other.trials = one.trials[1:], other.trials[1:]
    assert_equal(found, wanted)


def test_a_rate_that_stopped_changes_no_more(device: torch.device) -> None:
    keys = keys_of(optimizer="adamw", weight_decay=0.1)
    probes = probes_of(device, keys=keys)
    heads = GroupedHeads([p.stack for p in probes], [[0, 1, 2]] * 3, 3)
    before = heads.rows.clone()
    rates = torch.tensor([1e-2, 0, 1e-2] * 3, device=device)
    means, targets = data()
    batch = torch.stack([means[p.train[:32]] for p in probes]).to(device)
    weights = torch.full((32,), 1 / 32, device=device)
    loss = functools.partial(TASK.gradient, targets=targets[:32].to(device), weights=weights)
    heads.step_all(batch, loss, rates)
    changed = (heads.rows != before).any(1).tolist()
    assert changed == [True, False, True] * 3


@pytest.mark.parametrize("together", [True, False], ids=["lock-step", "one by one"])
@pytest.mark.parametrize("then_together", [True, False], ids=["lock-step", "one by one"])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, device: torch.device, together: bool, then_together: bool
) -> None:
    """Whichever way it was begun and goes on; also where a rate stopped before."""
    options = {"keys": keys_of(steps=240, eval_every=20, patience=2)}
    whole = train(probes_of(device, **options), together=then_together)
    train_until(probes_of(device, tmp_path, **options), together, steps=70)
    assert len(list(tmp_path.glob("*.pt"))) == len(PARTS)
    probes = probes_of(device, tmp_path, **options)
    seen: list[int] = []
    for probe in probes:
        probe.begin(seen.append)
    assert all(60 * len(RATES) <= steps <= 120 * len(RATES) for steps in seen)
    assert 0 < sum(len(p.active) for p in probes) < len(PARTS) * len(RATES)
    assert_equal(train(probes, then_together), whole)


def test_one_step_for_all(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """REVIEW B: a GPU took the probes in turn."""
    steps = []
    step_all = GroupedHeads.step_all

    def counted(self: GroupedHeads, *args: Any) -> torch.Tensor:
        steps.append(len(self))
        return step_all(self, *args)

    monkeypatch.setattr(GroupedHeads, "step_all", counted)
    probes = train(probes_of(device, keys=keys_of(steps=None, epochs=10)), together=True)
    assert [p.total for p in probes] == [30, 30, 20]
    assert steps == [9] * 20 + [6] * 10  # who is done leaves


def test_lock_step_wherever_the_device_is_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """REVIEW B."""
    probes: Any = [
        types.SimpleNamespace(device=torch.device("cuda"), total=1, trials=[None], busy=0.0)
    ] * 2

    def stacks(those: Sequence[Any]) -> list[Any]:
        def run(advance: Any, stop: threading.Event, finished: Any) -> None:
            for probe in those:
                finished(probe)

        return [types.SimpleNamespace(run=run)]

    monkeypatch.setattr(side_by_side, "lock_steps", stacks)
    assert len(list(train_probes(probes, quiet=True))) == 2


def test_as_many_at_a_time_as_memory_allows(device: torch.device) -> None:
    options = {"keys": keys_of(steps=60, eval_every=20)}
    probes = probes_of(device, **options)
    limit = 2 * probes[0].stack.rows.nbytes
    stacks = list(lock_steps(probes, limit))
    assert [len(stack.probes) for stack in stacks] == [2, 1]
    for stack in stacks:
        stack.run(lambda steps: None, threading.Event(), lambda probe: None)
    assert_equal(probes, train(probes_of(device, **options), together=False))


@pytest.mark.parametrize("together", [True, False], ids=["lock-step", "one by one"])
def test_an_error_of_one_probe_is_its_own(tmp_path: Path, together: bool) -> None:
    keys = keys_of(steps=60, eval_every=20)
    (tmp_path / "0.pt").write_bytes(b"not what it was")
    probes = probes_of(torch.device("cpu"), tmp_path, keys=keys)
    probes[2].weights.zero_()
    train(probes, together)
    for number, words in ((0, "0.pt"), (2, "weight 0")):
        error = probes[number].error
        assert isinstance(error, UserError)
        assert words in str(error)
    assert probes[1].trials[0].fit().steps == 60


@pytest.mark.parametrize("task", [TASK, Together()], ids=["additive", "whole batch"])
def test_weight_zero_is_not_there(task: Task) -> None:
    """The contract of `Task.loss` that filling up batches rests on."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    targets = data()[1][:8].double()
    weights = torch.tensor([0.2, 0.5, 0.3, 0, 0, 0.0, 0, 0], dtype=torch.float64)
    losses, gradient = task.gradient(outputs, targets, weights)
    short, rows = task.gradient(outputs[:, :3], targets[:3], weights[:3])
    assert torch.allclose(losses, short, atol=1e-12)
    assert torch.allclose(gradient[:, :3], rows, atol=1e-12)
    assert not gradient[:, 3:].any()


@pytest.mark.parametrize("task", [TASK, Together()], ids=["additive", "whole batch"])
def test_gradient_of_models_on_batches_of_their_own(task: Task) -> None:
    outputs = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    targets = data()[1][:16].view(2, 8, 3)
    weights = torch.rand(2, 8, generator=torch.Generator().manual_seed(1)) / 8
    losses, gradient = task.gradient(outputs, targets, weights)
    for model in range(2):
        loss, rows = task.gradient(outputs[model, None], targets[model], weights[model])
        assert torch.allclose(losses[model], loss[0])
        assert torch.allclose(gradient[model], rows[0])
