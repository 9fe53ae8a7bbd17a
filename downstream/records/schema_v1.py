"""What stood in a result.json of schema 1, as pydantic models; see record_v1.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from emopeft.downstream.records.schema import ParameterFacts
from emopeft.downstream.records.values import (
    Count,
    Hex,
    Hours,
    Moment,
    Name,
    Object,
    Seconds,
    Seed,
    Text,
    no_truth_value,
)
from emopeft.validation import Strict

METRICS = ("accuracy", "uar", "macro_f1")
Score = Annotated[float, Field(ge=0, le=1)]


class Open(Strict):
    """Schema 1 allowed more keys; they are not read."""

    model_config = ConfigDict(extra="ignore")


class Metrics(Open):
    """The metrics of one fold."""

    accuracy: Score
    uar: Score
    macro_f1: Score
    confusion: list[list[Count]]


class Fold(Open):
    """One entry of ``folds``."""

    fold: Name
    seed: Seed
    metrics: Metrics
    lr: Annotated[float, Field(ge=0)]
    steps: Count
    best_step: Count | None
    seconds: dict[Name, Seconds]


class Mean(Open):
    """One entry of ``summary``."""

    mean: Score
    std: Score | None
    n: Annotated[int, Field(ge=1)]
    seed_std: Score | None = None


class Corpus(Open):
    """``corpus``."""

    name: Name
    title: Text
    licence: Text
    utterances: Count
    hours: Hours


class OldProtocol(Open):
    """``protocol``."""

    name: Name
    version: Count
    hash: Hex
    classes: Annotated[list[Name], Field(min_length=2, max_length=1000)]
    folds: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    speaker_overlap: list[Name]
    audit: Object


class Upstream(Open):
    """``upstream``."""

    name: Name
    loader: Name
    source: Text | None
    revision: Text | None
    weights: Hex | None
    licence: Text | None
    parameters: Count
    note: Text | None


class Part(Open):
    """One method of a sum."""

    name: Name
    options: Object
    parameters: Count


class Method(Open):
    """``method``."""

    spec: Name
    parts: list[Part]


class Phases(Open):
    """``cost.seconds``."""

    load: Seconds
    features: Seconds
    train: Seconds
    test: Seconds


class Cost(Open):
    """``cost``."""

    seconds: Phases
    audio_hours_per_second: Hours | None
    peak_memory_bytes: Count | None
    cache_bytes: Count | None


class Device(Open):
    """``device``."""

    name: Name
    precision: Name
    processes: Annotated[int, Field(ge=1)]


class RecordV1(Open):
    """result.json of schema 1."""

    schema_version: Annotated[Literal[1], BeforeValidator(no_truth_value)] = Field(alias="schema")
    status: Literal["finished", "incomplete"]
    name: Name
    identity: Hex
    task: Literal["emotion"]
    created: Moment
    command: Text
    corpus: Corpus
    protocol: OldProtocol
    upstream: Upstream
    method: Method
    head: Object
    training: Object
    folds: Annotated[list[Fold], Field(min_length=1, max_length=100_000)]
    summary: dict[Name, Mean]
    parameters: ParameterFacts
    cost: Cost
    device: Device
    packages: dict[Name, Name]

    @model_validator(mode="after")
    def _fits(self) -> RecordV1:
        classes, names = self.protocol.classes, self.protocol.folds
        if len(set(classes)) != len(classes) or len(set(names)) != len(names):
            raise ValueError("'protocol' names a class or a fold twice")
        pairs = set()
        for entry in self.folds:
            if entry.fold not in names:
                raise ValueError(f"fold {entry.fold[:60]!r} is not one of the protocol")
            if (entry.fold, entry.seed) in pairs:
                raise ValueError(f"'folds' repeats fold {entry.fold[:60]} of seed {entry.seed}")
            pairs.add((entry.fold, entry.seed))
        if set(self.summary) != set(METRICS):
            raise ValueError(f"'summary' must hold {', '.join(METRICS)}")
        numbers = self.parameters
        if numbers.method + numbers.head != numbers.trainable or numbers.trainable > numbers.total:
            raise ValueError("'parameters': method + head must be trainable, at most total")
        if self.status == "finished" and self.missing():
            raise ValueError("'status' is finished, but folds are missing")
        return self

    def missing(self) -> list[dict[str, Any]]:
        """Folds and seeds that are not there."""
        pairs = {(entry.fold, entry.seed) for entry in self.folds}
        return [
            {"fold": fold, "seed": seed}
            for seed in sorted({seed for _, seed in pairs})
            for fold in self.protocol.folds
            if (fold, seed) not in pairs
        ]
