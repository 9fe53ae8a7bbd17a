"""A second task for tests: one rating, a loss that is no sum over utterances, nothing else."""

from __future__ import annotations

import math
import statistics

from emopeft.downstream.tasks.base import Column, Metric, Task


class Together(Task):
    """Its loss is 1 - Pearson's correlation of the first output with the first target."""

    name = "together"
    target_names = ("valence",)  # type: ignore[assignment]
    outputs = 1  # type: ignore[assignment]
    columns = (Column("truth", "truth"), Column("prediction", "prediction"))  # type: ignore[assignment]
    metrics = (Metric("correlation", "r", low=-1.0, percent=False),)  # type: ignore[assignment]

    def target(self, utterance):
        return None if utterance.valence is None else (utterance.valence,)

    def loss(self, outputs, targets, weights):
        x, y = outputs[:, 0], targets[:, 0]
        x, y = x - (weights * x).sum(), y - (weights * y).sum()
        r = (weights * x * y).sum() / ((weights * x * x).sum() * (weights * y * y).sum()).sqrt()
        return 1 - r

    def table(self, outputs, targets):
        return {"truth": targets[:, 0].tolist(), "prediction": outputs[:, 0].tolist()}

    def measure(self, table):
        truth, guess = table["truth"], table["prediction"]
        varied = len(set(truth)) > 1 and len(set(guess)) > 1
        return {"correlation": statistics.correlation(truth, guess) if varied else math.nan}
