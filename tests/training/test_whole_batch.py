"""Losses that are no sum over utterances: the same gradient however a batch is split."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.session import make_accelerator
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.tasks.keys import LossKeys
from emopeft.downstream.training.anchors import fisher, hold
from emopeft.downstream.training.interruption import Interrupted, asked, deferred, graceful
from emopeft.downstream.training.trainer import Trainer
from emopeft.peft_modules.apply import adapt
from emopeft.upstream.catalogue import load
from tests.shared import ROOT
from tests.tasks.toy import Together

COUNT = 12


class Held:
    """What a trainer needs of `Examples`: features in memory, in double precision."""

    def __init__(self, width: int, targets: int):
        generator = torch.Generator().manual_seed(0)
        self.frames = [
            torch.randn(4 + i, width, generator=generator, dtype=torch.float64)
            for i in range(COUNT)
        ]
        self.targets = torch.rand(COUNT, targets, generator=generator, dtype=torch.float64)
        self.targets /= self.targets.sum(1, keepdim=True) if targets > 1 else 1
        self.seconds = [float(len(x)) for x in self.frames]
        self.preloaded = None
        self.ways = [[i] for i in range(COUNT)]
        self.in_turn = False

    def ways_of(self, indices: list[int], crowd: str = "") -> list[list[int]]:
        return [self.ways[i] for i in indices]

    def batch(self, indices: list[int], device: Any) -> Batch:
        kept = [self.frames[i] for i in indices]
        states = torch.zeros(len(kept), 0, kept[0].shape[1], dtype=torch.float64)
        return Batch(states, kept, self.targets[indices])

    def prefetch(self, groups: list[list[int]], device: Any) -> Any:
        return (self.batch(group, device) for group in groups)


def trainer_of(
    task: Task,
    seconds: float,
    method: str = "lora",
    weights: Any = None,
    loss_batch: int | None = None,
) -> Trainer:
    """A trainer in double precision whose batches are split by so many seconds."""
    upstream = load("demo")
    torch.manual_seed(0)
    adaptation = adapt(upstream, method, prove=False)
    for name, parameter in upstream.trainable():  # LoRA's B is zero at init: nothing would show
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    head = make_head("superb", width=upstream.width, states=upstream.num_blocks + 1,
                     outputs=task.outputs, hidden=16)  # fmt: skip
    model = AdaptedModel(upstream, head, 0, adaptation=adaptation).double()
    examples: Any = Held(upstream.width, len(task.target_names))
    weights = torch.ones(COUNT) if weights is None else weights
    keys = TrainKeys(batch_size=COUNT, batch_seconds=seconds, loss_batch=loss_batch)
    return Trainer(model, examples, task, range(COUNT), range(COUNT), weights, keys, 1e-3, 0,
                   make_accelerator("fp32"))  # fmt: skip


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    trainer.model.train()
    trainer.loss_sum += trainer.gradient.backward(list(range(COUNT)), trainer.step)
    found = {n: p.grad for n, p in trainer.plain.named_parameters() if p.requires_grad}
    assert all(g is not None and g.abs().sum() > 0 for g in found.values())
    return found  # type: ignore[return-value]


SCALES = {"valence": (0.0, 1.0), "arousal": (-1.0, 1.0)}
TASKS: dict[str, Task] = {
    "sum": EmotionTask(["a", "b"]),
    "whole batch": Together(),
    "ratings": DimensionalTask(SCALES, loss=LossKeys(dimensions="ccc+rmse")),
    "both": JointTask([EmotionTask(["a", "b"]), DimensionalTask(SCALES)], {"emotion": 0.5}),
}
SECONDS = {1: 1e9, 3: 60.0, 8: 22.0}


@pytest.mark.parametrize("task", TASKS)
def test_equal_gradients_on_one_three_and_eight_groups(task: str) -> None:
    weights = torch.linspace(0.5, 2, COUNT)
    whole = trainer_of(TASKS[task], SECONDS[1], weights=weights)
    wanted = gradients(whole)
    for count in (3, 8):
        split = trainer_of(TASKS[task], SECONDS[count], weights=weights)
        assert len(split.gradient.groups(list(range(COUNT)))[0]) == count
        for name, gradient in gradients(split).items():
            assert torch.allclose(gradient, wanted[name], rtol=1e-9, atol=1e-14), name
        assert float(split.loss_sum) == pytest.approx(float(whole.loss_sum), abs=1e-6)


@pytest.mark.parametrize("task", ["ratings", "both"])
def test_the_batch_of_the_loss_is_the_recipes_however_the_memory(task: str) -> None:
    """CCC on five utterances at a time: equal on 1, 3 and 8 groups, and not that of the whole."""
    weights = torch.linspace(0.5, 2, COUNT)
    whole = trainer_of(TASKS[task], SECONDS[1], weights=weights, loss_batch=5)
    wanted = gradients(whole)
    for count in (3, 8):
        split = trainer_of(TASKS[task], SECONDS[count], weights=weights, loss_batch=5)
        for name, gradient in gradients(split).items():
            assert torch.allclose(gradient, wanted[name], rtol=1e-9, atol=1e-14), name
        assert float(split.loss_sum) == pytest.approx(float(whole.loss_sum), abs=1e-6)
    other = trainer_of(TASKS[task], SECONDS[1], weights=weights)
    assert any(not torch.allclose(wanted[n], g, rtol=1e-3) for n, g in gradients(other).items())


def test_the_same_dropout_in_both_passes() -> None:
    """Against a graph that holds all groups at once, with the draws of the second pass."""
    method = "lora:dropout=0.5"
    trainer = trainer_of(Together(), SECONDS[3], method)
    found = gradients(trainer)
    other = trainer_of(Together(), SECONDS[3], method)
    other.model.train()
    groups, _ = other.gradient.groups(list(range(COUNT)))
    other.gradient.seed_dropout(other.step)
    outputs = torch.cat([other.model(other.examples.batch(g, "cpu")) for g in groups])
    order = [i for g in groups for i in g]
    even = torch.full((COUNT,), 1 / COUNT, dtype=torch.float64)
    loss = other.task.loss(outputs, other.examples.targets[order], even)
    loss.backward()
    assert float(trainer.loss_sum) == pytest.approx(loss.item(), abs=1e-6)
    for name, parameter in other.plain.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, found[name], rtol=1e-9, atol=1e-14), name
    quiet = gradients(trainer_of(Together(), SECONDS[3]))
    assert any(not torch.allclose(found[n], g, rtol=1e-3) for n, g in quiet.items())  # it dropped


def information(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The Fisher information of all utterances."""
    return fisher(trainer.plain, trainer.examples, range(COUNT), trainer.task, trainer.accelerator)


def trainers(seconds: float) -> Iterator[tuple[str, Trainer]]:
    """One of each task, and one that is held to where it began, in weights and in outputs."""
    for name, task in TASKS.items():
        yield name, trainer_of(task, seconds)
    trainer = trainer_of(TASKS["both"], seconds)
    source = trainer.plain.kept_state()
    hold(trainer, "ewc", 5.0, source, weights=information(trainer))
    hold(trainer, "lwf", 0.7, source)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter *= 1.5
    yield "held", trainer


TWO = """
import sys
sys.path.insert(0, ".")
import torch
from tests.training.test_whole_batch import SECONDS, gradients, trainers
torch.set_num_threads(1)
found = {}
for name, trainer in trainers(SECONDS[8]):
    gradient = gradients(trainer)
    loss = trainer.accelerator.reduce(trainer.loss_sum, "sum")
    found[name] = {"gradients": gradient, "loss": loss}
if trainer.accelerator.is_main_process:
    torch.save(found, sys.argv[1])
"""


def test_equal_gradients_on_two_processes(tmp_path: Path) -> None:
    where = tmp_path / "gradients.pt"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "--no-python", sys.executable, "-W", "ignore", "-c", TWO, str(where)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    by_task = torch.load(where, weights_only=True)
    assert by_task.keys() == {*TASKS, "held"}
    for task, wanted in trainers(SECONDS[1]):
        found = by_task[task]
        gradient = gradients(wanted)
        assert found["gradients"].keys() == gradient.keys()
        for name, one in gradient.items():
            assert torch.allclose(found["gradients"][name], one, rtol=1e-9, atol=1e-14), task
        assert float(found["loss"]) == pytest.approx(float(wanted.loss_sum), abs=1e-6)


def test_a_signal_waits_until_the_state_is_whole() -> None:
    """REVIEW C6."""
    import signal

    with pytest.raises(Interrupted) as caught, graceful(), deferred():
        signal.raise_signal(signal.SIGTERM)
        stop = asked()
        assert stop is not None
        raise stop
    assert caught.value.signal == signal.SIGTERM
    assert asked() is None
    with pytest.raises(Interrupted), graceful():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted), graceful(), deferred():  # a second one does not wait
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


def test_weights_of_a_batch_are_shares() -> None:
    """REVIEW A20: balanced weights divide by their sum, as torch's own weighted loss does."""
    task = EmotionTask(["a", "b", "c"])
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    targets = torch.nn.functional.one_hot(labels, 3).double()
    outputs = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    from emopeft.downstream.training.selection import shares, utterance_weights

    balanced = TrainKeys(class_weights="balanced")
    ones = torch.ones(6, dtype=torch.float64)
    weights = utterance_weights(task, balanced, targets, ones)
    per_class = torch.tensor([6 / 9, 6 / 6, 6 / 3], dtype=torch.float64)
    wanted = torch.nn.functional.cross_entropy(outputs, labels, weight=per_class)
    assert float(task.loss(outputs, targets, shares(weights))) == pytest.approx(float(wanted))
    assert json.dumps(shares(ones).tolist()) == json.dumps([1 / 6] * 6)
