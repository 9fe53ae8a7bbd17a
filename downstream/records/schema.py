"""What stands in a fold's fold.json and a run's result.json, as pydantic models.

Whoever writes or reads one of the two goes through these models: strict types, finite numbers,
bounded sizes, no keys beyond them. Their JSON Schema is in docs/schema. Imports no torch.

JSON has no NaN: a metric that is none (a CCC of a constant, for instance) stands as null, ranks
last, and makes each mean that it belongs to null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from emopeft.downstream.data.transfer import is_transfer
from emopeft.downstream.records.plan_schema import CorpusFacts, PlanFacts, ProbeFacts, StageFacts
from emopeft.downstream.records.transfer_schema import TransferFacts
from emopeft.downstream.records.values import (
    LARGEST,
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
    without,
)
from emopeft.validation import Strict


class UpstreamFacts(Strict):
    """The encoder.

    Attributes:
        name: as asked for. source: where its weights are from, "hf:ORG/NAME" or "local:FOLDER"
            with the folder's last name only, null where there is none.
        local: the weights were given as a path, and so may be other ones than the name says.
        revision: of the hub. weights: hash, null for an upstream without any (fbank).
        options: everything that changes its states. code: revision of the family's own code.
        note: what a reader of tables must know ("random weights").
    """

    name: Name
    source: Text | None
    local: bool
    loader: Name
    revision: Text | None
    licence: Text | None
    weights: Hex | None
    options: Object
    code: Text
    parameters: Count
    note: Text | None


class MethodPart(Strict):
    """One method of a sum, with all its options and how many parameters it trains."""

    name: Name
    options: Object
    parameters: Count


class MethodFacts(Strict):
    """``spec``: the canonical spelling; ``asked``: as the user wrote it ("lora@peft-ser")."""

    spec: Name
    asked: Name
    parts: Annotated[list[MethodPart], Field(max_length=100)]


class ParameterFacts(Strict):
    """How many train, of which in the method and in the head; share = trainable / total."""

    trainable: Count
    method: Count
    head: Count
    total: Annotated[int, Field(ge=1, le=LARGEST)]
    share: Annotated[float, Field(ge=0, le=1)]


class NumericsFacts(Strict):
    """How it was computed: ``precision`` of what trains, ``frozen`` of the frozen part."""

    precision: Name
    frozen: Name
    tf32: bool
    deterministic: bool
    threads: Count


class RecipeFacts(Strict):
    """The recipe's name (null: none was given) and its file's name, without the folders."""

    name: Name | None
    file: Name | None


class DeviceFacts(Strict):
    """``type``: cpu, cuda or mps; ``name``: of the processor; ``count``: of processes."""

    type: Name
    name: Name
    count: Annotated[int, Field(ge=1, le=1_000_000)]


class CodeFacts(Strict):
    """The code: its version, and in a checkout the commit and whether files were changed."""

    version: Name
    commit: Hex | None
    dirty: bool | None


class PhaseSeconds(Strict):
    """Wall time: ``load`` corpus and encoder, ``features`` the frozen part, ``tune`` the search."""

    load: Seconds
    features: Seconds
    tune: Seconds
    train: Seconds
    test: Seconds


class Peak(Strict):
    """Peak memory in bytes; null where it was not measured."""

    host: Count | None
    device: Count | None


class Utterances(Strict):
    """How many examples each side of the fold holds; train and dev over all stages."""

    train: Count
    dev: Count
    tests: Annotated[dict[Name, Count], Field(max_length=100)]


class ClipFacts(Strict):
    """How longer clips were taken (the recipe's section ``clips``), where not whole.

    Attributes:
        seconds: of a crop or segment; a longer clip was cut. starts: where training crops began.
        cut: how many examples of each side of the fold were longer.
    """

    mode: Literal["crop", "segments"]
    seconds: Annotated[float, Field(ge=0.1, le=86_400)]
    starts: Annotated[int, Field(ge=1, le=1000)]
    cut: Utterances


class TransformFacts(Strict):
    """A transformation of a view: its options as they are written, its code's revision, and the
    digest of the recordings that it draws from ("" for none)."""

    name: Name
    options: Annotated[dict[Name, Name], Field(max_length=100)]
    revision: Count
    outside: Annotated[str, Field(max_length=64)]


class AugmentFacts(Strict):
    """The views of training clips (the recipe's section ``augment``).

    Attributes:
        apply: the views of which a clip got one, each a list of transformations.
        views: how many were kept of each clip, or "live".
    """

    apply: Annotated[
        list[Annotated[list[TransformFacts], Field(min_length=1, max_length=100)]],
        Field(min_length=1, max_length=100),
    ]
    views: Name


Unscored = Annotated[dict[Name, Count], Field(min_length=1, max_length=100)]
OPTIONAL = (
    "probe",
    "clips",
    "augment",
    "unscored",
    "transfer",
)  # not there in a fold that has no such thing


class FoldFacts(Strict):
    """fold.json: every fact about one trained fold and seed; see docs/records.md for the file.

    Attributes:
        status, reason: "failed" has the reason as a sentence, no metrics and no predictions.
        run: the run's name. fold, seed: which of it. seeds: all seeds that the run was asked for.
        identity: of the run, in full; its digest is the run's id.
        created: when the fold was written, UTC. command: what trained it.
        task: `Task.describe()`. head: arguments of the head, with its name.
        train: all keys of the recipe's train section. recipe: where the keys came from.
        packages: installed versions. cache: how the frozen part was kept.
        seconds: wall time of this fold alone; frozen_seconds: what the frozen part took when it
            was computed, maybe by an earlier run; null without one.
        hours: of audio in the train sides. metrics: test name to `Task.measure`.
        probe: that the head started from; not there where it started at random, or failed.
        clips: how longer clips were taken; not there where they were taken whole.
        augment: the views of training clips; not there where there were none.
        unscored: how many examples each test holds that is predicted and not measured; not there
            where the fold has none.
        transfer: how the stages source and target were used, or what the run went on from; not
            there where the plan has no such stages and nothing was gone on from.
    """

    schema_version: Annotated[Literal[2], BeforeValidator(no_truth_value)] = Field(alias="schema")
    emopeft: Name
    status: Literal["finished", "failed"]
    reason: Text | None
    run: Name
    fold: Name
    seed: Seed
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=10_000)]
    identity: Object
    created: Moment
    command: Text
    plan: PlanFacts
    stages: Annotated[list[StageFacts], Field(min_length=1, max_length=100)]
    task: Object
    corpora: Annotated[list[CorpusFacts], Field(min_length=1, max_length=1000)]
    upstream: UpstreamFacts
    method: MethodFacts
    head: Object
    parameters: ParameterFacts
    train: Object
    numerics: NumericsFacts
    recipe: RecipeFacts
    device: DeviceFacts
    packages: Annotated[dict[Name, Name], Field(max_length=1000)]
    code: CodeFacts
    seconds: PhaseSeconds
    frozen_seconds: Seconds | None
    peak_memory_bytes: Peak
    cache: Object
    hours: Hours
    utterances: Utterances
    metrics: Annotated[dict[Name, Object], Field(max_length=100)]
    probe: ProbeFacts | None = None
    clips: ClipFacts | None = None
    augment: AugmentFacts | None = None
    unscored: Unscored | None = None
    transfer: TransferFacts | None = None

    @property
    def domains(self) -> bool:
        """Whether the plan has the stages and tests source and target."""
        return is_transfer([stage.name for stage in self.stages], self.plan.tests)

    @property
    def trained(self) -> list[StageFacts]:
        """The stages that a finished fold was trained in."""
        if not self.domains or self.transfer is None:
            return self.stages
        return [stage for stage in self.stages if stage.name in self.transfer.trained]

    @model_validator(mode="after")
    def _fits(self) -> FoldFacts:
        if self.fold not in self.plan.folds:
            raise ValueError(f"'fold' is {self.fold[:60]!r}, which 'plan.folds' does not hold")
        if self.seed not in self.seeds:
            raise ValueError(f"'seed' is {self.seed}, which 'seeds' does not hold")
        if measured := sorted(set(self.unscored or ()) & set(self.plan.tests)):
            raise ValueError(f"'unscored' holds {measured[0][:60]!r}, which is one of 'plan.tests'")
        numbers = self.parameters
        if numbers.method + numbers.head != numbers.trainable or numbers.trainable > numbers.total:
            raise ValueError("'parameters': method + head must be trainable, at most total")
        if abs(numbers.trainable / numbers.total - numbers.share) > 1e-9:
            raise ValueError("'parameters.share' must be trainable / total")
        if self.status == "failed":
            if not self.reason or self.metrics:
                raise ValueError("a failed fold must have a 'reason' and no 'metrics'")
        elif self.reason is not None:
            raise ValueError("a finished fold has no 'reason'")
        elif set(self.metrics) != set(self.plan.tests):
            raise ValueError("'metrics' must hold each of 'plan.tests'")
        elif [s.name for s in self.stages if s.result] != [s.name for s in self.trained]:
            raise ValueError("a finished fold must have the 'result' of every one of its 'stages'")
        self._check_transfer()
        return self

    def _check_transfer(self) -> None:
        transfer = self.transfer
        if transfer is None:
            if self.domains:
                raise ValueError("'transfer' must be there: the plan has the stages of one")
            return
        if not self.domains and transfer.origin is None:
            raise ValueError("'transfer' belongs to a plan with the stages source and target")
        moments = transfer.measured if self.domains and self.status == "finished" else ()
        if set(transfer.moments) != set(moments):
            raise ValueError(f"'transfer.moments' must hold {' and '.join(moments) or 'nothing'}")
        if any(set(of) != set(self.plan.tests) for of in transfer.moments.values()):
            raise ValueError("'transfer.moments' must hold each of 'plan.tests'")

    def to_json(self) -> dict[str, Any]:
        """As fold.json holds it."""
        data = self.model_dump(mode="json", by_alias=True)
        return without(data, *(name for name in OPTIONAL if data[name] is None))
