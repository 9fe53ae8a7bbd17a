"""Which run is which experiment of a paper: by what was run, never by a folder's name.

A run is an experiment where nothing differs that decides a number: upstream, corpora, protocol with
its version, task and ratings, method with all its options, head, clips, loss, training, precision
and how the frozen part was kept. Seeds are not compared: any of them are runs of the experiment.
Nor is what only says how a step is computed (`NOT_IN_IDENTITY`), but for the precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from emopeft.downstream.data.augment import augment_identity, augment_name
from emopeft.downstream.data.keys import ClipKeys, TrainKeys
from emopeft.downstream.data.papers import Experiment
from emopeft.downstream.data.prepare import protocol_name
from emopeft.downstream.data.recipe import Recipe, parse_method
from emopeft.downstream.data.transfer import TransferKeys
from emopeft.downstream.models.build import layers_of
from emopeft.downstream.protocols.makers.base import is_made
from emopeft.downstream.protocols.protocol import load_protocol
from emopeft.downstream.runs.identity import NOT_IN_IDENTITY, start_identity, transfer_identity
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError
from emopeft.leaderboard.gather import Row
from emopeft.peft_modules.base import canonical, from_parts
from emopeft.upstream.catalogue import find

Facts = dict[str, Any]
UNKNOWN = "not recorded"
# Of an identity; one that is not among them is of a newer version, and of no experiment here.
SECTIONS = ("schema", "plan", "audio", "task", "loss", "upstream", "methods", "head", "train",
            "numerics", "cache", "clips", "augment", "transfer")  # fmt: skip
ANY = object()  # nothing to compare with


@dataclasses.dataclass(frozen=True)
class Difference:
    """A key in which a run is not the experiment."""

    key: str
    run: Any
    experiment: Any

    def __str__(self) -> str:
        return f"{self.key} {said(self.run)}, not {said(self.experiment)}"


def differences(experiment: Experiment, recipe: Recipe, row: Row) -> list[Difference]:
    """Where a run differs from an experiment, what weighs most first; empty: it is that one.

    Args:
        recipe: of the experiment, which takes some time to resolve.
    """
    try:
        found = facts_of(row)
    except (KeyError, TypeError, AttributeError):  # an identity that no version of ours wrote
        found = {}
    wanted = wanted_of(experiment, recipe, row.task)
    both = ((key, found.get(key, UNKNOWN), wanted.get(key)) for key in {**wanted, **found})
    return [Difference(*one) for one in both if ANY not in one[1:] and one[1] != one[2]]


def alike(recipe: Recipe, row: Row) -> bool:
    """Whether a run is near enough to be mentioned: the same task and methods, by their names."""
    methods = sorted(m.name for m in parse_method(recipe.method))
    parts = sorted(part["name"] for part in row.data["method"]["parts"])
    return recipe.task == row.task.name and methods == parts


def wanted_of(experiment: Experiment, recipe: Recipe, task: Task) -> Facts:
    """What a run of the experiment records, by the keys of a recipe.

    Args:
        task: of the run that it is compared with: which of the keys it heeds.
    """
    name = protocol_name(recipe)
    version: Any = ANY
    if not is_made(name):
        shipped = load_protocol(name)
        name, version = shipped.name, shipped.version
    elif experiment.made is not None:
        name = experiment.made
    train = dataclasses.asdict(recipe.train)
    return {
        "upstream.name": _upstream(recipe.upstream.name),
        "corpus.name": sorted(str(recipe.corpus.name).split("+")),
        "protocol": name,
        "version of the protocol": version,
        "corpus.allow_incomplete": recipe.corpus.allow_incomplete,
        "task": recipe.task,
        "labels.dimensions": recipe.labels.dimensions or ANY,
        "labels.no_consensus": recipe.labels.no_consensus,
        "method": canonical(parse_method(recipe.method)),
        **_transfer(transfer_identity(recipe, task)),
        "upstream.window": recipe.upstream.window,
        "upstream.dropout": recipe.upstream.dropout,
        **_clips(dataclasses.asdict(recipe.clips)),
        **_augment(augment_identity(recipe.augment)),
        "head.name": recipe.head.name,
        "head.layers": layers_of(recipe.head.layers, recipe.method),
        "head.hidden": recipe.head.hidden,
        "head.dropout": recipe.head.dropout,
        "head.separate": recipe.head.separate,
        "head.standardise": ANY if recipe.head.standardise is None else recipe.head.standardise,
        **_start(start_identity(recipe, task)),
        **_loss(
            {
                "classes": _focal(recipe.loss.classes, recipe.loss.gamma),
                "votes": recipe.loss.votes,
                "dimensions": sorted(recipe.loss.dimensions.split("+")),
                "dimension_weights": recipe.loss.dimension_weights,
                "task_weights": recipe.loss.task_weights,
            },
            task.learning(),
        ),
        **_train(train, task),
        "train.precision": recipe.train.precision,
        "cache.enabled": recipe.cache.enabled,
        "cache.dtype": recipe.cache.dtype if recipe.cache.enabled else ANY,
        "cache.precision": recipe.cache.precision,
    }


def facts_of(row: Row) -> Facts:
    """The same of a run, from its record as made again; what an old one does not say is left out.

    A key that was not there when it was written has the value that it has by default.
    """
    data, identity = row.data, row.data.get("identity") or {}
    head, upstream = data["head"], identity.get("upstream", {})
    described = row.task.describe()
    facts: Facts = {
        "upstream.name": _upstream(data["upstream"]["name"]),
        "corpus.name": sorted(corpus["name"] for corpus in data["corpora"]),
        "protocol": data["plan"]["protocol"],
        "version of the protocol": data["plan"]["version"],
        "corpus.allow_incomplete": not data["plan"]["complete"],
        "task": row.task.name,
        "labels.dimensions": [r["name"] for r in described.get("dimensions", ())],
        "labels.no_consensus": described.get("no_consensus", "drop"),
        "method": _method(data["method"]["parts"]),
        "upstream.window": data["upstream"]["options"].get("window", "clip"),
    }
    if not identity:
        return facts
    cache = identity["cache"]
    return facts | {
        **_transfer(identity),
        "upstream.dropout": upstream.get("dropout", False) is not False,
        **_clips(identity.get("clips") or dataclasses.asdict(ClipKeys())),
        **_augment(identity),
        **{f"head.{k}": head[k] for k in ("name", "layers", "hidden", "dropout", "standardise")},
        "head.separate": bool(head["groups"]),
        **_start(identity["head"]),
        **_loss(identity["loss"], row.task.learning()),
        **_train(dataclasses.asdict(TrainKeys()) | data["train"], row.task),
        "train.precision": identity["numerics"]["precision"],
        "cache.enabled": cache != "off",
        "cache.dtype": cache,
        "cache.precision": identity["numerics"]["frozen"],
        **{name: value for name, value in identity.items() if name not in SECTIONS},
    }


def _upstream(name: str) -> str:
    """One name for those that stand for one upstream; what is not known here stays as it is."""
    try:
        return find(name).name
    except UserError:
        return name


def _method(parts: Iterable[Mapping[str, Any]]) -> str:
    try:
        return canonical(from_parts(list(parts)))
    except UserError:  # of a newer version, or of a package that is not installed
        return "+".join(str(part["name"]) for part in parts)


def _transfer(identity: Mapping[str, Any]) -> Facts:
    """What is not said there is as by default; "origin" is that of another run's checkpoints."""
    said = dataclasses.asdict(TransferKeys()) | identity.get("transfer", {})
    return {f"transfer.{name}": value for name, value in said.items()}


def _start(head: Mapping[str, Any]) -> Facts:
    return {"head.init": head["init"], "the probe's training": head.get("probe", ANY)}


def _clips(keys: Mapping[str, Any]) -> Facts:
    whole = keys["mode"] == "whole"
    return {f"clips.{n}": ANY if whole and n != "mode" else v for n, v in keys.items()}


def _augment(identity: Mapping[str, Any]) -> Facts:
    said = identity.get("augment")
    return {"augment": None if said is None else augment_name(said)}


def _focal(kind: str, gamma: float) -> Any:
    return {"focal": gamma} if kind == "focal" else kind


def _loss(keys: Mapping[str, Any], heeded: Mapping[str, Any]) -> Facts:
    """Those that the task heeds; of several tasks, all of their parts'."""
    if "parts" in heeded:
        of_parts = keys.get("parts")
        found: Facts = {}
        for name, part in heeded["parts"].items():
            found |= _loss(of_parts[name] if of_parts else keys, part)
        return found | {"loss.task_weights": _weights(keys.get("task_weights"))}
    return {
        f"loss.{name}": _weights(keys.get(name)) if name.endswith("weights") else keys.get(name)
        for name in heeded
    }


def _weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    return {name: weight for name, weight in (weights or {}).items() if weight}


def _train(keys: Mapping[str, Any], task: Task) -> Facts:
    """Those that decide a number, the dev metric by its name; rates only where they are tried."""
    facts = {n: v for n, v in keys.items() if n not in NOT_IN_IDENTITY} | {
        "select": keys["select"] or task.main
    }
    if keys["tune"] == "lr":
        facts["lr"] = ANY
    else:
        facts["lr_grid"] = ANY
    return {f"train.{name}": value for name, value in facts.items()}


def said(value: Any) -> str:
    """A value as a person reads it."""
    if value == "" or value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {said(v)}" for k, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
