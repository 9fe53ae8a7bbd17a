"""Every method trains ratings and several tasks at once, by a loss of the whole batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.frozen import empty_states
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.session import make_accelerator
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.training.trainer import Trainer
from emopeft.peft_modules.liveness import is_key_bias
from tests.peft_modules.cases import base, built, specs

LENGTHS = (3600, 2400, 3000, 2800)
NAN = math.nan
RATINGS = [[1.0, 2.0, 0.1, NAN], [2.0, 1.0, 0.9, 5.0], [5.0, NAN, 0.4, 1.0], [3.0, 5.0, 0.2, 2.0]]
BOTH = [[1.0, 0.0, 1.0, 2.0], [0.0, 1.0, NAN, NAN], [NAN, NAN, 4.0, 1.0], [1.0, 0.0, 2.0, 5.0]]
SCALE = (1.0, 5.0)
TASKS: dict[str, tuple[Task, list[list[float]]]] = {
    "ratings": (DimensionalTask(dict.fromkeys("vads", SCALE)), RATINGS),
    "both": (
        JointTask([EmotionTask(["a", "b"]), DimensionalTask(dict.fromkeys("va", SCALE))]), BOTH
    ),
}  # fmt: skip


class Clips:
    """What a trainer needs of `Examples`: four short clips, their frozen part made on the way."""

    def __init__(self, model: AdaptedModel, targets: list[list[float]]):
        draw = torch.Generator().manual_seed(5)
        self.model = model
        self.clips = [torch.randn(n, generator=draw) * 0.1 for n in LENGTHS]
        self.targets = torch.tensor(targets)
        self.seconds = [n / 16000 for n in LENGTHS]
        self.preloaded = None
        self.ways = [[i] for i in range(len(LENGTHS))]
        self.in_turn = False

    def ways_of(self, indices: list[int], crowd: str = "") -> list[list[int]]:
        return [self.ways[i] for i in indices]

    def batch(self, indices: list[int], device: Any) -> Batch:
        upstream = self.model.upstream
        kept, below = upstream.prefix(self.model.start, [self.clips[i] for i in indices])
        states = (
            below.means() if below.layers else empty_states(upstream, True, len(indices), device)
        )
        return Batch(states, kept, self.targets[indices])

    def prefetch(self, groups: Iterator[list[int]], device: Any) -> Iterator[Batch]:
        return (self.batch(group, device) for group in groups)


@pytest.mark.parametrize("name", TASKS)
def test_every_method_trains(name: str) -> None:
    """Three steps in two groups: each tensor that trains has moved, and nothing is NaN.

    Ratings for all; both tasks at once, whose loss is a sum of what is tested already, for some.
    """
    task, targets = TASKS[name]
    keys = TrainKeys(batch_size=4, batch_seconds=0.46, epochs=3, choose="last", patience=None)
    wrong = []
    for spec in specs()[::2] if name == "ratings" else specs()[1::6]:
        _, model = built(base("hubert_base_like")[0], spec, prove=False)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        examples: Any = Clips(model, targets)
        trainer = Trainer(model, examples, task, range(4), range(4), torch.ones(4), keys, 1e-2, 0,
                          make_accelerator("fp32"))  # fmt: skip
        assert len(trainer.gradient.groups([0, 1, 2, 3])[0]) == 2
        fit = trainer.fit()
        losses = [entry["loss"] for entry in fit.history]
        if not all(map(math.isfinite, losses)) or fit.steps != 3:
            wrong.append(f"{spec}: losses {losses}")
        after = dict(model.named_parameters())
        still = [n for n, old in before.items() if torch.equal(old, after[n])]
        dead = [n for n in still if not is_key_bias(model.upstream, n.removeprefix("upstream."))]
        if dead:
            wrong.append(f"{spec}: {len(dead)} of {len(before)} stay, e.g. {dead[0]}")
    assert not wrong, "\n".join(wrong)
