"""From a recipe to a model: upstream, method and head, newly initialised or from a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.keys import HeadKeys, UpstreamKeys
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.heads.base import Head, HeadOptions
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.checkpoint import read_adapter
from emopeft.downstream.models.model import AdaptedModel, active_dropout
from emopeft.downstream.tasks.base import task_of
from emopeft.errors import UserError
from emopeft.numerics import stream
from emopeft.peft_modules.apply import Adaptation, adapt, patch_head
from emopeft.peft_modules.base import from_parts
from emopeft.peft_modules.liveness import prove_head_live, prove_seen
from emopeft.peft_modules.tensors import sharing_copy
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import load as load_upstream
from emopeft.upstream.identity import same_base

Group = tuple[str, int]  # of a task's outputs: its name, and how many they are

# Options of methods that are whole numbers and no sizes: they may be large.
NOT_SIZES = ("seed", "prng", "tinit", "tfinal", "deltaT")


def upstream_of(keys: UpstreamKeys) -> Upstream:
    """Load the recipe's upstream."""
    options = {} if keys.window == "clip" else {"window": keys.window}
    return load_upstream(keys.name, keys.path, keys.revision, **options)


@dataclasses.dataclass
class Blueprint:
    """Makes any number of equal models that differ in their seed: one per fold and seed.

    Attributes:
        upstream: as loaded; stays unpatched. The models share the memory of all that they do not
            train: there is one copy of the encoder, however many folds there are.
        method: a spec such as ``lora+ws``.
        head: arguments of `make_head`.
        dropout: the encoder's own dropout in the blocks that train.
    """

    upstream: Upstream
    method: str
    head: dict[str, Any]
    dropout: bool = False
    _proven: bool = False
    _start: int | None = None

    @classmethod
    def of(cls, upstream: Upstream, recipe: Recipe, groups: Sequence[Group]) -> Blueprint:
        """The models of a recipe.

        Args:
            groups: see `Task.output_groups`.
        """
        return cls(
            upstream,
            recipe.method,
            head_arguments(recipe.head, upstream, recipe.method, groups),
            recipe.upstream.dropout,
        )

    def adapt(self, seed: int) -> Adaptation:
        """A patched copy of the upstream; its new parameters are drawn from ``seed``.

        From a stream of their own: the head's is another, or rows of a LoRA-A would be rows of the
        head's projector. The liveness proof runs once: the copies differ in nothing that matters
        for it.
        """
        torch.manual_seed(stream("method", seed))
        copied = sharing_copy(self.upstream)
        adaptation = adapt(copied, self.method, prove=not self._proven, shared=True)
        self._proven, self._start = True, adaptation.start
        return adaptation

    def model(
        self,
        seed: int,
        adaptation: Adaptation | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> AdaptedModel:
        """A model; an ``adaptation`` that trains nothing may be shared by several.

        Args:
            start: what the head starts as, before methods patch it: its whole state,; None: as
                drawn from the seed.
        """
        if adaptation is None:
            adaptation = self.adapt(seed)
        torch.manual_seed(seed)
        head = make_head(**self.head)
        if start is not None:
            head.load_state_dict(dict(start))
        return assemble(adaptation, head, self.dropout)

    def dropout_rates(self) -> dict[str, float]:
        """See `AdaptedModel.dropout_rates`: they decide results."""
        if self._start is None:
            self.adapt(0)
        return active_dropout(self.upstream, self._start or 0) if self.dropout else {}


def assemble(adaptation: Adaptation, head: Head, dropout: bool) -> AdaptedModel:
    """A patched upstream and a newly made head, which the methods may patch too."""
    head.patched = patch_head(adaptation.methods, head)
    configs = {m.name: m.resolved(head) for m in adaptation.methods}
    adaptation.in_head = {name: c for name, c in configs.items() if c is not None}
    prove_head_live(head, adaptation.upstream)
    seen = head.featurizer
    prove_seen(adaptation.upstream, seen.skip + seen.count - 1)
    return AdaptedModel(adaptation.upstream, head, adaptation.start, dropout, adaptation)


def head_arguments(
    keys: HeadKeys, upstream: Upstream, method: str, groups: Sequence[Group]
) -> dict[str, Any]:
    """Arguments of `make_head`, as JSON has them. A ``ws`` in the method overrides the layers.

    Raises:
        UserError: an option that this head, or these groups of outputs, cannot have.
    """
    standardise = upstream.standardise if keys.standardise is None else keys.standardise
    if keys.separate and len(groups) < 2:
        raise UserError(
            "head.separate=true makes a head per group of outputs, and this task has one group; "
            "set it to false"
        )
    options = HeadOptions(
        name=keys.name,
        width=upstream.width,
        states=upstream.num_blocks + 1,
        outputs=sum(count for _, count in groups),
        layers=layers_of(keys.layers, method),
        hidden=keys.hidden,
        dropout=keys.dropout,
        standardise=standardise,
        groups=[{"name": n, "outputs": count} for n, count in groups if keys.separate],
    )
    return dataclasses.asdict(options)


def layers_of(layers: str, method: str) -> str:
    """The states that the head sees: the recipe's ``head.layers``, unless the method has ``ws``."""
    from emopeft.peft_modules.base import parse
    from emopeft.peft_modules.ws import LAYERS, WeightedSum

    for one in parse(method):
        one_state = layers not in LAYERS.values()
        if isinstance(one, WeightedSum) and (one.layers != "all" or one_state):
            layers = LAYERS[one.layers]
    return layers


def base_of(config: dict[str, Any], upstream_path: str | None = None) -> Upstream:
    """The unpatched upstream that a checkpoint was trained on.

    Args:
        config: the checkpoint's adapter.json.
        upstream_path: a local copy of the base weights, where the recorded place has moved.

    Raises:
        UserError: what is found gives other states than the one it was trained on.
    """
    recorded = config["upstream"]
    keys = UpstreamKeys(
        **{name: recorded[name] for name in ("name", "path", "revision", "window", "dropout")}
    )
    if upstream_path is not None:
        keys.path = upstream_path
    upstream = upstream_of(keys)
    noted = ("weights", "loader", "options", "code")
    wrong = same_base({k: recorded[k] for k in noted if recorded[k] is not None}, upstream)
    if wrong:
        raise UserError(
            f"the base weights in {upstream.source} are not the ones that this checkpoint of "
            f"{keys.name} was trained on: {wrong}; give the same ones with --upstream-path, or "
            "train again"
        )
    return upstream


def restore(
    folder: Path, upstream_path: str | None = None, device: torch.device | str = "cpu"
) -> tuple[AdaptedModel, dict[str, Any]]:
    """Rebuild a trained model from a fold's folder; no seed and no default takes part in it.

    Args:
        folder: holds adapter.safetensors and adapter.json.
        upstream_path: a local copy of the base weights, where the recorded place has moved.
        device: where the model is put.

    Returns:
        the model in eval mode and the checkpoint's adapter.json (`AdapterConfig` as data).

    Raises:
        UserError: a damaged checkpoint, or base weights that are not the ones it was trained on.
    """
    tensors, config = read_adapter(folder)
    return rebuild(folder, tensors, config, upstream_path, device), config


def rebuild(
    place: Path,
    tensors: Mapping[str, Tensor],
    config: dict[str, Any],
    upstream_path: str | None = None,
    device: torch.device | str = "cpu",
) -> AdaptedModel:
    """The model that tensors and adapter.json describe; ``place``: for messages."""
    with _said_of(place):
        task = task_of(config["task"])
        methods = from_parts(config["method"]["parts"])
        _check_sizes(tensors, config)
    upstream = base_of(config, upstream_path)
    head = config["head"]
    sizes = {"width": upstream.width, "states": upstream.num_blocks + 1, "outputs": task.outputs}
    with _said_of(place), torch.random.fork_rng(devices=[]):
        for key, value in sizes.items():
            if head[key] != value:
                raise UserError(
                    f"key 'head.{key}' is {head[key]}, and upstream and task ask for {value}; "
                    "train again"
                )
        groups = [(group["name"], group["outputs"]) for group in head["groups"]]
        if groups and groups != list(task.output_groups):
            raise UserError("key 'head.groups' holds other groups than the task; train again")
        torch.manual_seed(config["seed"])  # counts for schema 1 only; else all of it is overwritten
        adaptation = adapt(upstream, methods, prove=False)
        model = assemble(adaptation, make_head(**head), config["upstream"]["dropout"])
        adaptation.check_peft(config["method"]["peft"])
        if config["seeded"]:
            tensors = model.kept_state() | dict(tensors)
        model.load_kept_state(tensors, later_stage=len(config["stages"]) > 1)
    return model.to(device).eval()


@contextlib.contextmanager
def _said_of(place: Path) -> Iterator[None]:
    """Have errors name the place that they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _check_sizes(tensors: Mapping[str, Tensor], config: dict[str, Any]) -> None:
    """Refuse a method that would need more memory than its own tensors tell of."""
    largest = max((n for t in tensors.values() for n in t.shape), default=0)
    for part in config["method"]["parts"]:
        for name, value in part["options"].items():
            size = type(value) is int and not any(word in name for word in NOT_SIZES)
            if size and value > max(largest, 4096):
                raise UserError(
                    f"the option {part['name']}:{name}={value} does not fit the tensors, "
                    f"whose largest dimension is {largest}; train again"
                )


def standardise_on(model: AdaptedModel, means: torch.Tensor | None) -> None:
    """Fit a standardising head to the training part's time means.

    Raises UserError when the upstream is not frozen, because its means change while it trains.
    """
    if model.head.standardise:
        if means is None:
            raise UserError(
                "head.standardise works on a frozen upstream only; set it to false, take -p none, "
                "or head.init=probe, which keeps to the frozen upstream's mean and deviation"
            )
        model.head.fit_standardisation(means)
