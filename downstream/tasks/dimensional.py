"""The task ``-d dimensional``: ratings such as valence, arousal and dominance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emopeft.downstream.measures.columns import Column, Metric, Table
from emopeft.downstream.measures.dimensions import dimension_metrics, mean_of
from emopeft.downstream.tasks.base import Task, register
from emopeft.downstream.tasks.keys import LossKeys, Settings, checked_weights
from emopeft.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from emopeft.downstream.corpora.base import Utterance
    from emopeft.downstream.protocols.protocol import Protocol

Scales = Mapping[str, tuple[float, float]]

FIRST = ("valence", "arousal", "dominance")  # in the field's order, then all others by name
LOSSES = ("ccc", "rmse", "mse", "mae")
ADDITIVE = {"mse", "mae"}
TRUTH, PREDICTION = "truth_", "prediction_"


@register
class DimensionalTask(Task):
    """Regression of ratings: 1 - CCC or RMSE of the batch, CCC, Pearson, RMSE and MAE.

    Args:
        scales: per dimension, in order, its nominal (lowest, highest) rating: what the head's 0
            and 1 mean. Ratings beyond are taken as they are, and nothing is clipped.
        own: per corpus its scales, where they differ: its ratings are moved to ``scales`` linearly.
        loss: its keys ``dimensions`` and ``dimension_weights`` count.

    A target is the ratings, NaN where there is none.
    """

    name = "dimensional"

    def __init__(
        self,
        scales: Scales,
        own: Mapping[str, Scales] | None = None,
        loss: LossKeys | None = None,
    ):
        self.scales = dict(scales)
        self.own = own or {}
        loss = loss or LossKeys()
        self.losses = checked_losses(loss.dimensions)
        checked_weights("loss.dimension_weights", loss.dimension_weights, self.scales)
        self.weights = dict(loss.dimension_weights)

    # ---- making one -------------------------------------------------------------------------

    @classmethod
    def of(
        cls, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
    ) -> DimensionalTask:
        settings = settings or Settings()
        rated: dict[str, set[str]] = {}  # dimension -> corpora that have it
        for utterance in utterances:
            for name in utterance.ratings:
                rated.setdefault(name, set()).add(utterance.corpus)
        names = settings.labels.dimensions or [
            *(name for name in FIRST if name in rated),
            *sorted(rated.keys() - set(FIRST)),
        ]
        if not names:
            raise UserError(
                f"no utterance of {protocol.corpus} is rated; task dimensional needs ratings "
                "(a manifest: the columns valence, arousal, dominance or rating:NAME)"
            )
        if len(set(names)) < len(names):
            raise UserError("labels.dimensions names a rating twice; give each once")
        scales: dict[str, tuple[float, float]] = {}
        for name in names:
            if name not in rated:
                raise unknown(f"rating of {protocol.corpus}", name, rated)
            for corpus in (c for c in protocol.corpora if c in rated[name]):
                scale = settings.scales.get(corpus, {}).get(name)
                if scale is None:
                    raise UserError(
                        f"the nominal scale of '{name}' in {corpus} is not known, and cannot be "
                        f"seen from ratings; give its lowest and highest value, such as "
                        f"-o 'corpus.options={{scale: {{{name}: [1, 5]}}}}'"
                    )
                scales.setdefault(name, scale)
        return cls(scales, settings.scales, settings.loss)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> DimensionalTask:
        rows = description.get("dimensions")
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not 1 <= len(rows) <= 1000:
            raise UserError("the key 'task.dimensions' must be a list of ratings")
        scales: dict[str, tuple[float, float]] = {}
        for row in rows:
            name = row.get("name") if isinstance(row, Mapping) else None
            ends: list[Any] = [row.get(end) for end in ("low", "high")] if name else []
            numbers = all(type(x) in (int, float) and math.isfinite(x) for x in ends)
            if not isinstance(name, str) or not name or name in scales or not numbers:
                raise UserError(
                    "each of 'task.dimensions' must hold a name of its own, low and high"
                )
            low, high = (float(end) for end in ends)
            if not low < high:
                raise UserError(f"'task.dimensions': {name[:60]!r} must have low below high")
            scales[name] = low, high
        return cls(scales)

    def describe(self) -> dict[str, Any]:
        rows = [{"name": n, "low": low, "high": high} for n, (low, high) in self.scales.items()]
        return {"name": self.name, "version": self.version, "dimensions": rows}

    def learning(self) -> dict[str, Any]:
        weights = self.weights and {n: self.weights.get(n, 0.0) for n in self.scales}
        return {"dimensions": sorted(self.losses), "dimension_weights": weights}

    # ---- targets ----------------------------------------------------------------------------

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(self.scales)

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        ratings = tuple(self._rating(utterance, name) for name in self.scales)
        return None if all(map(math.isnan, ratings)) else ratings

    def _rating(self, utterance: Utterance, name: str) -> float:
        rating = utterance.ratings.get(name, math.nan)
        low, high = self.scales[name]
        from_low, from_high = self.own.get(utterance.corpus, {}).get(name, (low, high))
        if (from_low, from_high) == (low, high):
            return rating
        return low + (rating - from_low) * (high - low) / (from_high - from_low)

    # ---- learning ---------------------------------------------------------------------------

    @property
    def additive(self) -> bool:
        return set(self.losses) <= ADDITIVE

    @property
    def outputs(self) -> int:
        return len(self.scales)

    @property
    def output_groups(self) -> tuple[tuple[str, int], ...]:
        """A head may be one for all, or one for each."""
        return tuple((name, 1) for name in self.scales)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The mean over dimensions, or their weighted sum, of the losses, on scales from 0 to 1."""
        import torch

        from emopeft.downstream.tasks import rating_losses

        low, high = self._ends(targets)
        ratings = (targets - low) / (high - low)
        losses = [rating_losses.LOSSES[n](outputs, ratings, weights) for n in self.losses]
        each = torch.stack(losses).sum(0)
        if not self.weights:
            return each.mean(-1)
        return (each * each.new_tensor([self.weights.get(n, 0.0) for n in self.scales])).sum(-1)

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            each = targets.expand(len(leaf), -1, -1), weights.expand(len(leaf), -1)
            losses = self.loss(leaf, *each)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient

    def apart(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """The sum over ratings of the squared difference; ratings have no temperature."""
        return ((outputs - teacher) ** 2).sum(-1)

    def scores(self, outputs: Tensor) -> Tensor:
        """Of independent Gaussians around the outputs, with variance 1 on the scale from 0 to 1."""
        import torch

        unit = torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
        return unit.expand(*outputs.shape, -1)

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = zip(*self.scales.values(), strict=True)
        return like.new_tensor(low), like.new_tensor(high)

    # ---- what is written down ---------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            *(Column(TRUTH + name, "truth", missing=True) for name in self.scales),
            *(Column(PREDICTION + name, "prediction") for name in self.scales),
        )

    def table(self, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        low, high = self._ends(outputs.double())
        predicted = low + outputs.double() * (high - low)
        # The shortest number that single precision tells apart: 3.3333, not 3.3333332538604736.
        truths = [[float(str(x)) for x in column] for column in targets.float().numpy().T]
        return {
            **{TRUTH + name: values for name, values in zip(self.scales, truths, strict=True)},
            **{PREDICTION + n: predicted[:, i].tolist() for i, n in enumerate(self.scales)},
        }

    # ---- how good it is ---------------------------------------------------------------------

    @property
    def metrics(self) -> tuple[Metric, ...]:
        several = len(self.scales) > 1
        means = [
            Metric("ccc", "CCC", low=-1.0, percent=False),
            Metric("rmse", "RMSE", high=math.inf, better="lower", percent=False, shown=not several),
        ]
        parts = [
            ("ccc", "CCC {}", -1.0, 1.0, "higher", several),
            ("pearson", "r {}", -1.0, 1.0, "higher", False),
            ("rmse", "RMSE {}", 0.0, math.inf, "lower", several),
            ("mae", "MAE {}", 0.0, math.inf, "lower", False),
        ]
        return (
            *means,
            *(
                Metric(f"{part}_{name}", title.format(name), low, high, better, False, shown)
                for part, title, low, high, better, shown in parts
                for name in self.scales
            ),
        )

    def measure(self, table: Table) -> dict[str, Any]:
        """Means over dimensions, each dimension's own, and under ``dimensions`` what else there is.

        A mean of which a dimension has no value is NaN.
        """
        each = {
            name: dimension_metrics(table[TRUTH + name], table[PREDICTION + name])
            for name in self.scales
        }
        means = {
            part: statistics.fmean(measures[part] for measures in each.values())
            for part in ("ccc", "rmse")
        }
        own = {
            f"{part}_{name}": measures[part]
            for part in ("ccc", "pearson", "rmse", "mae")
            for name, measures in each.items()
        }
        rest = {
            name: {part: measures[part] for part in ("scale", "bias", "rated")}
            for name, measures in each.items()
        }
        return means | own | {"dimensions": rest}

    def remarks(self, measures: Sequence[Mapping[str, Any]]) -> list[str]:
        """CCC taken apart, the mean over folds: "predicts the mean" is a scale near 0."""
        lines = []
        for name in self.scales:
            pearson = mean_of(m[f"pearson_{name}"] for m in measures)
            scale, bias = (
                mean_of(m["dimensions"][name][part] for m in measures) for part in ("scale", "bias")
            )
            lines.append(
                f"CCC of {name}: r {pearson}, scale {scale} (1: as spread out as the ratings, "
                f"0: the mean), bias {bias} sd"
            )
        return lines

    def chance(self, table: Table) -> dict[str, float]:
        """Predicting the mean reaches a CCC of 0."""
        return {"ccc": 0.0}


def checked_losses(spec: str) -> tuple[str, ...]:
    """The losses of ``loss.dimensions``, such as ccc+mse; raises UserError."""
    names = spec.split("+")
    for name in names:
        if name not in LOSSES:
            raise unknown("loss in loss.dimensions", name, LOSSES)
    if len(set(names)) < len(names):
        raise UserError(f"loss.dimensions = {spec} names a loss twice; give each once")
    return tuple(names)
