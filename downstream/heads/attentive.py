"""Attentive statistics pooling under a layer of the 2024 Odyssey challenge's baseline.

    a_t = softmax over the valid frames of v . tanh(W h_t + b)
    mean = sum_t a_t h_t,   deviation = sqrt(sum_t a_t (h_t - mean)^2)      (Okabe et al. 2018, 4-6)
    outputs = Linear(dropout(ReLU(LayerNorm(Linear(dropout([mean; deviation]))))))

One attention for all channels, v drawn from N(0, 1), variances of at least 1e-5: as in the
baseline (MSP-UTD/MSP-Podcast_Challenge), whose hidden width is 1024 and whose dropout is 0.5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emopeft.downstream.heads.base import Head, HeadOptions, register
from emopeft.upstream.states import mask_of

MIN_VARIANCE = 1e-5  # below it the gradient is 0: of one frame, or of frames that are all equal


@register
class AttentiveHead(Head):
    """Attention's mean and deviation (2 D), dropout, Linear, LayerNorm, ReLU, dropout, Linear."""

    name = "attentive"
    summary = "Odyssey 2024: attentive mean and deviation, Linear, LayerNorm, ReLU, Linear"
    pooled = False

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        width, hidden = options.width, options.hidden
        self.attention = nn.Linear(width, width)
        self.query = nn.Parameter(torch.randn(width))
        self.projector = nn.Sequential(
            nn.Dropout(options.dropout),
            nn.Linear(2 * width, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Dropout(options.dropout),
        )
        self.classifier = nn.Linear(hidden, options.outputs)

    def read(self, features: Tensor, lengths: Tensor) -> Tensor:
        keys = torch.tanh(self.attention(features))
        # Scores of tens and sums of hundreds of frames are coarse in bfloat16.
        exact = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            scores = keys.to(exact) @ self.query.to(exact)
            pooled = statistics(features.to(exact), scores, lengths)
        return self.classifier(self.projector(pooled))


def statistics(frames: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
    """Mean and deviation over time, frames weighted by the softmax of their scores.

    Args:
        frames: (batch, time, width).
        scores: (batch, time).
        lengths: valid frames (batch,), at least one; what lies behind them plays no part.

    Returns:
        (batch, 2 * width).
    """
    mask = mask_of(lengths, frames.shape[1])
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), 1).unsqueeze(1)
    frames = frames.masked_fill(~mask.unsqueeze(-1), 0.0)
    mean = weights @ frames  # (batch, 1, width)
    variance = weights @ (frames - mean).square()
    return torch.cat([mean, variance.clamp_min(MIN_VARIANCE).sqrt()], -1).squeeze(1)
