"""How tables show a metric: one value, or its mean and deviation over folds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from emopeft.downstream.measures.columns import NONE, Metric


def value(metric: Metric, number: float | None) -> str:
    """A metric's value as tables show it."""
    return NONE if number is None or math.isnan(number) else metric.show(number)


def statistic(metric: Metric, summary: Mapping[str, Any]) -> str:
    """``61.20 ± 3.10`` over folds, with ``(seeds ± 0.40)`` where there are several."""
    text = value(metric, summary["mean"])
    if text != NONE and summary["std"] is not None:
        text += f" ± {value(metric, summary['std'])}"
    if text != NONE and summary["seed_std"] is not None:
        text += f" (seeds ± {value(metric, summary['seed_std'])})"
    return text
