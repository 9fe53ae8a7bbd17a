"""Tasks on raters' votes: ``-d emotion-soft`` (their distribution) and ``-d emotion-multi``.

Both learn the distribution of an utterance's votes over the protocol's classes by a softmax; votes
for other labels are left out. They differ in what is predicted: the consensus, or a set of labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emopeft.downstream.measures.columns import Column, Metric, Table
from emopeft.downstream.measures.votes import (
    consensus,
    distribution,
    multilabel_metrics,
    raters_ceiling,
    vote_metrics,
)
from emopeft.downstream.tasks.base import register
from emopeft.downstream.tasks.classes import SCORE, ClassTask, checked_classes
from emopeft.downstream.tasks.keys import LossKeys, Settings
from emopeft.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from emopeft.downstream.corpora.base import Utterance
    from emopeft.downstream.protocols.protocol import Protocol

VOTES = "votes_"


class VotesTask(ClassTask):
    """Base of both: a target is the votes per class, as counts or as shares.

    Args:
        classes: in the order of the outputs.
        labels: per corpus, its own label -> class.
        loss: its key ``votes`` counts.
        keep: whether utterances without a consensus take part.
    """

    def __init__(
        self,
        classes: Sequence[str],
        labels: Mapping[str, Mapping[str, str]] | None = None,
        loss: LossKeys | None = None,
        keep: bool = True,
    ):
        super().__init__(classes)
        self.labels = {corpus: dict(names) for corpus, names in (labels or {}).items()}
        self.kl = (loss or LossKeys()).votes == "kl"
        self.keep = keep

    @classmethod
    def of(
        cls, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
    ) -> VotesTask:
        settings = settings or Settings()
        classes, labels = protocol.labelling(utterances, votes=True)
        if not any(utterance.votes for utterance in utterances):
            raise UserError(
                f"{protocol.corpus} has no raters' votes here, which task {cls.name} needs: "
                "IEMOCAP has them, CREMA-D with -o 'corpus.options={votes: DIR}' of its published "
                "table, a manifest in columns such as label:angry"
            )
        keep = settings.labels.no_consensus == "keep"
        return cls(classes, labels, settings.loss, keep)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"no_consensus": "keep" if self.keep else "drop"}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> VotesTask:
        kept = description.get("no_consensus")
        if kept not in ("keep", "drop"):
            raise UserError("the key 'task.no_consensus' must be keep or drop")
        return cls(checked_classes(description), keep=kept == "keep")

    def learning(self) -> dict[str, Any]:
        return {"votes": "kl" if self.kl else "cross_entropy"}

    # ---- targets ----------------------------------------------------------------------------

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        names = self.labels.get(utterance.corpus, {})
        votes = dict.fromkeys(self.classes, 0.0)
        for label, count in utterance.votes.items():
            if label in names:
                votes[names[label]] += count
        counts = tuple(votes.values())
        if sum(counts) <= 0 or (not self.keep and consensus(counts) is None):
            return None
        return counts

    @property
    def every_class(self) -> bool:
        """A class that is nobody's consensus is still learned from its votes."""
        return False

    def class_of(self, utterance: Utterance) -> str | None:
        counts = self.target(utterance)
        place = None if counts is None else consensus(counts)
        return None if place is None else self.classes[place]

    # ---- learning ---------------------------------------------------------------------------

    def distributions(self, targets: Tensor) -> Tensor:
        votes = targets.nan_to_num()
        return votes / votes.sum(-1, keepdim=True).clamp_min(1e-12)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The sum of w_i KL(votes_i || softmax_i), or of the cross-entropies."""
        return super().loss(outputs, targets, weights) - self._entropy(targets, weights)

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = super().gradient(outputs, targets, weights)
        return losses - self._entropy(targets, weights), gradient

    def _entropy(self, targets: Tensor, weights: Tensor) -> Tensor | float:
        import torch

        if not self.kl:
            return 0.0
        p = self.distributions(targets)
        return -(torch.xlogy(p, p).sum(-1) * weights).sum(-1)

    # ---- what is written down ---------------------------------------------------------------

    @property
    def _vote_columns(self) -> tuple[Column, ...]:
        return tuple(Column(VOTES + c, "truth", low=0.0, missing=True) for c in self.classes)

    def _votes(self, table: Table) -> tuple[list[int], list[list[float]]]:
        """Which utterances have votes, and theirs."""
        rows = [list(row) for row in zip(*(table[VOTES + c] for c in self.classes), strict=True)]
        known = [i for i, row in enumerate(rows) if not any(map(math.isnan, row)) and sum(row) > 0]
        return known, [rows[i] for i in known]

    def _scores(self, table: Table, known: Sequence[int]) -> list[list[float]]:
        return [[table[SCORE + c][i] for c in self.classes] for i in known]

    def _vote_cells(self, targets: Tensor) -> dict[str, list[float]]:
        columns = targets.float().numpy().T
        return {
            VOTES + c: [float(str(x)) for x in values]
            for c, values in zip(self.classes, columns, strict=True)
        }


@register
class SoftTask(VotesTask):
    """The distribution of raters' votes over emotion classes: KL divergence, UAR against consensus.

    The consensus is the class with more votes than any other. Utterances without one take part
    where ``labels.no_consensus=keep``: they train, and count in JS, NLL and share of raters.
    """

    name = "emotion-soft"

    @property
    def columns(self) -> tuple[Column, ...]:
        truth, *rest = super().columns
        consensus_or_none = Column(truth.name, "truth", truth.classes, missing=True)
        return (consensus_or_none, *self._vote_columns, *rest)

    def truth(self, targets: Tensor) -> list[str]:
        rows = targets.tolist()
        return [str(self.truths(row)["truth"]) for row in rows]

    def table(self, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        cells = super().table(outputs, targets)
        return {"truth": cells.pop("truth"), **self._vote_cells(targets), **cells}

    def truths(self, target: Sequence[float]) -> dict[str, Any]:
        votes = {VOTES + c: x for c, x in zip(self.classes, target, strict=True)}
        place = None if any(map(math.isnan, target)) else consensus(target)
        return {"truth": "" if place is None else self.classes[place], **votes}

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            *super().metrics,
            Metric("js", "JS", better="lower", percent=False),
            Metric("nll", "NLL", high=math.inf, better="lower", percent=False),
            Metric("agreed", "raters %"),
        )

    def measure(self, table: Table) -> dict[str, Any]:
        """Classes against the consensus, distributions against the votes, and the raters' own."""
        known, votes = self._votes(table)
        places = {name: i for i, name in enumerate(self.classes)}
        predicted = [places[table["prediction"][i]] for i in known]
        measures = super().measure(table)
        if not known:
            return measures | dict.fromkeys(("js", "nll", "agreed"), math.nan) | {"raters": None}
        measures |= vote_metrics(votes, self._scores(table, known), predicted)
        return measures | {"raters": raters_ceiling(votes)}

    def remarks(self, measures: Sequence[Mapping[str, Any]]) -> list[str]:
        """The raters' ceiling, the mean over folds; nothing where one has none."""
        panels = [m["raters"] for m in measures]
        if not panels or not all(panels):
            return []
        mean = {k: 100 * math.fsum(p[k] for p in panels) / len(panels) for k in panels[0]}
        return [
            f"the raters themselves: two agree {mean['agreed']:.2f} %, one against the consensus "
            f"of the others {mean['right']:.2f} % (UAR {mean['uar']:.2f} %); one class can agree "
            f"with {mean['best']:.2f} % of them at most"
        ]


@register
class MultiTask(VotesTask):
    """Several emotion labels at once: those with more than 1/K of the votes, or of the softmax.

    As EMO-SUPERB (Wu et al. 2024, arXiv 2402.13018) has it: threshold 1/K for K classes, macro-F1.
    """

    name = "emotion-multi"

    @classmethod
    def of(
        cls, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
    ) -> VotesTask:
        task = super().of(protocol, utterances, settings)
        task.keep = True  # a set of labels needs no consensus
        return task

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            *self._vote_columns,
            *(Column(f"prediction_{c}", "prediction", low=0.0, high=1.0) for c in self.classes),
            *(Column(SCORE + c, "score", low=0.0, high=1.0) for c in self.classes),
        )

    def _chosen(self, shares: Sequence[float]) -> list[int]:
        return [int(share > 1 / len(self.classes)) for share in shares]

    def table(self, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        import torch

        scores = torch.softmax(outputs.double(), dim=-1).tolist()
        chosen = [self._chosen(row) for row in scores]
        return {
            **self._vote_cells(targets),
            **{f"prediction_{c}": [r[i] for r in chosen] for i, c in enumerate(self.classes)},
            **{SCORE + c: [row[i] for row in scores] for i, c in enumerate(self.classes)},
        }

    def truths(self, target: Sequence[float]) -> dict[str, Any]:
        return {VOTES + c: x for c, x in zip(self.classes, target, strict=True)}

    def check(self, row: Mapping[str, Any]) -> None:
        scores = [row[SCORE + c] for c in self.classes]
        if abs(sum(scores) - 1) > 1e-3:
            raise ValueError(f"the scores add up to {sum(scores):.6g}, not 1")
        if [row[f"prediction_{c}"] for c in self.classes] != self._chosen(scores):
            raise ValueError("the predictions are not the classes with scores above 1/K")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("macro_f1", "F1 %"),
            Metric("micro_f1", "micro F1 %"),
            Metric("exact", "exact %"),
        )

    @property
    def main(self) -> str:
        return "macro_f1"

    def measure(self, table: Table) -> dict[str, Any]:
        known, votes = self._votes(table)
        if not known:
            return dict.fromkeys((m.name for m in self.metrics), math.nan)
        truth = [self._chosen(distribution(row)) for row in votes]
        chosen = [[table[f"prediction_{c}"][i] for c in self.classes] for i in known]
        return dict(multilabel_metrics(truth, chosen))

    def chance(self, table: Table) -> dict[str, float]:
        return {}
