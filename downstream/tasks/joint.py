"""Several tasks at once, sharing one encoder: ``-d emotion+dimensional``, ``-d emotion+sex``.

Outputs, targets and columns of the parts stand beside each other, columns and metrics under the
part's name (``emotion.uar``). The loss is the sum of the parts' losses with ``loss.task_weights``;
an utterance that a part has no target of counts for the others alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emopeft.downstream.measures.columns import Column, Metric, Table
from emopeft.downstream.tasks.base import SUM, Task, task_classes
from emopeft.downstream.tasks.keys import Settings, checked_weights
from emopeft.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from emopeft.downstream.corpora.base import Utterance


class JointTask(Task):
    """Tasks that are learned together.

    Args:
        parts: in order. weights: of the parts' losses, by name; 1 where unset.
        main: the metric that ranks; None: the first part's.
    """

    def __init__(
        self,
        parts: Sequence[Task],
        weights: Mapping[str, float] | None = None,
        main: str | None = None,
    ):
        self.parts = {part.name: part for part in parts}
        self.name = SUM.join(self.parts)  # type: ignore[misc]
        self.weights = {name: (weights or {}).get(name, 1.0) for name in self.parts}
        self._main = main or _named(parts[0].name, parts[0].main)
        self.metric(self._main)

    @classmethod
    def together(cls, parts: Sequence[Task], settings: Settings | None = None) -> JointTask:
        """The tasks of a recipe; raises UserError for a weight or a metric of nothing there."""
        settings = settings or Settings()
        weights = settings.loss.task_weights
        checked_weights("loss.task_weights", weights, {part.name: part for part in parts})
        return cls(parts, weights, settings.labels.main)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> JointTask:
        parts, main = description.get("parts"), description.get("main")
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not 2 <= len(parts) <= 20:
            raise UserError("the key 'task.parts' must hold the descriptions of 2 to 20 tasks")
        if not isinstance(main, str):
            raise UserError("the key 'task.main' must name a metric")
        names = [one.get("name") if isinstance(one, Mapping) else None for one in parts]
        classes = task_classes(str(description["name"]))
        if names != [one.name for one in classes]:
            raise UserError("the key 'task.parts' must describe the tasks of 'task.name', in order")
        for one, own in zip(classes, parts, strict=True):
            if own.get("version") != one.version:
                raise UserError(
                    f"task {one.name} is version {one.version} here and "
                    f"{own.get('version')!r:.20} there; run again with this version"
                )
        made = [one.from_description(own) for one, own in zip(classes, parts, strict=True)]
        return cls(made, main=main)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "parts": [part.describe() for part in self.parts.values()],
            "main": self.main,
        }

    def learning(self) -> dict[str, Any]:
        parts = {name: part.learning() for name, part in self.parts.items()}
        return {"parts": parts, "task_weights": self.weights}

    # ---- targets ----------------------------------------------------------------------------

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(_named(n, t) for n, part in self.parts.items() for t in part.target_names)

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        targets = {name: part.target(utterance) for name, part in self.parts.items()}
        if all(targets[name] is None for name, part in self.parts.items() if not part.auxiliary):
            return None
        whole: list[float] = []
        for name, part in self.parts.items():
            whole += targets[name] or [math.nan] * len(part.target_names)
        return tuple(whole)

    @property
    def _classified(self) -> Task | None:
        """The first part with classes; one that only helps asks nothing of the folds."""
        return next((p for p in self.parts.values() if p.classes and not p.auxiliary), None)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classified.classes if self._classified else ()

    @property
    def every_class(self) -> bool:
        return self._classified.every_class if self._classified else True

    def class_of(self, utterance: Utterance) -> str | None:
        return self._classified.class_of(utterance) if self._classified else None

    def summary(self, targets: Sequence[Sequence[float]]) -> dict[str, Any]:
        return {
            column: value
            for _, part, _, own in self._places()
            for column, value in part.summary([row[own] for row in targets]).items()
        }

    # ---- learning ---------------------------------------------------------------------------

    def _places(self) -> Iterator[tuple[str, Task, slice, slice]]:
        """Each part with its name, its outputs and its targets."""
        output = target = 0
        for name, part in self.parts.items():
            outputs = slice(output, output + part.outputs)
            targets = slice(target, target + len(part.target_names))
            yield name, part, outputs, targets
            output, target = outputs.stop, targets.stop

    @property
    def additive(self) -> bool:
        return all(part.additive for part in self.parts.values())

    @property
    def outputs(self) -> int:
        return sum(part.outputs for part in self.parts.values())

    @property
    def output_groups(self) -> tuple[tuple[str, int], ...]:
        """Those of the parts."""
        return tuple(
            (_named(name, group), size)
            for name, part in self.parts.items()
            for group, size in part.output_groups
        )

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        import torch

        losses = [
            self.weights[name] * part.loss(outputs[..., out], targets[..., own], weights)
            for name, part, out, own in self._places()
        ]
        return torch.stack(losses).sum(0)

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        losses, gradients = [], []
        for name, part, out, own in self._places():
            loss, gradient = part.gradient(outputs[..., out], targets[..., own], weights)
            losses.append(self.weights[name] * loss)
            gradients.append(self.weights[name] * gradient)
        return torch.stack(losses).sum(0), torch.cat(gradients, -1)

    def apart(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """The sum of the parts', weighted as their losses are."""
        import torch

        each = [
            self.weights[name] * part.apart(outputs[..., out], teacher[..., out], temperature)
            for name, part, out, _ in self._places()
        ]
        return torch.stack(each).sum(0)

    def scores(self, outputs: Tensor) -> Tensor:
        """Those of the parts, which are independent; each part's information is weighted as its
        loss is."""
        import torch

        each = []
        for name, part, out, _ in self._places():
            own = part.scores(outputs[..., out]) * self.weights[name] ** 0.5
            sides = out.start, outputs.shape[-1] - out.stop
            each.append(torch.nn.functional.pad(own, sides))
        return torch.cat(each, -2)

    def balance(self, targets: Tensor, kind: str) -> Tensor:
        """Of the first part with classes: an utterance has one weight for all parts."""
        for _, part, _, own in self._places():
            if part is self._classified:
                return part.balance(targets[:, own], kind)
        return super().balance(targets, kind)

    # ---- what is written down ---------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(
            dataclasses.replace(
                column, name=_named(name, column.name), missing=column.role == "truth"
            )
            for name, part in self.parts.items()
            for column in part.columns
        )

    def table(self, outputs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        return {
            _named(name, column): cells
            for name, part, out, own in self._places()
            for column, cells in part.table(outputs[:, out], targets[:, own]).items()
        }

    def truths(self, target: Sequence[float]) -> dict[str, Any]:
        return {
            _named(name, column): value
            for name, part, _, own in self._places()
            for column, value in part.truths(target[own]).items()
        }

    def check(self, row: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.check({c.name: row[_named(name, c.name)] for c in part.columns})

    # ---- how good it is ---------------------------------------------------------------------

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(
            dataclasses.replace(
                metric,
                name=_named(name, metric.name),
                title=f"{name} {metric.title}" if part.auxiliary else metric.title,
                shown=metric.shown and (not part.auxiliary or metric.name == part.main),
            )
            for name, part in self.parts.items()
            for metric in part.metrics
        )

    @property
    def main(self) -> str:
        return self._main

    def measure(self, table: Table) -> dict[str, Any]:
        return {
            _named(name, measure): value
            for name, part in self.parts.items()
            for measure, value in part.measure(self._own(table, name)).items()
        }

    def remarks(self, measures: Sequence[Mapping[str, Any]]) -> list[str]:
        lines = []
        for name, part in self.parts.items():
            begin = _named(name, "")
            own = [{k.removeprefix(begin): v for k, v in m.items() if k.startswith(begin)}
                   for m in measures]  # fmt: skip
            lines += part.remarks(own)
        return lines

    def chance(self, table: Table) -> dict[str, float]:
        return {
            _named(name, metric): value
            for name, part in self.parts.items()
            if not part.auxiliary
            for metric, value in part.chance(self._own(table, name)).items()
        }

    def _own(self, table: Table, name: str) -> Table:
        return {c.name: table[_named(name, c.name)] for c in self.parts[name].columns}


def _named(part: str, what: str) -> str:
    return f"{part}.{what}"
