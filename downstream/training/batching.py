"""Which utterances a step sees, and how a step is split to fit into memory.

A step's batch is drawn at random, as in SUPERB; then it is sorted by duration and split into
micro-batches of similar length. Their gradients add up to the batch's own, so the budget changes
speed and memory but not what is learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def epoch_order(count: int, seed: int, epoch: int, chances: Tensor | None = None) -> list[int]:
    """An epoch's order of ``range(count)``: a permutation, or draws with replacement.

    It depends on seed and epoch alone, so that training can go on at any step without replaying
    the ones before.

    Args:
        chances: how likely each is to be drawn (count,), up to a factor; None: each comes once.
    """
    generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + epoch)
    if chances is None:
        return torch.randperm(count, generator=generator).tolist()
    return torch.multinomial(chances.double(), count, True, generator=generator).tolist()


def micro_batches(
    indices: Sequence[int], seconds: Sequence[float], budget: float
) -> list[list[int]]:
    """Split ``indices`` into groups of similar duration.

    Args:
        indices: utterances; seconds: the duration of every utterance of the corpus.
        budget: the largest padded duration of a group (a single longer clip is its own group).
    """
    groups: list[list[int]] = []
    for index in sorted(indices, key=lambda i: (-seconds[i], i)):
        if groups and seconds[groups[-1][0]] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
