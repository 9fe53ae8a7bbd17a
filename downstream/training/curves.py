"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw(folder: Path, evaluations: Sequence[dict[str, float]]) -> None:
    """Add evaluations to a TensorBoard folder."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for evaluation in evaluations:
            for name, value in evaluation.items():
                if name != "step":
                    writer.add_scalar(name, value, int(evaluation["step"]))
