"""A fold of a plan: its stages in order and its tests, down to the example.

A fold is an ordered list of stages (as a rule one, called "train"), each with a training and a dev
part, and a named set of tests (as a rule one, called "test"), of which the first is the main one.
Beside them there may be unscored tests, which are predicted and have no targets. An example is an
utterance in a view: as it was recorded ("clean"), or transformed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.data.rows import UNSCORED
from emopeft.downstream.views.base import CLEAN, Clip, Drawing, parse_view


@dataclasses.dataclass(frozen=True)
class Example:
    """An utterance in a view, with its weight in the loss of its stage."""

    utterance: Utterance
    view: str = CLEAN
    weight: float = 1.0

    @property
    def uid(self) -> str:
        """corpus/id."""
        return self.utterance.uid

    @property
    def key(self) -> str:
        """What an encoder's states are kept by: corpus/id, and @view where it is not clean."""
        return self.uid if self.view == CLEAN else f"{self.uid}@{self.view}"

    def drawing(self, audio: str) -> Drawing | None:
        """Its view of the clip whose decoded audio has this digest; None where it is clean."""
        if self.view == CLEAN:
            return None
        return Drawing(parse_view(self.view), Clip(audio, self.utterance.speaker_uid))


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training within a fold; the next one goes on with what it gives.

    Attributes:
        method: trained in this stage; None: the run's.
        freeze: parts that do not train in this stage.
        keys: of the recipe's section ``train``, replaced in this stage.
    """

    name: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    method: str | None = None
    freeze: tuple[str, ...] = ()
    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def corpora(self) -> list[str]:
        """Whose each example of the training part is."""
        return [e.utterance.corpus for e in self.train]

    def head(self) -> dict[str, Any]:
        """All of a stage but its examples, as JSON."""
        return {
            "name": self.name,
            "method": self.method,
            "freeze": list(self.freeze),
            "keys": dict(self.keys),
        }


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fold: its stages in order, its tests by name, in order, and its unscored tests."""

    name: str
    stages: tuple[Stage, ...]
    tests: Mapping[str, tuple[Example, ...]]
    unscored: Mapping[str, tuple[Example, ...]] = dataclasses.field(default_factory=dict)

    def parts(self) -> Iterator[tuple[str, str, tuple[Example, ...]]]:
        """(part, set, examples): train and dev of each stage in order, then each test, scored
        ones first."""
        for stage in self.stages:
            yield "train", stage.name, stage.train
            yield "dev", stage.name, stage.dev
        for name, examples in self.tests.items():
            yield "test", name, examples
        for name, examples in self.unscored.items():
            yield UNSCORED, name, examples

    def heads(self) -> list[dict[str, Any]]:
        """`Stage.head` of each stage, in order."""
        return [stage.head() for stage in self.stages]

    def examples(self) -> list[Example]:
        """All distinct examples (by key), in the order of `parts`."""
        return list({e.key: e for _, _, part in self.parts() for e in part}.values())
