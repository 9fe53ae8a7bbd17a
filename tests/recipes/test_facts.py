"""The papers' recipes against the facts, which stand here a second time, written by hand.

Sources: s3prl 0.4.18 (SUPERB); NLashkarashvili/Thesis at bfe1e8a; usc-sail/peft-ser at 4565eb2;
msplabresearch/MSP-Podcast_Challenge at 76464e2; the abstracts of Sampath et al. 2025 (arXiv
2503.03756) and of the anonymous submission on eight emotions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from emopeft.commands import card
from emopeft.commands.run import recipe_of
from emopeft.downstream.data.recipe import Recipe, flatten
from emopeft.peft_modules.base import parse

QKV = ("q", "k", "v")
LORA = {"name": "lora", "r": 8, "alpha": 1.0, "dropout": 0.0, "targets": (*QKV, "o"),
        "blocks": "all"}  # fmt: skip
BA = {"name": "ba", "bottleneck": 64, "attention": False, "blocks": "all"}
SUPERB = {"protocol": "iemocap-superb-random-dev", "corpus.name": "iemocap", "task": "emotion",
          "head.name": "superb", "head.hidden": 256, "train.select": "accuracy",
          "train.class_weights": "none", "train.batch_size": 32, "train.clip": 1.0,
          "train.schedule": "constant", "train.patience": None,
          "loss.classes": "cross_entropy"}  # fmt: skip
LASH = SUPERB | {"train.optimizer": "adamw", "train.lr": 1e-4, "train.steps": 2000,
                 "train.epochs": None, "train.eval_every": 500, "head.layers": "last",
                 "upstream.name": "wav2vec2_base_960"}  # fmt: skip
VAD = LASH | {"task": "dimensional", "protocol": "iemocap-vad-random-dev", "train.select": None,
              "labels.dimensions": ["valence", "arousal", "dominance"],
              "loss.dimensions": "rmse", "loss.dimension_weights": {},
              "train.loss_batch": 4}  # fmt: skip
PEFT_SER = {"head.name": "conv", "head.layers": "blocks", "head.hidden": 256,
            "head.dropout": 0.1, "train.optimizer": "adam", "train.lr": 5e-4,
            "train.weight_decay": 1e-4, "train.schedule": "plateau", "train.epochs": 30,
            "train.steps": None, "train.batch_size": 32, "train.clip": None,
            "train.class_weights": "balanced", "train.select": "uar", "train.patience": None,
            "train.eval_every": None, "train.head_lr": None, "upstream.window": "clip",
            "clips.mode": "crop", "clips.seconds": 6.0, "clips.starts": 1,
            "task": "emotion"}  # fmt: skip
SAMPATH = {"task": "dimensional", "labels.dimensions": ["arousal", "valence", "dominance"],
           "upstream.name": "wav2vec2_base_960", "train.precision": "fp32",
           "cache.enabled": False}  # fmt: skip
HUBERT8 = {"upstream.name": "hf:superb/hubert-large-superb-er", "train.optimizer": "adam",
           "train.lr": 1e-5, "train.epochs": 50, "train.steps": None, "train.patience": None,
           "train.head_lr": None, "train.schedule": "constant", "head.name": "superb",
           "head.hidden": 256, "task": "emotion", "protocol": "ravdess-6fold"}  # fmt: skip
ODYSSEY = {"upstream.name": "wavlm_large", "upstream.dropout": True, "head.name": "attentive",
           "head.layers": "last", "head.hidden": 1024, "head.dropout": 0.5,
           "train.optimizer": "adamw", "train.lr": 1e-5, "train.weight_decay": 0.01,
           "train.schedule": "constant", "train.warmup": 0.0, "train.epochs": 20,
           "train.steps": None, "train.batch_size": 32, "train.clip": None,
           "train.head_lr": None, "train.patience": None,
           "clips.mode": "crop", "clips.seconds": 12.0, "clips.starts": 1}  # fmt: skip
ATTRIBUTES = ODYSSEY | {"task": "dimensional", "train.loss_batch": 8, "train.select": "ccc",
                        "loss.dimensions": "ccc", "train.class_weights": "none"}  # fmt: skip
FULL = [{"name": "full", "cnn": False}]

# Flags, what the recipe must say, and the parts of its method with all their options.
CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("-c recipes/superb/probe.yaml -u hubert",
     SUPERB | {"train.optimizer": "adam", "train.lr": 1e-4, "train.weight_decay": 0.0,
               "train.steps": 30000, "train.epochs": None, "train.eval_every": 1000,
               "head.layers": "weighted_sum", "upstream.name": "hubert",
               "train.lr_grid": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7]},
     [{"name": "none"}]),
    ("-c recipes/lashkarashvili2024/classes.yaml -p lora", LASH, [LORA]),
    ("-c recipes/lashkarashvili2024/classes.yaml -p lora:r=16", LASH, [LORA | {"r": 16}]),
    ("-c recipes/lashkarashvili2024/classes.yaml -p lora+ba+ws+wg", LASH,
     [LORA, BA, {"name": "ws", "layers": "all"}, {"name": "wg", "blocks": "all"}]),
    ("-c recipes/lashkarashvili2024/ratings.yaml -p ba", VAD, [BA]),
    ("-c recipes/lashkarashvili2024/two-stages.yaml -o transfer.freeze=[lora.A]",
     LASH | {"protocol": "transfer:source=acted,target=natural",
             "transfer.strategy": "sequential", "transfer.freeze": ["lora.A"],
             "transfer.source": {}, "transfer.target": {}, "transfer.penalty": "none"},
     [LORA, BA]),
    ("-c recipes/peft-ser2023/classes.yaml", PEFT_SER | {"protocol": "iemocap-loso"},
     [{"name": "none"}]),
    ("-c recipes/peft-ser2023/classes.yaml -p lora@peft-ser", PEFT_SER,
     [LORA | {"r": 16, "targets": ("fc1", "fc2")}]),
    ("-c recipes/peft-ser2023/classes.yaml -p adapter@peft-ser-parallel", PEFT_SER,
     [{"name": "adapter", "width": 128, "scale": 0.1, "dropout": 0.1, "mode": "parallel",
       "blocks": "all"}]),
    ("-c recipes/peft-ser2023/classes.yaml -p prompt@peft-ser", PEFT_SER,
     [{"name": "prompt", "n": 5, "blocks": "all"}]),
    ("-c recipes/sampath2025/ratings.yaml", SAMPATH | {"protocol": "iemocap-vad-loso"}, FULL),
    ("-c recipes/sampath2025/ratings.yaml -p partial:3 -o train.precision=bf16",
     SAMPATH | {"train.precision": "bf16"}, [{"name": "partial", "n": 3}]),
    ("-c recipes/sampath2025/ratings.yaml -p lora@sampath2025", SAMPATH, [LORA | {"r": 16}]),
    ("-c recipes/hubert8/classes.yaml", HUBERT8, FULL),
    ("-c recipes/hubert8/classes.yaml -p lora:targets=q+k+v", HUBERT8, [LORA | {"targets": QKV}]),
    ("-c recipes/hubert8/classes.yaml -p lora:targets=classifier", HUBERT8,
     [LORA | {"targets": ("classifier",)}]),
    ("-c recipes/hubert8/classes.yaml -p lora:targets=classifier-only "
     "--corpus ravdess+cremad+tess+savee --protocol eight-emotions",
     HUBERT8 | {"protocol": "eight-emotions", "corpus.name": "ravdess+cremad+tess+savee"},
     [LORA | {"targets": ("classifier-only",)}]),
    ("-c recipes/odyssey2024/attributes.yaml",
     ATTRIBUTES | {"protocol": "msp-podcast-1.11-vad",
                   "labels.dimensions": ["arousal", "dominance", "valence"],
                   "loss.dimension_weights": {"arousal": 1.0, "dominance": 1.0, "valence": 1.0},
                   "train.precision": "bf16"},
     FULL),
    ("-c recipes/odyssey2024/classes.yaml",
     ODYSSEY | {"protocol": "msp-podcast-1.11", "task": "emotion",
                "train.class_weights": "balanced", "train.loss_batch": None,
                "train.precision": "fp32", "loss.classes": "cross_entropy"}, FULL),
]  # fmt: skip


def recipe(line: str) -> Recipe:
    return recipe_of(card.parser().parse_args(line.split()))


@pytest.mark.parametrize(("line", "facts", "parts"), CASES, ids=[line for line, _, _ in CASES])
def test_a_recipe_says_what_the_paper_does(
    line: str, facts: dict[str, Any], parts: list[dict[str, Any]]
) -> None:
    resolved = recipe(line)
    says = flatten(resolved.to_dict(), "it")
    assert {name: says[name] for name in facts} == facts
    found = [{"name": m.name} | dataclasses.asdict(m) for m in parse(resolved.method)]  # type: ignore[call-overload]
    assert sorted(found, key=str) == sorted(parts, key=str)


def test_the_defaults_of_superbs_folds_are_the_papers_recipes() -> None:
    """One set of facts: with and without -c the training is the same."""
    plain = recipe("-p none --protocol iemocap-superb-random-dev -u hubert")
    assert plain.train == recipe("-c recipes/superb/probe.yaml -u hubert").train
    assert plain.head == recipe("-c recipes/superb/probe.yaml -u hubert").head
    lora = recipe("-p lora --protocol iemocap-superb-random-dev")
    assert lora.train == recipe("-c recipes/lashkarashvili2024/classes.yaml").train
    assert lora.head.layers == "weighted_sum" and lora.upstream.name == "hubert"  # SUPERB's
    full = recipe("-p full --protocol iemocap-superb-random-dev").train
    assert dataclasses.replace(full, lr=1e-4) == lora.train and full.lr == 1e-5
