"""What a recipe says about targets (section ``labels``) and about the loss (section ``loss``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from emopeft.errors import unknown
from emopeft.values import Range, key

WEIGHT = Range(0, 1e6)


@dataclasses.dataclass
class LabelKeys:
    """Decide targets, so they are in the plan's hash where the task heeds them."""

    dimensions: list[str] = key(
        [], "task dimensional: the ratings, in order; unset: all that the corpus has"
    )
    no_consensus: str = key(
        "drop",
        "task emotion-soft: what becomes of utterances whose raters have no consensus; kept ones "
        "train and count in the measures of distributions",
        ("drop", "keep"),
    )
    group: str = key(
        "sex", "task group: the trait that is predicted (session, style, a corpus' own)"
    )
    main: str | None = key(
        None,
        "several tasks: the metric that ranks, such as dimensional.ccc; unset: the first task's",
    )


@dataclasses.dataclass
class LossKeys:
    """Decide the loss; each task heeds its own, and only those are in the run's identity."""

    classes: str = key(
        "cross_entropy", "of classes; focal: Lin et al. 2017", ("cross_entropy", "focal")
    )
    gamma: float = key(2.0, "of the focal loss: 0 is cross-entropy", range=Range(0, 100))
    votes: str = key(
        "kl",
        "of raters' distributions; both have the same gradient, kl is 0 for a perfect prediction",
        ("kl", "cross_entropy"),
    )
    dimensions: str = key(
        "ccc", "of ratings: ccc (1 - CCC), rmse, mse, mae, or a sum such as ccc+mse"
    )
    dimension_weights: dict[str, float] = key(
        {}, "per rating, its weight in the sum; unset: the mean over ratings"
    )
    task_weights: dict[str, float] = key({}, "several tasks: per task, its weight; unset: 1")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a task is made of beside protocol and utterances.

    Attributes:
        scales: per corpus and rating, its nominal (lowest, highest).
    """

    labels: LabelKeys = dataclasses.field(default_factory=LabelKeys)
    loss: LossKeys = dataclasses.field(default_factory=LossKeys)
    scales: Mapping[str, Mapping[str, tuple[float, float]]] = dataclasses.field(
        default_factory=dict
    )


def checked_weights(dotted: str, weights: Mapping[str, float], known: Mapping[str, Any]) -> None:
    """Raises UserError where a weight is of nothing known, or is no weight."""
    for name, weight in weights.items():
        if name not in known:
            raise unknown(f"name in {dotted}", name, known)
        WEIGHT.check(f"{dotted}.{name}", weight)
