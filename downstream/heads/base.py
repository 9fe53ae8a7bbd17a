"""The contract of a head: from hidden states to one vector of outputs per utterance.

A head chooses or sums the states (`Featurizer`) and reads what that gives (`Head.read`). A *pooled*
head needs only the time means of the states, because all it does before pooling is affine; the
means (states, width) of a frozen upstream are then all that has to be kept of a clip. A head is one
file here, or of another package, that calls `register`; `make_head` (making.py) makes one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emopeft.errors import UserError, unknown
from emopeft.registry import Registry

LAYERS = ("weighted_sum", "last", "blocks")
NUMBER = "0|[1-9][0-9]{0,3}"  # of a state, as ``head.layers`` has it
MAX_HIDDEN = 8192
MIN_DEVIATION = 1e-6  # of a feature that is standardised


def state_number(layers: str) -> int | None:
    """The number of the one state that ``head.layers`` names; None of what is in `LAYERS`.

    Raises UserError for anything else.
    """
    if layers in LAYERS:
        return None
    if not re.fullmatch(NUMBER, layers):
        raise unknown("value of head.layers", layers, LAYERS)
    return int(layers)


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """All that decides a head but its draws: arguments of `make_head`, as checkpoints have them.

    Attributes:
        name: in `HEADS`. width: of a state. states: L+1. outputs: of the task.
        layers: see `Featurizer`. hidden: width inside the head. dropout: its rate there.
        standardise: each state's time means by mean and deviation of the training part.
        groups: name and number of outputs of each group that has a small head of its own, in the
            order of the outputs; none: one head for all outputs.

    Raises:
        UserError: an unknown name, or a size or rate that no head can have.
    """

    name: str
    width: int
    states: int
    outputs: int
    layers: str = "weighted_sum"
    hidden: int = 256
    dropout: float = 0.1
    standardise: bool = False
    groups: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        pooled = HEADS[self.name].pooled
        number = state_number(self.layers)
        if number is not None and number >= self.states:
            raise UserError(
                f"head.layers={number}: there is no such state; this upstream has states 0 to "
                f"{self.states - 1}"
            )
        if not 1 <= self.hidden <= MAX_HIDDEN:
            raise UserError(
                f"head.hidden={self.hidden} must be a whole number from 1 to {MAX_HIDDEN}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"head.dropout={self.dropout} must be in [0, 1)")
        if self.standardise and not pooled:
            raise UserError("head.standardise needs head.name=superb, which works on time means")
        if self.groups and sum(g["outputs"] for g in self.groups) != self.outputs:
            raise UserError(f"the key 'head.groups' must add up to the {self.outputs} outputs")


class Featurizer(nn.Module):
    """The states a head sees: their softmax-weighted sum (equal at init), or one of them.

    Args:
        states: L+1.
        layers: "weighted_sum" over all states (SUPERB), "blocks" for a weighted sum over the
            block outputs only (PEFT-SER), "last", or the number of one.

    Attributes:
        skip: the first state that is seen. count: how many are, from there.
    """

    def __init__(self, states: int, layers: str):
        super().__init__()
        first = {"weighted_sum": 0, "blocks": min(1, states - 1), "last": states - 1}
        self.skip = first[layers] if layers in first else int(layers)
        self.weights: nn.Parameter | None = None
        self.count = 1
        if layers in ("weighted_sum", "blocks"):
            self.count = states - self.skip
            self.weights = nn.Parameter(torch.zeros(self.count))

    def seen(self, states: Tensor, dim: int) -> Tensor:
        """Those of all states that are seen, a view; ``dim`` counts the L+1 states."""
        return states.narrow(dim, self.skip, self.count)

    def forward(self, states: Tensor, dim: int) -> Tensor:
        """Sum ``states`` along ``dim``, which counts the L+1 states."""
        states = self.seen(states, dim)
        if self.weights is None:
            return states.squeeze(dim)
        shape = [-1 if d == dim else 1 for d in range(states.dim())]
        return (states * torch.softmax(self.weights, 0).view(shape)).sum(dim)


class Head(nn.Module):
    """Base of all heads. The last linear layer stands in ``classifier``, where methods look for it.

    Attributes:
        name: as in ``head.name``. summary: what it is, in a line.
        pooled: whether `forward` takes time means (batch, states, width) instead of frames.
        featurizer: what chooses or sums the states.
        standardise: whether ``mean`` and ``scale`` (states, width) come before that.
        patched: names of its parameters that a method put in, by method.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    pooled: bool
    mean: Tensor
    scale: Tensor

    def __init__(self, options: HeadOptions) -> None:
        super().__init__()
        self.patched: dict[str, list[str]] = {}
        self.featurizer = Featurizer(options.states, options.layers)
        self.standardise = options.standardise
        if options.standardise:
            self.register_buffer("mean", torch.zeros(options.states, options.width))
            self.register_buffer("scale", torch.ones(options.states, options.width))

    def fit_standardisation(self, means: Tensor) -> None:
        """Note mean and deviation of the training part's time means (items, states, width)."""
        self.mean.copy_(means.mean(0))
        self.scale.copy_(means.std(0, unbiased=False).clamp_min(MIN_DEVIATION))

    def take_standardisation(self, other: Head) -> None:
        """Note those of a head that was fitted on the same training part."""
        self.mean.copy_(other.mean)
        self.scale.copy_(other.scale)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Outputs (batch, outputs).

        Args:
            states: (batch, states, width) when pooled, else (batch, states, time, width).
            lengths: valid frames (batch,); not looked at when pooled.
        """
        if self.standardise:
            states = (states - self.mean) / self.scale
        return self.read(self.featurizer(states, 1), lengths)

    def read(self, features: Tensor, lengths: Tensor) -> Tensor:
        """What the featurizer gave, (batch, width) or (batch, time, width), to (batch, outputs)."""
        raise NotImplementedError


HEADS: Registry[type[Head]] = Registry("head", "emopeft.downstream.heads")


def register(cls: type[Head]) -> type[Head]:
    """Class decorator: make a head known under its name."""
    HEADS.add(cls.name, cls)
    return cls
