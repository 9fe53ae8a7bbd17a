"""Probes that learn something in a second, and every way to train them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.heads.base import Head
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.training.probes import Probe
from emopeft.downstream.training.selection import sampling_chances, utterance_weights

N, STATES, WIDTH, CLASSES = 150, 4, 12, 3
TRAIN, DEV, TEST = range(90), range(90, 120), range(120, 150)
GROUPS = [{"name": "one", "outputs": 1}, {"name": "two", "outputs": 2}]
RATES = [1e-2, 1e-3, 3e-4]
TASK = EmotionTask(["a", "b", "c"])


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Means whose classes can be learned, but not perfectly, and the targets."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (N,), generator=generator)
    centres = torch.randn(CLASSES, STATES, WIDTH, generator=generator)
    noise = torch.randn(N, STATES, WIDTH, generator=generator)
    targets = torch.nn.functional.one_hot(labels, CLASSES).float()
    return centres[labels] * 0.4 + noise, targets


def head_of(seed: int, **options) -> Head:
    torch.manual_seed(seed)
    return make_head("superb", width=WIDTH, states=STATES, outputs=CLASSES, hidden=16, **options)


def weights_of(
    keys: TrainKeys, task: Task, targets: torch.Tensor, train: Sequence[int] = TRAIN
) -> torch.Tensor:
    own = targets[list(train)]
    return utterance_weights(task, keys, own, torch.ones(len(own)))


def chances_of(
    keys: TrainKeys, task: Task, targets: torch.Tensor, train: Sequence[int] = TRAIN
) -> torch.Tensor | None:
    return sampling_chances(task, keys, targets[list(train)])


def probe_of(
    keys: TrainKeys,
    seed: int,
    means: torch.Tensor,
    targets: torch.Tensor,
    checkpoint: Path | None = None,
    rates: Sequence[float] = RATES,
    task: Task = TASK,
    train: Sequence[int] = TRAIN,
    **options,
) -> Probe:
    """A probe on some of the utterances, on the device that the means are on."""
    head = head_of(seed, **options).to(means.device)
    chances = chances_of(keys, task, targets, train)
    if head.standardise:
        head.fit_standardisation(means[list(train)])
    return Probe(
        head, means, targets, train, DEV, weights_of(keys, task, targets, train), task, keys,
        rates, seed, means.device, checkpoint, f"fold {seed}", chances,
    )  # fmt: skip


def keys_of(**changes) -> TrainKeys:
    base = TrainKeys(epochs=None, steps=300, batch_size=32, eval_every=50, patience=None)
    return dataclasses.replace(base, **changes)


# Of the keys and of the head's options, what differs.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adam": ({}, {}),
    "adamw": ({"optimizer": "adamw", "weight_decay": 0.05}, {}),
    "adam with decay": ({"weight_decay": 0.01}, {}),
    "sgd": ({"optimizer": "sgd", "weight_decay": 0.01}, {}),
    "tight clipping": ({"clip": 0.05}, {}),
    "no clipping": ({"clip": None}, {}),
    "class weights": ({"class_weights": "balanced"}, {}),
    "effective numbers": ({"class_weights": "effective"}, {}),
    "sampling": ({"sampling": "balanced"}, {}),
    "linear with warm-up": ({"schedule": "linear", "warmup": 0.2}, {}),
    "plateau": ({"schedule": "plateau", "eval_every": 5}, {}),
    "early stopping": ({"patience": 2, "eval_every": None, "steps": None, "epochs": 60}, {}),
    "last state": ({}, {"layers": "last"}),
    "one state": ({}, {"layers": "1"}),
    "one state, standardised": ({}, {"layers": "2", "standardise": True}),
    "block outputs": ({}, {"layers": "blocks"}),
    "standardised": ({}, {"standardise": True}),
    "last step's state": ({"choose": "last", "schedule": "linear", "lr": 0.1}, {}),
    "separate heads": ({}, {"groups": GROUPS}),
    "separate, clipped": (
        {"optimizer": "adamw", "weight_decay": 0.05, "clip": 0.05},
        {"groups": GROUPS, "standardise": True, "layers": "last"},
    ),
    "separate, sgd": ({"optimizer": "sgd", "weight_decay": 0.01}, {"groups": GROUPS}),
    "whole-batch loss": ({"select": "ccc"}, {}),
}
