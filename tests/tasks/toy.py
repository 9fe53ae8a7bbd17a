"""A second task for tests: one rating, a loss that is no sum over utterances, nothing else."""

from __future__ import annotations

import math
import statistics

from emopeft.downstream.measures.columns import Column, Metric
from emopeft.downstream.tasks.base import Task


class Together(Task):
    """Its loss is 1 - CCC of the first output and the first target."""

    name = "together"
    target_names = ("valence",)  # type: ignore[assignment]
    outputs = 1  # type: ignore[assignment]
    columns = (Column("truth", "truth"), Column("prediction", "prediction"))  # type: ignore[assignment]
    metrics = (Metric("ccc", "CCC", low=-1.0, percent=False),)  # type: ignore[assignment]

    def target(self, utterance):
        return (utterance.ratings["valence"],) if "valence" in utterance.ratings else None

    def loss(self, outputs, targets, weights):
        def mean(x):
            return (weights * x).sum()

        x, y = outputs[:, 0], targets[:, 0]
        a, b = x - mean(x), y - mean(y)
        return 1 - 2 * mean(a * b) / (mean(a * a) + mean(b * b) + (mean(x) - mean(y)) ** 2)

    def table(self, outputs, targets):
        return {"truth": targets[:, 0].tolist(), "prediction": outputs[:, 0].tolist()}

    def measure(self, table):
        x, y = table["prediction"], table["truth"]
        if len(x) < 2 or len(set(y)) < 2:
            return {"ccc": math.nan}
        spread = statistics.pvariance(x) + statistics.pvariance(y)
        covariance = statistics.covariance(x, y) * (len(x) - 1) / len(x)
        return {"ccc": 2 * covariance / (spread + (statistics.fmean(x) - statistics.fmean(y)) ** 2)}
