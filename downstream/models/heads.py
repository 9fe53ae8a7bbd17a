"""Heads: from hidden states to one vector of outputs per utterance.

A *pooled* head needs only the time means of the states, because all it does before pooling is
affine; the means (states, width) of a frozen upstream are then all that has to be kept of a clip.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from emopeft.errors import UserError, unknown
from emopeft.upstream.states import mask_of

LAYERS = ("weighted_sum", "last", "blocks")
MAX_HIDDEN = 8192


class Featurizer(nn.Module):
    """The states a head sees: their softmax-weighted sum (equal at init), or the last one.

    Args:
        states: L+1.
        layers: "weighted_sum" over all states (SUPERB), "blocks" for a weighted sum over the
            block outputs only (PEFT-SER), or "last".
    """

    def __init__(self, states: int, layers: str):
        super().__init__()
        if layers not in LAYERS:
            raise unknown("value of head.layers", layers, LAYERS)
        self.skip = {"weighted_sum": 0, "blocks": min(1, states - 1), "last": states - 1}[layers]
        self.weights: nn.Parameter | None = None
        if layers != "last":
            self.weights = nn.Parameter(torch.zeros(states - self.skip))

    def forward(self, states: Tensor, dim: int) -> Tensor:
        """Sum ``states`` along ``dim``, which counts the L+1 states."""
        states = states.narrow(dim, self.skip, states.shape[dim] - self.skip)
        if self.weights is None:
            return states.squeeze(dim)
        shape = [-1 if d == dim else 1 for d in range(states.dim())]
        return (states * torch.softmax(self.weights, 0).view(shape)).sum(dim)


class Head(nn.Module):
    """Base of all heads.

    Attributes:
        pooled: whether `forward` takes time means (batch, states, width) instead of frames.
        featurizer: what chooses or sums the states.
        patched: names of its parameters that a method put in, by method.
    """

    pooled: ClassVar[bool]
    featurizer: Featurizer
    patched: dict[str, list[str]]

    def __init__(self) -> None:
        super().__init__()
        self.patched = {}

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """(batch, states, width) when pooled, else (batch, states, time, width); to outputs."""
        raise NotImplementedError


class SuperbHead(Head):
    """SUPERB's head: Linear(D, 256), mean over time, Linear(256, C); no activation, no dropout.

    The mean is taken first: both are linear, so the outputs are the same.
    """

    pooled = True
    mean: Tensor
    scale: Tensor

    def __init__(
        self, width: int, states: int, outputs: int, layers: str, hidden: int, standardise: bool
    ):
        super().__init__()
        self.featurizer = Featurizer(states, layers)
        self.projector = nn.Linear(width, hidden)
        self.classifier = nn.Linear(hidden, outputs)
        self.standardise = standardise
        if standardise:
            self.register_buffer("mean", torch.zeros(states, width))
            self.register_buffer("scale", torch.ones(states, width))

    def fit_standardisation(self, means: Tensor) -> None:
        """Note mean and deviation of the training part's time means (items, states, width)."""
        self.mean.copy_(means.mean(0))
        self.scale.copy_(means.std(0, unbiased=False).clamp_min(1e-6))

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        if self.standardise:
            states = (states - self.mean) / self.scale
        return self.classifier(self.projector(self.featurizer(states, 1)))


class ConvHead(Head):
    """PEFT-SER's head: 3 x (Conv1d k=1, 256, ReLU, dropout), mean, Linear, ReLU, Linear."""

    pooled = False

    def __init__(
        self, width: int, states: int, outputs: int, layers: str, hidden: int, dropout: float
    ):
        super().__init__()
        self.featurizer = Featurizer(states, layers)
        convolutions: list[nn.Module] = []
        for channels in (width, hidden, hidden):
            # A convolution with kernel 1 is a linear layer on every frame.
            convolutions += [nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.convolutions = nn.Sequential(*convolutions)
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        frames = self.convolutions(self.featurizer(states, 1))
        mask = mask_of(lengths, frames.shape[1]).unsqueeze(-1)
        # In bfloat16 a sum of hundreds of frames is coarse, and 301 frames would be 300.
        exact = torch.promote_types(frames.dtype, torch.float32)
        mean = (frames * mask).sum(1, dtype=exact) / lengths.view(-1, 1)
        return self.classifier(mean.to(frames.dtype))


HEADS = ("superb", "conv")


def make_head(
    name: str,
    *,
    width: int,
    states: int,
    outputs: int,
    layers: str = "weighted_sum",
    hidden: int = 256,
    dropout: float = 0.1,
    standardise: bool = False,
) -> Head:
    """A head by name, newly initialised from torch's global generator.

    Raises:
        UserError: an unknown name, or a size or rate that no head can have.
    """
    if not 1 <= hidden <= MAX_HIDDEN:
        raise UserError(f"head.hidden={hidden} must be a whole number from 1 to {MAX_HIDDEN}")
    if not 0 <= dropout < 1:
        raise UserError(f"head.dropout={dropout} must be in [0, 1)")
    if name == "superb":
        return SuperbHead(width, states, outputs, layers, hidden, standardise)
    if name == "conv":
        return ConvHead(width, states, outputs, layers, hidden, dropout)
    raise unknown("head", name, HEADS)
