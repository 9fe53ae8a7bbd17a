"""What fold.json and result.json say of the plan: its folds, its stages and its corpora."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from emopeft.downstream.records.values import (
    MOST,
    Count,
    Hash,
    Hours,
    Name,
    Names,
    Object,
    Seconds,
    Sentences,
    Text,
)
from emopeft.validation import Strict


class FoldHashes(Strict):
    """``hash``: of the fold's stages and rows (`Plan.fold_hash`); ``audio``: of what they sound."""

    hash: Hash
    audio: Hash


class PlanFacts(Strict):
    """The plan that the fold is part of: the same in every fold of a run.

    Attributes:
        protocol, version, description, source: of the protocol.
        hash, audio_hash: of the whole plan.
        folds: all folds of the plan in their order, trained here or not.
        tests: the names of the test sets, in order.
        complete: the corpora are as published. missing, dropped: what they lack, and how many
            utterances of which label take no part.
        overlap: the sides that the protocol declares to share speakers with train ("dev").
        unknown_speakers: whether the protocol allows utterances of unknown speakers.
        duplicates: groups of corpus/id that hold one recording, as published.
        warnings: what spoils a number without being an error, one sentence each.
    """

    protocol: Name
    version: Count
    description: Text
    source: Text
    hash: Hash
    audio_hash: Hash
    folds: Annotated[dict[Name, FoldHashes], Field(min_length=1, max_length=10_000)]
    tests: Annotated[list[Name], Field(min_length=1, max_length=100)]
    complete: bool
    missing: Sentences
    dropped: Annotated[dict[str, Count], Field(max_length=10_000)]
    overlap: Names
    unknown_speakers: bool
    duplicates: Annotated[list[Names], Field(max_length=100_000)]
    warnings: Sentences


class StageResult(Strict):
    """What the training of one stage came to.

    Attributes:
        steps: optimiser steps made; best_step: the one whose state is kept, 0 for the start.
        lr: the learning rate; tried: rate (as text) to the value of the selecting metric on dev
            that it reached, null where it diverged; empty without a search.
        history: one entry per evaluation: step, loss, dev_loss and metrics on dev; where it starts
            from a probe, step 0 comes first, without a loss.
        dev: the task's measures on dev at that step.
        seconds: wall time of the training itself, without the search.
        audio_hours: hours of audio that went through it, repetitions counted.
    """

    steps: Count
    best_step: Count
    lr: Annotated[float, Field(ge=0, le=1e12)]
    tried: Annotated[dict[Name, float | None], Field(max_length=10_000)]
    history: Annotated[list[Object], Field(max_length=MOST)]
    dev: Object
    seconds: Seconds
    audio_hours: Hours


class ProbeFacts(Strict):
    """The frozen probe that a fold's head started from (head.init=probe).

    Attributes:
        dev: the task's measures on dev at ``best_step`` of ``steps``.
        evaluations: how many of its states were compared on dev.
        lr: the learning rate that it was trained with.
        seconds: what its training took when it was trained, maybe by an earlier run.
        frozen_seconds: the same of the frozen part that it was trained on; the fold's own
            ``frozen_seconds`` hold it.
    """

    dev: Object
    lr: Annotated[float, Field(ge=0, le=1e12)]
    steps: Count
    best_step: Count
    evaluations: Count
    seconds: Seconds
    frozen_seconds: Seconds


class StageFacts(Strict):
    """A stage of the fold: its head as in the plan, and its result (null: it was not ended)."""

    name: Name
    method: Name | None
    freeze: Names
    keys: Object
    result: StageResult | None


class CorpusFacts(Strict):
    """A corpus of the plan: ``utterances`` and ``hours`` (of audio) that take part in it."""

    name: Name
    title: Text
    licence: Text
    utterances: Count
    hours: Hours
