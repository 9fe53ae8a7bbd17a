"""The task ``-d emotion``: classes, cross-entropy, accuracy, UAR and macro-F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emopeft.downstream.protocols.protocol import Resolved
from emopeft.downstream.tasks.metrics import emotion_metrics

SELECTIONS = ("accuracy", "uar", "macro_f1")


class EmotionTask:
    """Classification of utterances into a protocol's classes."""

    name = "emotion"

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)

    @classmethod
    def of(cls, resolved: Resolved) -> EmotionTask:
        """The task of a resolved protocol."""
        return cls(resolved.classes)

    @property
    def outputs(self) -> int:
        """How many outputs a head needs."""
        return len(self.classes)

    def class_weights(self, labels: Tensor) -> Tensor:
        """Weights N / (C n_c): rarer classes count more, the average utterance counts 1."""
        counts = torch.bincount(labels, minlength=self.outputs).clamp_min(1)
        return len(labels) / (self.outputs * counts.to(torch.float32))

    def losses(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Cross-entropy of each utterance (batch,)."""
        return functional.cross_entropy(logits.float(), labels, weight=weights, reduction="none")

    def scores(self, logits: Tensor) -> Tensor:
        """Class probabilities (batch, classes)."""
        return torch.softmax(logits.double(), dim=-1)

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, Any]:
        """All metrics of a set of utterances."""
        predicted = logits.argmax(-1).tolist()
        return emotion_metrics(labels.tolist(), predicted, self.outputs)


TASKS = {"emotion": EmotionTask}
