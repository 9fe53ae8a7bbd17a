"""PEFT-SER's head (Feng & Narayanan 2023): three layers on every frame, then a mean over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emopeft.downstream.heads.base import Head, HeadOptions, register
from emopeft.upstream.states import mask_of


@register
class ConvHead(Head):
    """3 x (Conv1d k=1, hidden, ReLU, dropout), mean, Linear, ReLU, Linear."""

    name = "conv"
    summary = "PEFT-SER: three convolutions of width 1 with ReLU and dropout, mean, two Linear"
    pooled = False

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        hidden = options.hidden
        convolutions: list[nn.Module] = []
        for channels in (options.width, hidden, hidden):
            # A convolution with kernel 1 is a linear layer on every frame.
            convolutions += [nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(options.dropout)]
        self.convolutions = nn.Sequential(*convolutions)
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, options.outputs)
        )

    def read(self, features: Tensor, lengths: Tensor) -> Tensor:
        frames = self.convolutions(features)
        mask = mask_of(lengths, frames.shape[1]).unsqueeze(-1)
        # In bfloat16 a sum of hundreds of frames is coarse, and 301 frames would be 300.
        exact = torch.promote_types(frames.dtype, torch.float32)
        mean = (frames * mask).sum(1, dtype=exact) / lengths.view(-1, 1)
        return self.classifier(mean.to(frames.dtype))
