"""What a run will cost, from timing a few clips: for the dry run."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.corpora.check import Scan
from emopeft.downstream.data.prepare import Data
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.feature_cache.frozen import frozen_item
from emopeft.downstream.models.model import AdaptedModel, Batch
from emopeft.units import duration, size
from emopeft.upstream.base import SAMPLE_RATE

CLIPS = 4


def estimate(recipe: Recipe, data: Data, model: AdaptedModel, scanned: Scan) -> list[str]:
    """Lines with the time of the frozen part, its size on disk, and the time of training.

    A few clips spread over the corpus are timed on this machine; training is bounded from above
    by its full length, because early stopping cannot be foreseen.
    """
    utterances = data.utterances()
    sample = utterances[:: max(1, len(utterances) // CLIPS)][:CLIPS]
    seconds = [scanned.seconds[u.id] for u in utterances]
    sampled = sum(scanned.seconds[u.id] for u in sample)
    wavs = [torch.from_numpy(decode(u.path, SAMPLE_RATE)) for u in sample]
    frozen_item(model.upstream, model.start, model.head.pooled, wavs[0])  # warm-up
    started = time.perf_counter()
    items = [frozen_item(model.upstream, model.start, model.head.pooled, w) for w in wavs]
    prefix = (time.perf_counter() - started) / sampled  # seconds per second of audio
    bytes_each = {"fp32": 4, "fp16": 2, "bf16": 2}[recipe.cache.dtype]
    numbers = sum(t.numel() for item in items for t in item if t is not None)
    stored = numbers * bytes_each / sampled

    step = _step_seconds(model, items) / sampled
    if not recipe.cache.enabled:
        step += prefix
    by_step = not recipe.cache.enabled or items[0][1] is not None  # else on time means
    total = 0.0
    for fold in data.folds:
        clips = len(fold.train)
        per_epoch = math.ceil(clips / recipe.train.batch_size)
        steps = recipe.train.steps or (recipe.train.epochs or 1) * per_epoch
        hours = sum(scanned.seconds[u.id] for u in fold.train) / clips * recipe.train.batch_size
        total += steps * (max(hours * step, 5e-4) if by_step else 1e-3)
    total *= len(recipe.seeds)
    tries = 1 + (len(recipe.train.lr_grid) if recipe.train.tune == "lr" else 0)
    kept = (
        f"{duration(prefix * sum(seconds))} once, for {sum(seconds) / 3600:.2f} h of audio; "
        f"{size(stored * sum(seconds))} on disk ({size(stored * 3600)} per hour)"
        if recipe.cache.enabled
        else "nothing is kept (cache.enabled=false): computed anew in every step"
    )
    return [
        f"Estimated cost on this machine ({torch.get_num_threads()} threads)",
        f"  frozen part   {kept}",
        f"  training      at most {duration(total * tries)} for {len(data.folds)} folds and "
        f"{len(recipe.seeds)} seeds (early stopping ends it sooner)",
    ]


def _step_seconds(model: AdaptedModel, items: list[tuple[Any, Any]]) -> float:
    """Forward and backward of the sampled clips as one batch."""
    labels = torch.zeros(len(items), dtype=torch.long)
    states = [s for s, _ in items]
    batch = Batch(
        torch.stack(states) if model.head.pooled else states,
        [k for _, k in items if k is not None],
        labels,
    )
    model.train()
    for timed in (False, True):
        started = time.perf_counter()
        torch.nn.functional.cross_entropy(model(batch), labels).backward()
        model.zero_grad()
        if timed:
            break
    model.eval()
    return time.perf_counter() - started
