"""The task ``-d emotion``: classes, cross-entropy, UAR, accuracy and macro-F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emopeft.downstream.measures.classes import emotion_metrics
from emopeft.downstream.tasks.balancing import class_balance
from emopeft.downstream.tasks.base import Column, Metric, Table, Task, register
from emopeft.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from emopeft.downstream.corpora.base import Utterance
    from emopeft.downstream.protocols.protocol import Protocol

SUM_TOLERANCE = 1e-3  # how far the scores of an utterance may add up from 1
TIE_TOLERANCE = 1e-6  # how far the predicted class may lie below the highest score
SCORE = "score_"


@register
class EmotionTask(Task):
    """Classification of utterances into a protocol's classes; a target is a distribution over them.

    Args:
        classes: in the order of the outputs.
        labels: per corpus, its own label -> class; utterances of other labels take no part.
    """

    name = "emotion"
    version = 1
    additive = True

    def __init__(
        self, classes: Sequence[str], labels: Mapping[str, Mapping[str, str]] | None = None
    ):
        self.classes = tuple(classes)
        self.labels = {corpus: dict(names) for corpus, names in (labels or {}).items()}

    @classmethod
    def of(cls, protocol: Protocol, utterances: Sequence[Utterance]) -> EmotionTask:
        return cls(*protocol.labelling(utterances))

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> EmotionTask:
        classes = description.get("classes")
        good = isinstance(classes, Sequence) and not isinstance(classes, str)
        if not good or not all(isinstance(c, str) and c for c in classes or ()):
            raise UserError("the key 'task.classes' must be a list of names")
        if len(set(classes)) != len(classes) or not 2 <= len(classes) <= 1000:  # type: ignore[arg-type]
            raise UserError("the key 'task.classes' must hold 2 to 1000 different names")
        return cls(classes)  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "classes": list(self.classes)}

    # ---- targets ----------------------------------------------------------------------------

    @property
    def target_names(self) -> tuple[str, ...]:
        return self.classes

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        label = self.labels.get(utterance.corpus, {}).get(utterance.emotion or "")
        return None if label is None else tuple(float(label == c) for c in self.classes)

    def summary(self, targets: Sequence[Sequence[float]]) -> dict[str, Any]:
        counts = [sum(values) for values in zip(*targets, strict=True)]
        return dict(zip(self.classes, (f"{count:g}" for count in counts), strict=True))

    # ---- learning ---------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Cross-entropy with a distribution, weighted: the sum of w_i H(target_i, softmax_i)."""
        import torch

        log_p = torch.log_softmax(outputs, -1)
        return -((log_p * targets).sum(-1) * weights).sum()

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        log_p = torch.log_softmax(outputs, -1)
        losses = -((log_p * targets).sum(-1) * weights).sum(-1)
        return losses, (log_p.exp() - targets) * weights[..., None]

    def balance(self, targets: Tensor, kind: str) -> Tensor:
        """The weights of an utterance's class, see `class_balance`.

        A batch's weights are then made to add up to 1, as torch's ``CrossEntropyLoss(weight=...)``
        does it: its mean is over the weights, not over the utterances.
        """
        return class_balance(targets, kind)

    # ---- what is written down ---------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            Column("truth", "truth", self.classes),
            Column("prediction", "prediction", self.classes),
            *(Column(SCORE + c, "score", low=0.0, high=1.0) for c in self.classes),
        )

    def table(self, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        import torch

        names = self.classes
        scores = torch.softmax(outputs.double(), dim=-1)
        return {
            "truth": [names[i] for i in targets.argmax(-1).tolist()],
            "prediction": [names[i] for i in outputs.argmax(-1).tolist()],
            **{SCORE + c: scores[:, i].tolist() for i, c in enumerate(names)},
        }

    def check(self, row: Mapping[str, Any]) -> None:
        scores = {c: row[SCORE + c] for c in self.classes}
        if abs(sum(scores.values()) - 1) > SUM_TOLERANCE:
            raise ValueError(f"the scores add up to {sum(scores.values()):.6g}, not 1")
        if scores[row["prediction"]] < max(scores.values()) - TIE_TOLERANCE:
            raise ValueError(
                f"the prediction {row['prediction']!r} is not the class of the highest score"
            )

    # ---- how good it is ---------------------------------------------------------------------

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("accuracy", "WA %"),
            Metric("uar", "UAR %"),
            Metric("macro_f1", "F1 %"),
        )

    @property
    def main(self) -> str:
        return "uar"

    def measure(self, table: Table) -> dict[str, Any]:
        place = {name: i for i, name in enumerate(self.classes)}
        truth = [place[x] for x in table["truth"]]
        prediction = [place[x] for x in table["prediction"]]
        return emotion_metrics(truth, prediction, self.outputs)

    def chance(self, table: Table) -> dict[str, float]:
        """UAR of guessing: one over the classes that these truths hold."""
        return {"uar": 1 / len(set(table["truth"]))}
