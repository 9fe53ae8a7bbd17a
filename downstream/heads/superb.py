"""SUPERB's head (Yang et al. 2021): affine before and after a mean over time."""

from __future__ import annotations

from torch import Tensor, nn

from emopeft.downstream.heads.base import Head, HeadOptions, register


@register
class SuperbHead(Head):
    """Linear(D, hidden), mean over time, Linear(hidden, outputs); no activation, no dropout.

    The mean is taken first: both are linear, so the outputs are the same.
    """

    name = "superb"
    summary = "SUPERB: Linear, mean over time, Linear"
    pooled = True

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        self.projector = nn.Linear(options.width, options.hidden)
        self.classifier = nn.Linear(options.hidden, options.outputs)

    def read(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.classifier(self.projector(features))
