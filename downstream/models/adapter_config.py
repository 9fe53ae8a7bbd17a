"""What adapter.json and emopeft.json hold: strict models, with older schemas converted.

These files come from anybody (an export is shared), so every value has a type and bounds. What only
the libraries can judge, such as whether a method knows its options, is checked where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from emopeft.downstream.heads.base import MAX_HIDDEN, NUMBER
from emopeft.errors import UserError
from emopeft.peft_modules.base import parse, to_parts
from emopeft.validation import Strict, validated

SCHEMA = 2

Name = Annotated[str, Field(min_length=1, max_length=500)]
Text = Annotated[str, Field(max_length=10_000)]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StateNumber = Annotated[str, Field(pattern=f"^({NUMBER})$")]
Size = Annotated[int, Field(ge=1, le=1 << 20)]
Value = bool | Whole | float | Text | None
Plain = dict[Name, Any]  # JSON that others check: the task, an upstream's options
Precision = Literal["fp32", "bf16", "fp16"]


class UpstreamFacts(Strict):
    """Which base weights, and how they are loaded (the recipe's section ``upstream``).

    ``loader``, ``options`` and ``code`` are None where it was not noted (schema 1).
    """

    name: Name
    path: Text | None = None
    revision: Name | None = None
    window: Literal["clip", "30s"] = "clip"
    dropout: bool = False
    weights: Sha
    loader: Name | None = None
    options: Plain | None = None
    code: Name | None = None


class PartFacts(Strict):
    """One method of a sum, with all its options."""

    name: Name
    options: dict[Name, Value]


class PeftFacts(Strict):
    """The version of peft, and the configurations it made of the options, by method."""

    version: Name
    configs: dict[Name, Plain]


class MethodFacts(Strict):
    """The method: as it is spelled, in full, and as peft understood it (None: nothing of peft)."""

    spec: Text
    parts: Annotated[list[PartFacts], Field(min_length=1, max_length=50)]
    peft: PeftFacts | None = None


class GroupFacts(Strict):
    """Outputs that have a small head of their own."""

    name: Name
    outputs: Annotated[int, Field(ge=1, le=100_000)]


class HeadFacts(Strict):
    """Arguments of `heads.making.make_head`, which knows the names."""

    name: Name
    width: Size
    states: Annotated[int, Field(ge=1, le=10_000)]
    outputs: Annotated[int, Field(ge=1, le=100_000)]
    layers: Literal["weighted_sum", "last", "blocks"] | StateNumber = "weighted_sum"
    hidden: Annotated[int, Field(ge=1, le=MAX_HIDDEN)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    standardise: bool = False
    groups: Annotated[list[GroupFacts], Field(max_length=1000)] = []


class CorpusFacts(Strict):
    """A corpus it was trained on."""

    name: Name
    licence: Text = "unknown"


class ProtocolFacts(Strict):
    """The protocol, and the hash of the plan it gave."""

    name: Name
    version: Name | Whole | None = None
    hash: Name


class NumericsFacts(Strict):
    """How it was computed (`emopeft.numerics.Numerics`)."""

    precision: Precision = "fp32"
    frozen: Precision = "fp32"
    tf32: bool = False
    deterministic: bool = False


class ClipFacts(Strict):
    """How longer clips are taken (the recipe's section ``clips``)."""

    mode: Literal["whole", "crop", "segments"] = "whole"
    seconds: Annotated[float, Field(ge=0.1, le=86_400)] | None = None
    starts: Annotated[int, Field(ge=1, le=1000)] = 1


class StageFacts(Strict):
    """A stage of the training, with what differs from the run's method and recipe."""

    name: Name
    method: Text | None = None
    freeze: list[Text] = []
    keys: Plain = {}


class AdapterConfig(Strict):
    """adapter.json: all that is needed to rebuild what was trained, beside its tensors."""

    model_config = pydantic.ConfigDict(title="EmoPEFT checkpoint (adapter.json)")

    schema_: Literal[2] = Field(alias="schema")
    upstream: UpstreamFacts
    method: MethodFacts
    head: HeadFacts
    task: Plain
    corpora: list[CorpusFacts]
    protocol: ProtocolFacts
    fold: Name
    seed: Seed
    numerics: NumericsFacts
    stages: list[StageFacts] = []
    clips: ClipFacts = ClipFacts()
    # Of schema 1 only: what the method drew without training it is not among the tensors, it is
    # drawn again from the seed.
    seeded: bool = False


class ExportConfig(AdapterConfig):
    """emopeft.json: the same, and where the tensors stand in peft's file (None: in ours)."""

    model_config = pydantic.ConfigDict(title="EmoPEFT export (emopeft.json)")

    peft_names: dict[Name, Name] | None = None


# ---- schema 1 -------------------------------------------------------------------------------


class Schema1(Strict):
    """adapter.json before options were in full; ``method`` meant the defaults of its day."""

    model_config = pydantic.ConfigDict(extra="ignore")

    upstream: UpstreamFacts
    method: Annotated[str, Field(min_length=1, max_length=10_000)]
    head: HeadFacts
    task: Name
    classes: Annotated[list[Name], Field(min_length=2, max_length=1000)]
    corpus: CorpusFacts
    protocol: ProtocolFacts
    precision: Precision = "fp32"
    fold: Name
    seed: Seed


def upgraded(path: Path, data: Any, way_out: str) -> Any:
    """Data of any schema as schema 2; what is no checkpoint at all is refused.

    Of schema 1, options that were left at their defaults have those of today: nothing better is
    known of them.
    """
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema == SCHEMA and not isinstance(schema, bool):
        return data
    if schema is not True and schema == 1:
        old = validated(path, Schema1, data, way_out)
        try:
            parts = to_parts(parse(old.method))
        except UserError as error:
            raise UserError(f"{path}: key 'method': {error}") from error
        new: dict[str, Any] = {
            "schema": SCHEMA,
            "upstream": old.upstream.model_dump(),
            "method": {"spec": old.method, "parts": parts, "peft": None},
            "head": old.head.model_dump(),
            "task": {"name": old.task, "version": 1, "classes": old.classes},
            "corpora": [old.corpus.model_dump()],
            "protocol": old.protocol.model_dump(),
            "fold": old.fold,
            "seed": old.seed,
            "numerics": {"precision": old.precision},
            "seeded": True,
        }
        return new | ({"peft_names": data["peft_names"]} if "peft_names" in data else {})
    raise UserError(f"{path} is no checkpoint of EmoPEFT of schema 1 or {SCHEMA}; {way_out}")
