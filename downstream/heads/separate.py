"""A small head for each group of a task's outputs, on one sum of the states for all of them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from emopeft.downstream.heads.base import HEADS, Head, HeadOptions


class SeparateHeads(Head):
    """Heads of one kind side by side, one per group of outputs, with one featurizer.

    What each of them computes is what a head of its own would compute on the same states.
    """

    def __init__(self, options: HeadOptions):
        kind = HEADS[options.name]
        super().__init__(options)
        self.pooled = kind.pooled
        heads = []
        for group in options.groups:
            own = {"outputs": group["outputs"], "standardise": False, "groups": ()}
            head = kind(dataclasses.replace(options, **own))
            del head.featurizer  # the states are summed once
            heads.append(head)
        self.heads = nn.ModuleList(heads)

    def read(self, features: Tensor, lengths: Tensor) -> Tensor:
        return torch.cat([head.read(features, lengths) for head in self.heads], -1)  # type: ignore[operator]
