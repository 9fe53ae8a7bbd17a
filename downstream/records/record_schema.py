"""What stands in a run's result.json, as a pydantic model made of those of fold.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from emopeft.downstream.records.plan_schema import CorpusFacts, PlanFacts, ProbeFacts, StageFacts
from emopeft.downstream.records.schema import (
    OPTIONAL,
    AugmentFacts,
    ClipFacts,
    CodeFacts,
    DeviceFacts,
    MethodFacts,
    NumericsFacts,
    ParameterFacts,
    Peak,
    PhaseSeconds,
    RecipeFacts,
    Unscored,
    UpstreamFacts,
    Utterances,
)
from emopeft.downstream.records.transfer_schema import TransferEntry
from emopeft.downstream.records.values import (
    LARGEST,
    Hash,
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

FOLDS = 100_000  # most folds and seeds of one run
Statistic = Annotated[float, Field(ge=-1e300, le=1e300)]


class FoldEntry(Strict):
    """One fold and seed, as its fold.json has it."""

    fold: Name
    seed: Seed
    status: Literal["finished", "failed"]
    reason: Text | None
    created: Moment
    metrics: Annotated[dict[Name, Object], Field(max_length=100)]
    stages: Annotated[list[StageFacts], Field(min_length=1, max_length=100)]
    seconds: PhaseSeconds
    frozen_seconds: Seconds | None
    peak_memory_bytes: Peak
    hours: Hours
    utterances: Utterances
    probe: ProbeFacts | None = None
    clips: ClipFacts | None = None
    augment: AugmentFacts | None = None
    unscored: Unscored | None = None
    transfer: TransferEntry | None = None


class Missing(Strict):
    """A fold and seed that is not there, or failed."""

    fold: Name
    seed: Seed


class Mean(Strict):
    """Over the folds, the seeds of one averaged first; null where a metric was none.

    Attributes:
        std: the sample deviation over the folds, null for one. n: the number of folds.
        seed_std: that of the seeds' means, null unless several seeds have the same folds.
    """

    mean: Statistic | None
    std: Statistic | None
    n: Annotated[int, Field(ge=1, le=FOLDS)]
    seed_std: Statistic | None


Means = Annotated[dict[Name, Mean], Field(max_length=100)]  # per metric


class TransferSummary(Strict):
    """A transfer over the folds.

    Attributes:
        moments: moment ("before", "between", "after") to test to metric to `Mean`.
        gain, forgetting: metric to `Mean`; empty where nothing was measured between the stages.
    """

    moments: Annotated[
        dict[Literal["before", "between", "after"], dict[Name, Means]], Field(max_length=3)
    ]
    gain: Means
    forgetting: Means


class SpeakerFacts(Strict):
    """One speaker: how many utterances were tested, and the main metric on them (null: none)."""

    utterances: Annotated[int, Field(ge=1, le=LARGEST)]
    value: Statistic | None


class CorpusFold(Strict):
    """What a fold and seed come to on one corpus: utterances tested, and metric to value."""

    fold: Name
    seed: Seed
    utterances: Annotated[int, Field(ge=1, le=LARGEST)]
    metrics: Annotated[dict[Name, Statistic | None], Field(max_length=100)]


class CorpusNumbers(Strict):
    """One corpus of several: its own folds, and over these what a record has of all.

    Attributes:
        lacks: classes of which its tests hold none; UAR and the like are over the others.
    """

    folds: Annotated[list[CorpusFold], Field(min_length=1, max_length=FOLDS)]
    summary: Annotated[dict[Name, Mean], Field(max_length=100)]
    pooled: Annotated[dict[Name, Statistic | None], Field(max_length=100)]
    lacks: Annotated[list[Name], Field(max_length=1000)]


class CostFacts(Strict):
    """What the run took.

    Attributes:
        seconds: summed over the folds. frozen_seconds: what the frozen part took once.
        probe_seconds: what training the probes took that the folds started from, summed; not there
            where all started at random.
        source_seconds: what training the source's stages took that were read as an earlier run had
            trained them, summed; not there where none was.
        audio_hours_per_second: of training, without the search; null where none was measured.
        peak_memory_bytes: of the fold that needed the most. cache: how the frozen part was kept.
    """

    seconds: PhaseSeconds
    frozen_seconds: Seconds | None
    audio_hours_per_second: Hours | None
    peak_memory_bytes: Peak
    cache: Object
    probe_seconds: Seconds | None = None
    source_seconds: Seconds | None = None


class RecordFacts(Strict):
    """result.json: the record of a run, a pure function of its fold folders.

    Attributes:
        status: "finished" when every fold of the plan is there for every seed asked for.
        name: the run's. id: digest of ``identity``. created: when its latest fold was written.
        audit: of the folds that are there, from their rows.
        commands, recipes, numerics, devices, packages, code: all different ones of the folds.
        differs: other facts in which folds differ; the record has those of the first one.
        missing: folds and seeds that are not there or failed.
        summary: test name to metric to `Mean`.
        pooled: test name to metric, on the utterances of all folds at once; the mean over seeds.
        speakers: test name to speaker to the main metric on that speaker's utterances.
        by_corpus: test name to corpus to its numbers, of the tests that hold several corpora; not
            there where none does.
        transfer: of a plan with the stages source and target; not there without.
    """

    schema_version: Annotated[Literal[2], BeforeValidator(no_truth_value)] = Field(alias="schema")
    status: Literal["finished", "incomplete"]
    name: Name
    id: Hash
    identity: Object
    created: Moment
    task: Object
    corpora: Annotated[list[CorpusFacts], Field(min_length=1, max_length=1000)]
    plan: PlanFacts
    audit: Object
    upstream: UpstreamFacts
    method: MethodFacts
    head: Object
    parameters: ParameterFacts
    train: Object
    commands: Annotated[list[Text], Field(min_length=1, max_length=FOLDS)]
    recipes: Annotated[list[RecipeFacts], Field(min_length=1, max_length=FOLDS)]
    numerics: Annotated[list[NumericsFacts], Field(min_length=1, max_length=FOLDS)]
    devices: Annotated[list[DeviceFacts], Field(min_length=1, max_length=FOLDS)]
    packages: Annotated[list[dict[Name, Name]], Field(min_length=1, max_length=FOLDS)]
    code: Annotated[list[CodeFacts], Field(min_length=1, max_length=FOLDS)]
    differs: Annotated[list[Name], Field(max_length=100)]
    folds: Annotated[list[FoldEntry], Field(min_length=1, max_length=FOLDS)]
    missing: Annotated[list[Missing], Field(max_length=FOLDS)]
    summary: Annotated[dict[Name, dict[Name, Mean]], Field(max_length=100)]
    pooled: Annotated[dict[Name, dict[Name, Statistic | None]], Field(max_length=100)] = {}
    speakers: Annotated[dict[Name, dict[Name, SpeakerFacts]], Field(max_length=100)] = {}
    by_corpus: Annotated[
        dict[Name, Annotated[dict[Name, CorpusNumbers], Field(max_length=1000)]],
        Field(max_length=100),
    ] = {}
    transfer: TransferSummary | None = None
    cost: CostFacts

    def to_json(self) -> dict[str, Any]:
        """As result.json holds it."""
        data = self.model_dump(mode="json", by_alias=True)
        data["folds"] = [
            without(e, *(name for name in OPTIONAL if e[name] is None)) for e in data["folds"]
        ]
        cost = data["cost"]
        some = [n for n in ("probe_seconds", "source_seconds") if cost[n] is None]
        data["cost"] = without(cost, *some)
        absent = [n for n in ("by_corpus", "transfer") if not getattr(self, n)]
        return without(data, *absent)
