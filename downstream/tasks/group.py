"""Tasks that help others: ``-d emotion+sex`` and, of any trait, ``-d emotion+group``.

Challenge entries learn the speaker's sex beside the emotion; it is given up at test time. Folds and
tests are the protocol's; utterances whose trait is not known count for the other task alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emopeft.downstream.tasks.base import Task, register
from emopeft.downstream.tasks.classes import ClassTask, checked_classes
from emopeft.downstream.tasks.keys import LabelKeys, LossKeys, Settings
from emopeft.errors import UserError, unknown

if TYPE_CHECKING:
    from typing import Any

    from emopeft.downstream.corpora.base import Utterance
    from emopeft.downstream.protocols.protocol import Protocol


class TraitTask(ClassTask):
    """The classes that a trait of speaker or recording has in the data, sorted."""

    auxiliary = True
    trait = "sex"

    def __init__(self, classes: Sequence[str], trait: str = "sex", loss: LossKeys | None = None):
        super().__init__(classes, loss)
        self.trait = trait

    @classmethod
    def of_trait(
        cls, trait: str, utterances: Sequence[Utterance], settings: Settings | None
    ) -> TraitTask:
        """The task of a trait; raises UserError where the data do not tell it, or all are alike."""
        values = {u.all_traits().get(trait, "") for u in utterances} - {""}
        if not values:
            known = {name for u in utterances for name in u.all_traits()}
            raise unknown("trait of the corpus", trait, known)
        if len(values) < 2:
            raise UserError(
                f"all utterances are of one {trait} ({min(values)}): there is nothing to tell "
                f"apart; leave task {cls.name} out"
            )
        return cls(sorted(values), trait, settings.loss if settings else None)

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        value = utterance.all_traits().get(self.trait)
        if value not in self.classes:
            return None
        return tuple(float(value == c) for c in self.classes)

    def class_of(self, utterance: Utterance) -> str | None:
        value = utterance.all_traits().get(self.trait)
        return value if value in self.classes else None


@register
class SexTask(TraitTask):
    """The speaker's sex, to be learned beside an emotion task."""

    name = "sex"

    @classmethod
    def of(
        cls, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
    ) -> Task:
        return cls.of_trait("sex", utterances, settings)


@register
class GroupTask(TraitTask):
    """A trait of speaker or recording (``labels.group``), to be learned beside an emotion task."""

    name = "group"

    @classmethod
    def of(
        cls, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
    ) -> Task:
        trait = (settings.labels if settings else LabelKeys()).group
        return cls.of_trait(trait, utterances, settings)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"group": self.trait}

    @classmethod
    def from_description(cls, description: Any) -> GroupTask:
        group = description.get("group")
        if not isinstance(group, str) or not 0 < len(group) <= 1000:
            raise UserError("the key 'task.group' must name a trait")
        return cls(checked_classes(description), group)
