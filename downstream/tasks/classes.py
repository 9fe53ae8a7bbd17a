"""Base of the tasks whose target is one of several classes: cross-entropy, UAR, accuracy, F1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emopeft.downstream.measures.classes import emotion_metrics
from emopeft.downstream.measures.columns import Column, Metric, Table
from emopeft.downstream.tasks.balancing import class_balance
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.keys import LossKeys
from emopeft.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SUM_TOLERANCE = 1e-3  # how far the scores of an utterance may add up from 1
TIE_TOLERANCE = 1e-6  # how far the predicted class may lie below the highest score
SCORE = "score_"
TINY = 1e-8  # of 1 - p: below 1, gamma has no finite gradient at 0


def checked_classes(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of a task's description, as untrusted data; raises UserError naming the key."""
    classes = description.get("classes")
    good = isinstance(classes, Sequence) and not isinstance(classes, str)
    if not good or not all(isinstance(c, str) and c for c in classes or ()):
        raise UserError("the key 'task.classes' must be a list of names")
    if len(set(classes)) != len(classes) or not 2 <= len(classes) <= 1000:  # type: ignore[arg-type]
        raise UserError("the key 'task.classes' must hold 2 to 1000 different names")
    return tuple(classes)  # type: ignore[arg-type]


class ClassTask(Task):
    """Classification; the target's first numbers are a distribution over the classes.

    Args:
        classes: in the order of the outputs.
        loss: its key ``classes`` and, of a focal one, ``gamma`` count.
    """

    focal: float | None = None  # gamma; None: cross-entropy

    def __init__(self, classes: Sequence[str], loss: LossKeys | None = None):
        self._classes = tuple(classes)
        if loss is not None and loss.classes == "focal":
            self.focal = loss.gamma

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> ClassTask:
        return cls(checked_classes(description))

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "classes": list(self.classes)}

    def learning(self) -> dict[str, Any]:
        return {"classes": "cross_entropy" if self.focal is None else {"focal": self.focal}}

    # ---- targets ----------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @property
    def target_names(self) -> tuple[str, ...]:
        return self.classes

    def summary(self, targets: Sequence[Sequence[float]]) -> dict[str, Any]:
        columns = zip(self.classes, zip(*targets, strict=True), strict=False)
        counts = ((c, sum(x for x in values if not math.isnan(x))) for c, values in columns)
        return {c: f"{count:g}" for c, count in counts}

    # ---- learning ---------------------------------------------------------------------------

    @property
    def additive(self) -> bool:
        return True

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def distributions(self, targets: Tensor) -> Tensor:
        """What is learned (..., outputs): distributions, rows of 0 where there is no target."""
        import torch

        return torch.nan_to_num(targets)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The sum of w_i H(target_i, softmax_i): cross-entropy with a distribution.

        Focal (Lin et al. 2017, arXiv 1708.02002): each class' term times (1 - softmax)^gamma.
        """
        import torch

        log_p = torch.log_softmax(outputs, -1)
        if self.focal is not None:
            log_p = log_p * (1 - log_p.exp()).clamp_min(TINY) ** self.focal
        return -((log_p * self.distributions(targets)).sum(-1) * weights).sum(-1)

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        if self.focal is not None:
            with torch.enable_grad():
                leaf = outputs.detach().requires_grad_()
                losses = self.loss(leaf, targets, weights)
                (gradient,) = torch.autograd.grad(losses.sum(), leaf)
            return losses.detach(), gradient
        learned = self.distributions(targets)
        log_p = torch.log_softmax(outputs, -1)
        losses = -((log_p * learned).sum(-1) * weights).sum(-1)
        whole = learned.sum(-1, keepdim=True)
        return losses, (log_p.exp() * whole - learned) * weights[..., None]

    def apart(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """T^2 KL(softmax(teacher / T) || softmax(outputs / T)) (Hinton et al. 2015,
        arXiv 1503.02531: with T^2 the gradient's size hardly depends on T)."""
        import torch

        log_p = torch.log_softmax(teacher / temperature, -1)
        log_q = torch.log_softmax(outputs / temperature, -1)
        return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)

    def scores(self, outputs: Tensor) -> Tensor:
        """One per class c, which the outputs hold for p_c likely: sqrt(p_c) (e_c - p)."""
        import torch

        p = torch.softmax(outputs, -1)
        unit = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        return p.sqrt()[..., None] * (unit - p[..., None, :])

    def balance(self, targets: Tensor, kind: str) -> Tensor:
        """The weights of an utterance's class, see `class_balance`.

        A batch's weights are then made to add up to 1, as torch's ``CrossEntropyLoss(weight=...)``
        does it: its mean is over the weights, not over the utterances.
        """
        return class_balance(self.distributions(targets), kind)

    # ---- what is written down ---------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            Column("truth", "truth", self.classes),
            Column("prediction", "prediction", self.classes),
            *(Column(SCORE + c, "score", low=0.0, high=1.0) for c in self.classes),
        )

    def truth(self, targets: Tensor) -> list[str]:
        """The class of each target (utterances, targets); "" where it has none."""
        labelled = (~targets.isnan().any(-1)).tolist()
        places = self.distributions(targets).argmax(-1).tolist()
        return [self.classes[i] if known else "" for i, known in zip(places, labelled, strict=True)]

    def table(self, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        import torch

        scores = torch.softmax(outputs.double(), dim=-1)
        return {
            "truth": self.truth(targets),
            "prediction": [self.classes[i] for i in outputs.argmax(-1).tolist()],
            **{SCORE + c: scores[:, i].tolist() for i, c in enumerate(self.classes)},
        }

    def truths(self, target: Sequence[float]) -> dict[str, Any]:
        shares = target[: len(self.classes)]
        if any(map(math.isnan, shares)):
            return {"truth": ""}
        return {"truth": self.classes[max(range(len(shares)), key=shares.__getitem__)]}

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
        """Of the utterances whose class is known; NaN where it is of none."""
        place = {name: i for i, name in enumerate(self.classes)}
        known = [i for i, name in enumerate(table["truth"]) if name]
        if not known:
            empty = [[0] * self.outputs for _ in self.classes]
            return dict.fromkeys(("accuracy", "uar", "macro_f1"), math.nan) | {"confusion": empty}
        truth = [place[table["truth"][i]] for i in known]
        prediction = [place[table["prediction"][i]] for i in known]
        return emotion_metrics(truth, prediction, self.outputs)

    def chance(self, table: Table) -> dict[str, float]:
        """UAR of guessing: one over the classes that these truths hold."""
        present = {name for name in table["truth"] if name}
        return {"uar": 1 / len(present)} if present else {}
