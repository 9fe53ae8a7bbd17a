"""What the folds of a run share: data, model blueprint, frozen parts, and the run's folder."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from emopeft.downstream.corpora.check import scan
from emopeft.downstream.data.prepare import Data, prepare
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.feature_cache.folders import default_root
from emopeft.downstream.models.build import Blueprint, upstream_of
from emopeft.downstream.tasks.emotion import TASKS, EmotionTask
from emopeft.errors import UserError
from emopeft.files import digest, read_json, write_json, write_text
from emopeft.peft_modules.apply import Adaptation
from emopeft.upstream.base import Upstream


@dataclasses.dataclass
class Session:
    """Everything that the folds of a run share."""

    recipe: Recipe
    command: str
    data: Data
    task: EmotionTask
    accelerator: Accelerator
    upstream: Upstream
    blueprint: Blueprint
    adaptation: Adaptation  # of the first seed: the frozen part is the same for all
    examples: Examples
    folder: Path
    identity: dict[str, Any]
    seconds: dict[str, float]


def open_session(recipe: Recipe, command: str) -> Session:
    """Read, check, load and keep what is frozen. Raises UserError for wrong input."""
    data = prepare(recipe)
    task = TASKS[recipe.task].of(data.resolved)
    utterances = data.utterances()
    scanned = scan(utterances)
    scanned.raise_if_broken()

    started = time.monotonic()
    accelerator = make_accelerator(recipe.train.precision)
    upstream = upstream_of(recipe.upstream).to(accelerator.device)
    blueprint = Blueprint.of(upstream, recipe, task.outputs)
    adaptation = blueprint.adapt(recipe.seeds[0])
    head = blueprint.model(recipe.seeds[0], adaptation).head
    loaded = time.monotonic()

    identity = identity_of(recipe, data, upstream, adaptation, blueprint)
    folder = folder_of(recipe, data, adaptation, identity)
    if accelerator.is_main_process:
        _claim(folder, identity, recipe)
    examples = Examples.prepare(
        adaptation.upstream,
        adaptation.start,
        head.pooled,
        utterances,
        [data.resolved.label(u) for u in utterances],
        [scanned.seconds[u.id] for u in utterances],
        [scanned.digests[u.id] for u in utterances],
        Path(recipe.cache.dir) if recipe.cache.dir else default_root(),
        recipe.cache,
    )
    # What the frozen part took, also where an earlier run has computed it.
    seconds = {"load": loaded - started, "features": examples.frozen_seconds()}
    return Session(
        recipe, command, data, task, accelerator, upstream, blueprint, adaptation,
        examples, folder, identity, seconds,
    )  # fmt: skip


def make_accelerator(precision: str) -> Accelerator:
    """The device and precision; raises UserError where they do not go together."""
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("train.precision=fp16 needs a GPU; take bf16 or fp32 on a CPU")
    # A process may run several recipes; accelerate would keep the first one's precision.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision)


def identity_of(
    recipe: Recipe, data: Data, upstream: Upstream, adaptation: Adaptation, blueprint: Blueprint
) -> dict[str, Any]:
    """What decides the result of a fold and seed; equal identities give equal results."""
    train = dataclasses.asdict(recipe.train)
    for name in ("batch_seconds", "compile", "checkpointing"):  # how a step is computed, not what
        train.pop(name)
    return {
        "schema": 1,
        "task": recipe.task,
        "protocol": data.resolved.hash,
        "upstream": {
            "weights": upstream.weights,
            "loader": upstream.loader,
            "options": upstream.options,
            "dropout": recipe.upstream.dropout,
        },
        "method": adaptation.spec,
        "head": blueprint.head,
        "train": train,
        "cache": recipe.cache.dtype if recipe.cache.enabled else "off",
    }


def folder_of(recipe: Recipe, data: Data, adaptation: Adaptation, identity: dict[str, Any]) -> Path:
    """Where the run is written: --out/NAME, or a name made of what is run and its hash."""
    name = recipe.name
    if name is None:
        parts = (data.resolved.protocol.name, recipe.upstream.name, adaptation.spec)
        name = "-".join(re.sub(r"[^\w.+=-]+", "_", p) for p in parts)[:120]
        name += "-" + digest(identity)[:8]
    elif Path(name).name != name or name in (".", ".."):
        raise UserError(f"-n {name} must be a plain name; the place is given with --out")
    return Path(recipe.out) / name


def _claim(folder: Path, identity: dict[str, Any], recipe: Recipe) -> None:
    """Note in the folder what is run there; refuse one that holds something else."""
    path = folder / "identity.json"
    if path.exists():
        other = read_json(path)
        if other != identity:
            changed = [
                k for k in identity if not isinstance(other, dict) or other.get(k) != identity[k]
            ]
            raise UserError(
                f"{folder} holds a run that differs in {', '.join(changed)}; give another -n, or "
                "delete the folder"
            )
        return
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe.to_dict(), sort_keys=False))
    write_json(path, identity)
