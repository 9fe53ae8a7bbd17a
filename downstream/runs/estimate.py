"""What a run will cost, from timing a few clips: for the dry run."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from emopeft.downstream.data.augment import LIVE, alternatives
from emopeft.downstream.data.fold import Example, Fold, Stage
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.prepare import protocol_name
from emopeft.downstream.data.recipe import Recipe, probe_keys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.frozen import frozen_item
from emopeft.downstream.heads.base import HEADS
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.identity import own_key
from emopeft.downstream.runs.rows import Rows, all_rows, epochs_of, keys_of
from emopeft.downstream.runs.strategies import is_shared, stages_of
from emopeft.downstream.tasks.base import Task
from emopeft.numerics import Numerics
from emopeft.units import duration, size

CLIPS = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run takes at most, in seconds on this machine.

    Attributes:
        frozen: the frozen part of all clips, once. stored: bytes per second of audio of it.
        audio: seconds of audio. training: all folds, seeds and tried rates, to their full length.
        probes: of those that heads start from, 0 where there are none, or where they are trained
            on more than time means, which nobody timed.
        views: of training clips, where there are any, and they are kept: seconds to make them and
            their frozen part, once, and seconds of audio; of the same made anew in every epoch,
            seconds.
    """

    frozen: float
    stored: float
    audio: float
    training: float
    probes: float
    views: tuple[float, float, float] | None = None

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.frozen + self.training + self.probes


def estimate(recipe: Recipe, plan: Plan, cost: Cost, device: torch.device) -> list[str]:
    """Lines with the time of the frozen part, its size on disk, and the time of training, and of
    the probes where heads start from them."""
    folds = plan.choose(recipe.folds)
    frozen = (
        f"{duration(cost.frozen)} once, for {cost.audio / 3600:.2f} h of audio; "
        f"{size(cost.stored * cost.audio)} on disk ({size(cost.stored * 3600)} per hour)"
        if recipe.cache.enabled
        else "nothing is kept (cache.enabled=false): computed anew in every step"
    )
    where = "GPU" if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return [
        f"Estimated cost on this machine ({where})",
        f"  frozen part   {frozen}",
        f"  training      at most {duration(cost.training)} for {len(folds)} folds and "
        f"{len(recipe.seeds)} seeds (early stopping ends it sooner)",
        *_views(recipe, cost),
        *_probes(recipe, folds),
    ]


def _views(recipe: Recipe, cost: Cost) -> list[str]:
    """What the views of training clips take of it, kept and live."""
    if cost.views is None:
        return []
    once, audio, live = cost.views
    kept = f"{duration(once)} once, {size(cost.stored * audio)} on disk"
    if recipe.augment.views == LIVE:
        return [
            f"  views         new ones in every epoch: at most {duration(live)} of the training; "
            f"4 of each clip kept: {kept}"
        ]
    return [
        f"  views         {recipe.augment.views} of each training clip: {kept}, of the frozen "
        f"part; new ones in every epoch (augment.views=live): at most {duration(live)}"
    ]


def measured(
    recipe: Recipe,
    plan: Plan,
    examples: Sequence[Example],
    model: AdaptedModel,
    numerics: Numerics,
    device: torch.device,
) -> Cost:
    """The cost of a run: a few clips spread over the corpus are timed on the device that would
    train; training is bounded from above by its full length, because early stopping cannot be
    foreseen."""
    made = all_rows(recipe, plan, examples, augmented=True)
    places = {e.key: place for place, e in enumerate(examples)}

    def taken(e: Example) -> float:
        return sum(excerpt.seconds for excerpt in made.rows[places[e.key]])

    sample = [row[0] for row in made.rows[: len(examples) : max(1, len(examples) // CLIPS)][:CLIPS]]
    kept = {one.name: one for row in made.rows for one in row if one.kept}
    seconds = sum(one.seconds for one in kept.values())
    sampled = sum(excerpt.seconds for excerpt in sample)
    wavs = [excerpt.read().to(device) for excerpt in sample]

    def frozen(wav: torch.Tensor) -> Any:
        with numerics.freezing(device):
            return frozen_item(model.upstream, model.start, model.head.pooled, wav)

    frozen(wavs[0])  # warm-up
    started = _now(device)
    items = [frozen(w) for w in wavs]
    prefix = (_now(device) - started) / sampled  # seconds per second of audio
    bytes_each = {"fp32": 4, "fp16": 2, "bf16": 2}[recipe.cache.dtype]
    numbers = sum(t.numel() for item in items for t in item if t is not None)
    stored = numbers * bytes_each / sampled

    targets = torch.tensor([plan.target(e) for e in examples[: len(sample)]])
    step = _step_seconds(model, plan.task, items, targets, numerics, device) / sampled
    if not recipe.cache.enabled:
        step += prefix
    by_step = not recipe.cache.enabled or items[0][1] is not None  # else on time means
    folds = plan.choose(recipe.folds)
    total = 0.0
    for stage in _stages(recipe, plan, folds):
        keys, clips = keys_of(recipe, stage), len(stage.train)
        per_epoch = math.ceil(clips / keys.batch_size)
        steps = (keys.epochs or 1) * per_epoch if keys.steps is None else keys.steps
        audio = sum(taken(e) for e in stage.train) / clips * keys.batch_size
        total += steps * (max(audio * step, 5e-4) if by_step else 1e-3)
    views = None
    if alternatives(recipe.augment.apply):
        views = _view_cost(recipe, plan, made, prefix)
    total *= len(recipe.seeds)
    tries = len(recipe.train.lr_grid) if recipe.train.tune == "lr" else 1
    once = prefix * seconds if recipe.cache.enabled else 0.0
    total *= tries
    if views is not None and recipe.augment.views == LIVE:
        total += views[2] * tries
    elif views is not None:
        once += views[0] - prefix * views[1]  # making them comes on top
    return Cost(
        frozen=once,
        stored=stored,
        audio=seconds,
        training=total,
        probes=_probe_steps(recipe, folds) * 1e-3 if _on_means(recipe) else 0.0,
        views=views,
    )


def _view_cost(recipe: Recipe, plan: Plan, made: Rows, prefix: float) -> tuple[float, float, float]:
    """See `Cost.views`; a few clips are transformed.

    Args:
        prefix: seconds that the frozen part of a second of audio takes.
    """
    drawn = [row for row in made.rows if row[0].drawing is not None]
    sample = [row[0] for row in drawn[:: max(1, len(drawn) // CLIPS)][:CLIPS]]
    sample[0].read()  # what is imported, and read of a folder, at first
    started = time.perf_counter()
    for excerpt in sample:
        excerpt.read()
    each = (time.perf_counter() - started) / sum(excerpt.seconds for excerpt in sample) + prefix
    stages = [stage for fold in plan.choose(recipe.folds) for stage in fold.stages]
    live = sum(
        epochs_of(keys_of(recipe, stage), len(stage.train))
        * sum(plan.seconds[e.uid] for e in stage.train)
        for stage in stages
    )
    if recipe.augment.views == LIVE:
        audio = 4 * sum({e.uid: plan.seconds[e.uid] for s in stages for e in s.train}.values())
    else:
        audio = sum({e.name: e.seconds for row in drawn for e in row}.values())
    return each * audio, audio, each * live * len(recipe.seeds)


def _probes(recipe: Recipe, folds: Sequence[Fold]) -> list[str]:
    """What comes on top where heads start from the frozen probe."""
    if recipe.head.init != "probe":
        return []
    steps, on_means = _probe_steps(recipe, folds), _on_means(recipe)
    training = f"at most {duration(steps * 1e-3)}" if on_means else f"at most {steps:,} steps"
    return [
        f"  probes        to start from, kept for all methods: {training}, after the frozen part "
        "of all states" + (" (time means)" if on_means else "")
    ]


def _on_means(recipe: Recipe) -> bool:
    return HEADS[recipe.head.name].pooled


def _probe_steps(recipe: Recipe, folds: Sequence[Fold]) -> int:
    """Steps of all probes that heads start from."""
    if recipe.head.init != "probe":
        return 0
    keys = probe_keys(protocol_name(recipe), recipe.train)
    clips = [len(fold.stages[0].train) for fold in folds]
    return sum(
        keys.steps or math.ceil((keys.epochs or 1) * math.ceil(n / keys.batch_size)) for n in clips
    ) * len(recipe.seeds)


def _stages(recipe: Recipe, plan: Plan, folds: Sequence[Fold]) -> Iterator[Stage]:
    """What is trained of these folds; a source's stage that folds share once."""
    known: set[str] = set()
    for fold in folds:
        for stage in stages_of(recipe.transfer, fold, plan.task, recipe.seeds[0]):
            key = own_key(plan, stage, 0) if is_shared(fold, stage) else ""
            if not key or key not in known:
                yield stage
            known.add(key)


def _step_seconds(
    model: AdaptedModel,
    task: Task,
    items: Sequence[tuple[Any, Any]],
    targets: torch.Tensor,
    numerics: Numerics,
    device: torch.device,
) -> float:
    """Forward and backward of the sampled clips as one batch."""
    states = [s.to(device) for s, _ in items]
    batch = Batch(
        torch.stack(states) if model.head.pooled else states,
        [k.to(device) for _, k in items if k is not None],
        targets.to(device),
    )
    weights = torch.full((len(items),), 1 / len(items), device=device)
    model.train()
    started = 0.0
    for _ in range(2):  # the first is the warm-up
        started = _now(device)
        with numerics.training(device):
            outputs = model(batch)
        task.loss(outputs.float(), batch.targets, weights).backward()
        model.zero_grad()
    elapsed = _now(device) - started
    model.eval()
    return elapsed


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
