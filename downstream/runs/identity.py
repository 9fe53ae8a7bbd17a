"""What decides the result of a run, and the folder that holds it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator

from emopeft.downstream.data.augment import augment_identity
from emopeft.downstream.data.fold import Stage
from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.prepare import protocol_name
from emopeft.downstream.data.recipe import Recipe, probe_keys
from emopeft.downstream.data.resolve import stage_keys
from emopeft.downstream.data.transfer import SOURCE, TARGET, decisions
from emopeft.downstream.models.build import Blueprint
from emopeft.downstream.records.values import without
from emopeft.downstream.runs.origin import origin_identity
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError
from emopeft.files import digest, locked, read_json, write_json, write_text
from emopeft.numerics import Numerics
from emopeft.peft_modules.apply import Adaptation
from emopeft.upstream.base import Upstream

IDENTITY = "identity.json"
# How a step is computed, not what; precision and its like stand under "numerics".
NOT_IN_IDENTITY = (
    "batch_seconds",
    "compile",
    "checkpointing",
    "precision",
    "tf32",
    "deterministic",
)


def told(keys: TrainKeys) -> dict[str, Any]:
    """The keys of ``train`` as they are written down; `corpora` only where it is set, so that runs
    from before it was there are the same."""
    values = dataclasses.asdict(keys)
    return values if keys.corpora != "as_is" else without(values, "corpora")


def deciding(keys: TrainKeys, task: Task) -> dict[str, Any]:
    """The keys of ``train`` that decide a result, the dev metric by its name."""
    values = without(told(keys), *NOT_IN_IDENTITY)
    return values | {"select": keys.select or task.main}


def start_identity(recipe: Recipe, task: Task) -> dict[str, Any]:
    """What the head starts as, and how that was trained."""
    if recipe.head.init == "random":
        return {"init": "random"}
    keys = probe_keys(protocol_name(recipe), recipe.train)
    return {"init": recipe.head.init, "probe": deciding(keys, task)}


def identity_of(
    recipe: Recipe,
    plan: Plan,
    upstream: Upstream,
    blueprints: Mapping[str, Blueprint],
    adaptations: Mapping[str, Adaptation],
    numerics: Numerics,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """What decides the results of a run; equal identities give equal results.

    Folds and seeds are not in it: the folder of a run holds any of them.
    """
    run_method = next(iter(blueprints))
    return {
        "schema": 2,
        "plan": plan.hash,
        "audio": plan.audio_hash,
        "task": plan.task.describe(),
        "loss": plan.task.learning(),
        "upstream": {
            "weights": upstream.weights,
            "loader": upstream.loader,
            "options": upstream.options,
            "code": upstream.code,
            "dropout": blueprints[run_method].dropout_rates() if recipe.upstream.dropout else False,
        },
        "methods": {
            "run" if method == run_method else method: [
                {"name": m.name, "options": m.options()} for m in adaptation.methods
            ]
            for method, adaptation in adaptations.items()
        },
        "head": blueprints[run_method].head | start_identity(recipe, plan.task),
        "train": deciding(recipe.train, plan.task),
        "numerics": numerics.describe(accelerator.device),
        "cache": recipe.cache.dtype if recipe.cache.enabled else "off",
        **clips_identity(recipe),
        **augment_identity(recipe.augment),
        **transfer_identity(recipe, plan.task),
    }


def transfer_identity(recipe: Recipe, task: Task) -> dict[str, Any]:
    """What is done with the stages of a plan, as key "transfer"; nothing where it is the usual."""
    said = decisions(transfer_facts(recipe, task)) | origin_identity(recipe)
    return {"transfer": said} if said else {}


def transfer_facts(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The recipe's section ``transfer`` as records have it; of the keys of a stage those that
    decide a result, and are not those of the run."""
    facts = dataclasses.asdict(recipe.transfer)
    usual = deciding(recipe.train, task)
    for stage in (SOURCE, TARGET):
        if facts[stage]:
            keys = stage_keys(recipe, facts[stage], f"transfer.{stage}", stage == TARGET)
            found = deciding(keys, task)
            facts[stage] = {name: found[name] for name in found if found[name] != usual.get(name)}
    facts["freeze"].sort()
    del facts["init_from"]
    return facts


def clips_identity(recipe: Recipe) -> dict[str, Any]:
    """How longer clips are taken, as key "clips"; nothing where they are taken whole."""
    return {} if recipe.clips.mode == "whole" else {"clips": dataclasses.asdict(recipe.clips)}


def own_key(plan: Plan, stage: Stage, seed: int, keys: TrainKeys | None = None) -> str:
    """Digest of the utterances that a stage is trained and chosen on, in order, and of the seed.

    Args:
        keys: of the training that it is the key of; they may make it count whose each utterance is.
    """
    rows = [
        [part, e.view, e.weight, plan.audio[e.uid], [None if math.isnan(x) else x for x in target]]
        for part, examples in (("train", stage.train), ("dev", stage.dev))
        for e in examples
        for target in [plan.target(e)]
    ]
    even = keys is not None and keys.corpora != "as_is"
    corpora = {"corpora": stage.corpora} if even else {}
    return digest({"rows": rows, "seed": seed, **corpora})


def folder_of(recipe: Recipe, plan: Plan, spec: str, identity: Mapping[str, Any]) -> Path:
    """Where the run is written: --out/NAME, or a name made of what is run and its hash."""
    name = recipe.name
    if name is None:
        parts = (plan.protocol.name, recipe.upstream.name, spec)
        name = "-".join(re.sub(r"[^\w.+=-]+", "_", p) for p in parts)[:120]
        name += "-" + digest(identity)[:8]
    elif Path(name).name != name or name in (".", ".."):
        raise UserError(f"-n {name} must be a plain name; the place is given with --out")
    return Path(recipe.out) / name


def claim(folder: Path, identity: Mapping[str, Any], recipe: Recipe) -> None:
    """Note in the folder what is run there; refuse one that holds something else."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".claim.lock", wait=60):
        path = folder / IDENTITY
        if path.exists():
            other = read_json(path)
            changed = differences(other, identity)
            if changed:
                raise UserError(
                    f"{folder} holds a run that differs in {', '.join(changed)}; give another -n, "
                    "or delete the folder"
                )
            return
        write_text(folder / "recipe.yaml", yaml.safe_dump(recipe.to_dict(), sort_keys=False))
        write_json(path, identity)


def differences(recorded: Any, identity: Mapping[str, Any]) -> list[str]:
    """The parts in which two identities differ."""
    if not isinstance(recorded, dict):
        return list(identity)
    return [k for k in {**identity, **recorded} if recorded.get(k) != identity.get(k)]
