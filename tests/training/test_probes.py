"""All probes at once give the numbers that training one by one gives."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from emopeft.downstream.data.recipe import TrainKeys
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.models.build import standardise_on
from emopeft.downstream.models.heads import SuperbHead, make_head
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.models.stacked_heads import StackedHeads
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.training.probes import Probe, choose, probes_can_train, train_probes
from emopeft.downstream.training.trainer import Trainer
from emopeft.upstream.base import Upstream

N, STATES, WIDTH, CLASSES = 150, 4, 12, 3
TRAIN, DEV, TEST = range(90), range(90, 120), range(120, 150)
RATES = [1e-2, 1e-3, 3e-4]


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Means whose classes can be learned, but not perfectly."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (N,), generator=generator)
    centres = torch.randn(CLASSES, STATES, WIDTH, generator=generator)
    noise = torch.randn(N, STATES, WIDTH, generator=generator)
    return centres[labels] * 0.4 + noise, labels


def head_of(seed: int, **options) -> SuperbHead:
    torch.manual_seed(seed)
    head = make_head("superb", width=WIDTH, states=STATES, outputs=CLASSES, hidden=16, **options)
    assert isinstance(head, SuperbHead)
    return head


def examples_of(means: torch.Tensor, labels: torch.Tensor) -> Examples:
    seconds = torch.linspace(1, 5, N).tolist()
    return Examples([None] * N, labels, seconds, [""] * N, None, means)  # type: ignore[list-item,arg-type]


def one_by_one(keys: TrainKeys, rate: float, seed: int, means, labels, **head_options):
    """A fit and test logits by the Trainer, which uses autograd and torch's optimisers."""
    task = EmotionTask(["a", "b", "c"])
    upstream = Upstream()
    upstream.num_blocks = STATES - 1
    model = AdaptedModel(upstream, head_of(seed, **head_options), STATES - 1)
    standardise_on(model, means[list(TRAIN)])
    trainer = Trainer(
        model, examples_of(means, labels), task, TRAIN, DEV, keys, rate, seed, Accelerator(cpu=True)
    )
    fit = trainer.fit()
    return fit, trainer.logits(TEST)


def probe_of(keys: TrainKeys, seed: int, means, labels, checkpoint=None, rates=RATES, **options):
    head = head_of(seed, **options)
    if head.standardise:
        head.fit_standardisation(means[list(TRAIN)])
    task = EmotionTask(["a", "b", "c"])
    return Probe(head, means, labels, TRAIN, DEV, task, keys, rates, seed, checkpoint=checkpoint)


def keys_of(**changes) -> TrainKeys:
    base = TrainKeys(epochs=None, steps=300, batch_size=32, eval_every=50, patience=None)
    return dataclasses.replace(base, **changes)


CASES = {
    "adam": ({}, {}),
    "adamw": ({"optimizer": "adamw", "weight_decay": 0.05}, {}),
    "adam with decay": ({"weight_decay": 0.01}, {}),
    "sgd": ({"optimizer": "sgd", "weight_decay": 0.01}, {}),
    "tight clipping": ({"clip": 0.05}, {}),
    "no clipping": ({"clip": None}, {}),
    "class weights": ({"class_weights": "balanced"}, {}),
    "linear with warm-up": ({"schedule": "linear", "warmup": 0.2}, {}),
    "plateau": ({"schedule": "plateau", "eval_every": 5}, {}),
    "early stopping": ({"patience": 2, "eval_every": None, "steps": None, "epochs": 60}, {}),
    "last state": ({}, {"layers": "last"}),
    "block outputs": ({}, {"layers": "blocks"}),
    "standardised": ({}, {"standardise": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_same_numbers_as_one_by_one(case: str) -> None:
    changes, head_options = CASES[case]
    keys = keys_of(**changes)
    means, labels = data()
    thorough = case in ("adam", "early stopping")  # else fewer, to be quick
    seeds, rates = ([0, 1], RATES) if thorough else ([1], RATES[:2])
    probes = [probe_of(keys, s, means, labels, rates=rates, **head_options) for s in seeds]
    assert sorted(train_probes(probes, quiet=True)) == list(range(len(seeds)))
    stops = set()
    for seed, probe in zip(seeds, probes, strict=True):
        for number, rate in enumerate(rates):
            fit, logits = one_by_one(keys, rate, seed, means, labels, **head_options)
            ours = probe.trials[number].fit()
            assert (ours.steps, ours.best_step) == (fit.steps, fit.best_step)
            stops.add(fit.steps)
            assert len(ours.history) == len(fit.history)
            for mine, theirs in zip(ours.history, fit.history, strict=True):
                assert mine == pytest.approx(theirs, abs=2e-5)
            probe.install(number)
            assert (probe.logits(TEST) - logits).abs().max() < 5e-5
            assert probe.logits(TEST).argmax(-1).equal(logits.argmax(-1))
    if case == "early stopping":
        assert len(stops) > 2  # each heard its own dev part


def test_gradient_is_autograds_in_double_precision() -> None:
    head = head_of(3).double()
    keys = keys_of(clip=None)
    stack = StackedHeads(head, 2, keys)
    torch.nn.init.normal_(head.featurizer.weights)
    stack._set(*(t.double() for t in (stack.rows, stack.first, stack.second)))
    for name, view in stack.views.items():
        view[1] = dict(head.named_parameters())[name].detach()
    stack._set(stack.rows, stack.first, stack.second)
    means, labels = data()
    means, labels = means[:32].double(), labels[:32]
    weights = torch.rand(32, dtype=torch.float64)
    onehot = torch.nn.functional.one_hot(labels, CLASSES).double()
    losses, left, right = stack._backward(means, onehot, weights)
    gradients = {name: view[1] for name, view in stack.small_views.items()}
    gradients["projector.weight"] = left[1].T @ right[1]
    wanted = (
        torch.nn.functional.cross_entropy(
            head(means, torch.empty(0)), labels, reduction="none"
        )
        * weights
    ).sum()  # fmt: skip
    wanted.backward()
    assert float(losses[1]) == pytest.approx(wanted.item(), abs=1e-12)
    for name, parameter in head.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-12), name


def test_diverged_rate_loses_and_says_why() -> None:
    means, labels = data()
    keys = keys_of(optimizer="sgd", clip=None, steps=60, eval_every=20)
    probe = probe_of(keys, 0, means, labels, rates=[1e12, 1e-2])
    list(train_probes([probe], quiet=True))
    assert "1e+12" in (probe.trials[0].failure or "")
    assert choose(probe.trials, "uar") == 1
    assert probe.trials[1].steps == 60


def test_ties_go_to_the_earlier_rate() -> None:
    means, labels = data()
    probe = probe_of(keys_of(steps=20, eval_every=20), 0, means, labels, rates=[1e-9, 2e-9])
    list(train_probes([probe], quiet=True))
    assert probe.trials[0].selection.best == probe.trials[1].selection.best
    assert choose(probe.trials, "uar") == 0


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    means, labels = data()
    keys = keys_of(steps=400, eval_every=30, patience=4)
    whole = probe_of(keys, 0, means, labels)
    list(train_probes([whole], quiet=True))

    for stop_at in (100, 260):
        stop = threading.Event()
        done = 0

        def advance(steps: int, stop=stop, stop_at=stop_at) -> None:
            nonlocal done
            done += steps
            if done >= stop_at * len(RATES):
                stop.set()

        probe_of(keys, 0, means, labels, tmp_path / "progress.pt").run(advance, stop)
        assert (tmp_path / "progress.pt").exists()
    resumed = probe_of(keys, 0, means, labels, tmp_path / "progress.pt")
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
    half = head_of(0)
    half.projector.weight.requires_grad_(False)
    assert not probes_can_train(half, means)
