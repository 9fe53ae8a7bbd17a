"""The task ``-d emotion``: a protocol's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from emopeft.downstream.tasks.base import register
from emopeft.downstream.tasks.classes import ClassTask
from emopeft.downstream.tasks.keys import LossKeys, Settings
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.corpora.base import Utterance
    from emopeft.downstream.protocols.protocol import Protocol


@register
class EmotionTask(ClassTask):
    """Emotion classes of a protocol: cross-entropy, UAR, accuracy and macro-F1.

    Args:
        classes: in the order of the outputs.
        labels: per corpus, its own label -> class; utterances of other labels take no part.
    """

    name = "emotion"

    def __init__(
        self,
        classes: Sequence[str],
        labels: Mapping[str, Mapping[str, str]] | None = None,
        loss: LossKeys | None = None,
    ):
        super().__init__(classes, loss)
        self.labels = {corpus: dict(names) for corpus, names in (labels or {}).items()}

    @classmethod
    def of(
        cls, protocol: Protocol, utterances: Sequence[Utterance], settings: Settings | None = None
    ) -> EmotionTask:
        classes, labels = protocol.labelling(utterances)
        if utterances and not any(utterance.emotion for utterance in utterances):
            raise UserError(
                f"no utterance of {protocol.corpus} has a label, which task {cls.name} needs; "
                "ratings are for -d dimensional, raters' votes for -d emotion-soft"
            )
        return cls(classes, labels, settings.loss if settings else None)

    def target(self, utterance: Utterance) -> tuple[float, ...] | None:
        label = self.class_of(utterance)
        return None if label is None else tuple(float(label == c) for c in self.classes)

    def class_of(self, utterance: Utterance) -> str | None:
        return self.labels.get(utterance.corpus, {}).get(utterance.emotion or "")
