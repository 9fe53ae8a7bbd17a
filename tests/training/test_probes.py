"""All probes at once give the numbers that training one by one gives."""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path

import pytest
import torch

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.models.build import standardise_on
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.models.stacked_heads import StackedHeads
from emopeft.downstream.runs.session import make_accelerator
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.probes import probes_can_train
from emopeft.downstream.training.selection import Diverged
from emopeft.downstream.training.side_by_side import train_probes
from emopeft.downstream.training.trainer import Trainer
from emopeft.downstream.training.trials import choose
from emopeft.upstream.base import Upstream
from tests.tasks.toy import Together
from tests.training.cases import (
    CASES,
    DEV,
    GROUPS,
    RATES,
    STATES,
    TASK,
    TEST,
    TRAIN,
    N,
    chances_of,
    data,
    head_of,
    keys_of,
    probe_of,
    weights_of,
)


def examples_of(means: torch.Tensor, targets: torch.Tensor) -> Examples:
    seconds = torch.linspace(1, 5, N).tolist()
    return Examples([()] * N, targets, [[i] for i in range(N)], seconds, preloaded=means)


def one_by_one(keys: TrainKeys, rate: float, seed: int, means, targets, task, **head_options):
    """A fit and test outputs by the Trainer, which uses autograd and torch's optimisers."""
    upstream = Upstream()
    upstream.num_blocks = STATES - 1
    model = AdaptedModel(upstream, head_of(seed, **head_options), STATES - 1)
    standardise_on(model, means[list(TRAIN)])
    trainer = Trainer(
        model, examples_of(means, targets), task, TRAIN, DEV, weights_of(keys, task, targets), keys,
        rate, seed, make_accelerator("fp32"), chances=chances_of(keys, task, targets),
    )  # fmt: skip
    fit = trainer.fit()
    return fit, trainer.outputs(TEST)


@pytest.mark.parametrize("case", CASES)
def test_same_numbers_as_one_by_one(case: str) -> None:
    changes, head_options = CASES[case]
    keys = keys_of(**changes)
    means, targets = data()
    task = Together() if case == "whole-batch loss" else TASK
    thorough = case in ("adam", "early stopping")  # else fewer, to be quick
    seeds, rates = ([0, 1], RATES) if thorough else ([1], RATES[:2])
    probes = [
        probe_of(keys, s, means, targets, rates=rates, task=task, **head_options) for s in seeds
    ]
    assert sorted(n for n, _ in train_probes(probes, quiet=True)) == list(range(len(seeds)))
    stops = set()
    for seed, probe in zip(seeds, probes, strict=True):
        for number, rate in enumerate(rates):
            fit, outputs = one_by_one(keys, rate, seed, means, targets, task, **head_options)
            ours = probe.trials[number].fit()
            assert (ours.steps, ours.best_step) == (fit.steps, fit.best_step)
            stops.add(fit.steps)
            assert len(ours.history) == len(fit.history)
            for mine, theirs in zip(ours.history, fit.history, strict=True):
                assert mine == pytest.approx(theirs, abs=2e-5)
            probe.install(number)
            assert (probe.outputs(TEST) - outputs).abs().max() < 5e-5
            assert probe.outputs(TEST).argmax(-1).equal(outputs.argmax(-1))
    if case == "early stopping":
        assert len(stops) > 2  # each heard its own dev part


@pytest.mark.parametrize("task", [TASK, Together()], ids=["additive", "whole batch"])
def test_gradient_is_autograds_in_double_precision(task: Task) -> None:
    head = head_of(3).double()
    keys = keys_of(clip=None)
    stack = StackedHeads(head, 2, keys)
    torch.nn.init.normal_(head.featurizer.weights)
    stack._set(*(t.double() for t in (stack.rows, stack.first, stack.second)))
    for name, view in stack.views.items():
        view[1] = dict(head.named_parameters())[name].detach()
    stack._set(stack.rows, stack.first, stack.second)
    means, targets = data()
    means, targets = means[:32].double(), targets[:32].double()
    weights = torch.rand(32, dtype=torch.float64)
    losses, left, right = stack._backward(
        means[None], functools.partial(task.gradient, targets=targets, weights=weights)
    )
    gradients = {name: view[1] for name, view in stack.small_views.items()}
    gradients["projector.weight"] = left[1].T @ right[1]
    outputs = head(means, torch.empty(0))
    if task is TASK:  # by torch's own loss
        each = torch.nn.functional.cross_entropy(outputs, targets.argmax(-1), reduction="none")
        wanted = (each * weights).sum()
    else:
        wanted = task.loss(outputs, targets, weights)
    wanted.backward()
    assert float(losses[1]) == pytest.approx(wanted.item(), abs=1e-12)
    for name, parameter in head.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-12), name


def test_diverged_rate_loses_and_says_why() -> None:
    means, targets = data()
    keys = keys_of(optimizer="sgd", clip=None, steps=60, eval_every=20)
    probe = probe_of(keys, 0, means, targets, rates=[1e12, 1e-2])
    list(train_probes([probe], quiet=True))
    assert "1e+12" in (probe.trials[0].failure or "")
    assert choose(TASK, keys, probe.trials) == 1
    assert probe.trials[1].steps == 60


def test_where_every_rate_diverged_none_is_chosen() -> None:
    """REVIEW A15: a diverged rate scored 0.0, which beats a negative CCC."""
    means, targets = data()
    keys = keys_of(optimizer="sgd", clip=None, steps=40, eval_every=20)
    probe = probe_of(keys, 0, means, targets, rates=[1e12, 1e13])
    list(train_probes([probe], quiet=True))
    with pytest.raises(Diverged, match=r"1e\+12"):
        choose(TASK, keys, probe.trials)


def test_a_negative_metric_beats_a_diverged_rate() -> None:
    """REVIEW A15."""
    means, targets = data()
    keys = keys_of(select="ccc", steps=20, eval_every=20, optimizer="sgd", clip=None)
    probe = probe_of(keys, 0, means, targets, rates=[1e30, 1e-6], task=Together())
    list(train_probes([probe], quiet=True))
    assert probe.trials[0].failure is not None
    probe.trials[1].selection.best["ccc"] = -0.3
    assert choose(Together(), keys, probe.trials) == 1


def test_probe_seconds_are_those_of_the_clock() -> None:
    """REVIEW A18: seconds of threads that share the time were added up."""
    means, targets = data()
    keys = keys_of(steps=600)
    probes = [probe_of(keys, seed, means, targets) for seed in range(4)]
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    began = time.monotonic()
    try:
        told = sum(probes[n].busy * clock for n, clock in train_probes(probes, quiet=True))
    finally:
        torch.set_num_threads(threads)
    assert told <= (time.monotonic() - began) * 1.3


def test_ties_go_to_the_earlier_rate() -> None:
    means, targets = data()
    probe = probe_of(keys_of(steps=20, eval_every=20), 0, means, targets, rates=[1e-9, 2e-9])
    list(train_probes([probe], quiet=True))
    assert probe.trials[0].selection.best == probe.trials[1].selection.best
    assert choose(TASK, keys_of(), probe.trials) == 0


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    means, targets = data()
    keys = keys_of(steps=400, eval_every=30, patience=4)
    whole = probe_of(keys, 0, means, targets)
    list(train_probes([whole], quiet=True))

    for stop_at in (100, 260):
        stop = threading.Event()
        done = 0

        def advance(steps: int, stop=stop, stop_at=stop_at) -> None:
            nonlocal done
            done += steps
            if done >= stop_at * len(RATES):
                stop.set()

        probe_of(keys, 0, means, targets, tmp_path / "progress.pt").run(advance, stop)
        assert (tmp_path / "progress.pt").exists()
    resumed = probe_of(keys, 0, means, targets, tmp_path / "progress.pt")
    seen: list[int] = []
    resumed.run(seen.append, threading.Event())
    assert seen[0] > 0  # it did not begin again
    for mine, theirs in zip(resumed.trials, whole.trials, strict=True):
        assert mine.selection == theirs.selection
        for name in theirs.best:
            assert torch.equal(mine.best[name], theirs.best[name])


def test_only_plain_heads_on_means() -> None:
    means, _ = data()
    assert probes_can_train(head_of(0), means)
    assert not probes_can_train(head_of(0), None)
    patched = head_of(0)
    patched.classifier = torch.nn.Sequential(patched.classifier)  # type: ignore[assignment]
    assert not probes_can_train(patched, means)
    apart = head_of(0, groups=GROUPS)
    assert probes_can_train(apart, means)
    apart.heads[1].classifier.weight.requires_grad_(False)
    assert not probes_can_train(apart, means)
    half = head_of(0)
    half.projector.weight.requires_grad_(False)
    assert not probes_can_train(half, means)
