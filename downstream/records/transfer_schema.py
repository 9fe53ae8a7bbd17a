"""What fold.json and result.json say of two stages: how they were used, and what they came to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from emopeft.downstream.data.transfer import FOLLOWING, SOURCE, TARGET
from emopeft.downstream.records.values import Count, Hash, Name, Names, Object, Seed
from emopeft.validation import Strict

Number = Annotated[float, Field(ge=0, le=1e12)]
Difference = Annotated[float, Field(ge=-1e300, le=1e300)]
Measures = Annotated[dict[Name, Object], Field(max_length=100)]  # per test
Differences = Annotated[dict[Name, Difference | None], Field(max_length=100)]  # per metric


class OriginFacts(Strict):
    """The checkpoint that took the place of the source's stage (transfer.init_from).

    Attributes:
        run, fold, seed: whose it is. id: digest of that run's identity. plan: the hash of its
            protocol's plan. checkpoint: SHA-256 of its tensors.
        head: "kept", or "replaced" (its last layer), because it was trained for other outputs.
    """

    run: Name
    id: Hash
    protocol: Name
    plan: Hash
    fold: Name
    seed: Seed
    checkpoint: Hash
    head: Literal["kept", "replaced"]


class TransferFacts(Strict):
    """How the stages ``source`` and ``target`` were used: the recipe's section ``transfer``.

    Attributes:
        source, target: keys of section ``train`` in which the stage differed from the run.
        origin: what took the place of the source's stage; null where nothing did.
        shared: whether the source's stage was read as an earlier fold or run had trained it; its
            result then tells what it took there.
        moments: per moment and test `Task.measure`: "before" (the start) and, where the source's
            stage was not the last, "between". The end is in ``metrics``.
    """

    strategy: Literal["sequential", "average", "source", "target", "joint", "addition"]
    freeze: Names
    penalty: Literal["none", "l2sp", "ewc", "lwf"]
    strength: Number | None
    temperature: Number
    rehearsal: Count
    share: Annotated[float, Field(ge=0, le=1)]
    source: Object
    target: Object
    origin: OriginFacts | None
    shared: bool
    moments: dict[Literal["before", "between"], Measures]

    @property
    def trained(self) -> tuple[str, ...]:
        """The stages of a transfer plan that were trained."""
        both = (TARGET,) if self.origin is not None else (SOURCE, TARGET)
        alone = {"source": (SOURCE,), "target": (TARGET,), "joint": (TARGET,)}
        return alone.get(self.strategy, both)

    @property
    def measured(self) -> tuple[str, ...]:
        """The moments at which the tests of a transfer plan were taken, beside the end."""
        stages = (*FOLLOWING, "addition")
        return ("before", "between") if self.strategy in stages else ("before",)


class TransferEntry(TransferFacts):
    """The same of a fold in result.json.

    Attributes:
        gain: per metric how much better the target's test is after the target's stage than between
            the two; null where nothing was measured between. Of strategy ``source`` it is 0.
        forgetting: per metric how much worse the source's test is.
    """

    gain: Differences
    forgetting: Differences
