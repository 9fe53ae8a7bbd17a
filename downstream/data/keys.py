"""The keys of a recipe, section by section: type, default, what it is, and what it may be."""

from __future__ import annotations

import dataclasses
from typing import Any

from emopeft.numerics import PRECISIONS
from emopeft.values import SHARE, Range, key, positive

Mapping = dict[str, Any]


@dataclasses.dataclass
class UpstreamKeys:
    name: str = key("hubert", "see --list upstreams; hf:ORG/NAME; s3prl:NAME")
    path: str | None = key(None, "a local directory as written by save_pretrained")
    revision: str | None = key(None, "the hub's commit; the newest is taken and recorded if unset")
    window: str = key("clip", "Whisper: work on the clip, or pad it to 30 s", ("clip", "30s"))
    dropout: bool = key(False, "the encoder's own dropout in the blocks that train")


@dataclasses.dataclass
class CorpusKeys:
    name: str | None = key(None, "see --list corpora")
    data: str | dict[str, str] | None = key(
        None, "where it lies; several corpora: name and place of each; else EMOPEFT_<NAME> is asked"
    )
    options: Mapping = key({}, "what the corpus' reader takes beside the place")
    allow_incomplete: bool = key(False, "run although files of the published corpus are missing")


@dataclasses.dataclass
class ClipKeys:
    mode: str = key(
        "whole",
        "of clips longer than clips.seconds: whole; crop: one stretch of them; segments: stretches "
        "that cover the clip, their outputs averaged",
        ("whole", "crop", "segments"),
    )
    seconds: float | None = key(
        None, "length of a crop or segment; shorter clips stay whole", range=Range(0.1, 86_400)
    )
    starts: int = key(
        1,
        "places, spaced evenly, at one of which a crop begins in training, drawn in each epoch; 1, "
        "and in dev and test always: the clip's beginning",
        range=Range(1, 1000),
    )


@dataclasses.dataclass
class AugmentKeys:
    apply: str = key(
        "",
        "views of training clips, of which each gets one: noise:snr=5..20|pitch+reverb; see "
        "--list views; empty: none",
    )
    views: str = key(
        "4",
        "how many of each clip are kept beside the clean one, one of all being drawn in each "
        "epoch; or live: a new one in each epoch, computed from the waveform",
    )


@dataclasses.dataclass
class HeadKeys:
    name: str = key("superb", "superb, PEFT-SER's conv, or Odyssey 2024's attentive")
    layers: str = key(
        "weighted_sum", "which states the head sees", ("weighted_sum", "last", "blocks")
    )
    hidden: int = key(256, "width of the head", range=positive(65_536))
    dropout: float = key(0.1, "inside the conv and the attentive head", range=SHARE)
    separate: bool = key(
        False, "a small head of its own for each group of the task's outputs, on one sum of states"
    )
    standardise: bool | None = key(
        None, "standardise a frozen upstream's means on the training part; unset: as it needs"
    )
    init: str = key(
        "random",
        "what the head of a fold starts as: random, or probe: the fold's own frozen probe, trained "
        "with the defaults for a frozen upstream (linear probing, then fine-tuning)",
        ("random", "probe"),
    )


@dataclasses.dataclass
class TrainKeys:
    optimizer: str = key("adam", "adam, adamw or sgd", ("adam", "adamw", "sgd"))
    lr: float = key(1e-3, "learning rate", range=positive(1e6))
    head_lr: float | None = key(
        None,
        "of the head beside an upstream that trains; unset: the same as lr",
        range=positive(1e6),
    )
    weight_decay: float = key(0.0, "of the optimiser", range=Range(0, 1e6))
    schedule: str = key(
        "constant", "of the learning rate", ("constant", "linear", "cosine", "plateau")
    )
    warmup: float = key(0.0, "share of the steps in which the rate rises from zero", range=SHARE)
    steps: int | None = key(None, "optimiser steps (or give epochs)", range=Range(0, 10**8))
    epochs: float | None = key(
        30, "passes over the training part (or give steps)", range=positive(10**6)
    )
    batch_size: int = key(32, "utterances per optimiser step", range=positive(10**6))
    loss_batch: int | None = key(
        None,
        "utterances on which a loss that is no sum over them (ccc, rmse) is taken: a step's batch "
        "is split into such parts as it was drawn, and their losses averaged; unset: the whole",
        range=positive(10**6),
    )
    batch_seconds: float = key(
        60.0,
        "padded seconds of audio in memory at once; a step is split into as many as it takes",
        range=positive(10**7),
    )
    clip: float | None = key(1.0, "largest norm of the gradient", range=positive(1e12))
    eval_every: int | None = key(
        None, "steps between evaluations; unset: every epoch", range=positive(10**8)
    )
    patience: int | None = key(
        8,
        "evaluations without a better dev metric before stopping; null: never",
        range=positive(10**8),
    )
    select: str | None = key(None, "the dev metric that chooses; unset: the task's own")
    choose: str = key(
        "best",
        "which state is kept: best on dev, or last: after the last step, for a schedule that "
        "decays. The best of many evaluations looks better on dev than it is, so that a probe that "
        "was chosen among hundreds (head.init=probe) may win although a later state is better",
        ("best", "last"),
    )
    class_weights: str = key(
        "none",
        "of the loss: none; balanced (inverse frequency) or effective (number of samples); as in "
        "torch, a step's loss is divided by the sum of its weights",
        ("none", "balanced", "effective"),
    )
    sampling: str = key(
        "none",
        "of an epoch: none (each utterance once), or balanced (as many draws with replacement, "
        "each class as likely as the others)",
        ("none", "balanced"),
    )
    corpora: str = key(
        "as_is",
        "of several corpora in an epoch: as_is, or balanced (as many draws with replacement, each "
        "corpus as likely as the others; with sampling=balanced its classes are, within each)",
        ("as_is", "balanced"),
    )
    precision: str = key("fp32", "fp32, bf16 or fp16 (mixed)", PRECISIONS)
    tf32: bool = key(False, "let a GPU round fp32 products to TF32 (faster, three digits)")
    deterministic: bool = key(False, "only operations that repeat to the bit (slower on a GPU)")
    compile: bool = key(False, "compile the blocks that train (torch.compile)")
    checkpointing: bool = key(
        False, "keep no activations inside the blocks that train, compute them again (less memory)"
    )
    tune: str = key("none", "none, or lr: choose it by the dev metric", ("none", "lr"))
    lr_grid: list[float] = key(
        [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7],
        "the rates that tune=lr tries",
        range=positive(1e6),
    )


@dataclasses.dataclass
class CacheKeys:
    dir: str | None = key(None, "where frozen parts are kept; else $EMOPEFT_CACHE or ~/.cache")
    dtype: str = key("fp32", "their format on disk", ("fp32", "fp16", "bf16"))
    limit: float | None = key(
        None,
        "GB that all caches together may take; the least recently used make room",
        range=positive(10**9),
    )
    precision: str = key("fp32", "in which the frozen part is computed", PRECISIONS)
    batch_seconds: float | None = key(
        None,
        "seconds of audio extracted at once; unset: one clip on a CPU, 600 on a GPU",
        range=positive(10**7),
    )
    enabled: bool = key(True, "false: the frozen part is computed anew in every step")
