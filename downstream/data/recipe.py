"""A recipe says what is run. It is resolved from defaults, a YAML file, flags and ``-o key=value``.

Every key is a field below or in ``keys.py``; an unknown one is an error that names it and the
nearest known ones, before anything is loaded. A file may say ``extends: PAPER/FILE.yaml``: it then
changes that recipe of this package. The defaults for a kind of method and a protocol stand in
``recipes/``.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from emopeft.downstream.data.agreement import (
    check_choice,
    check_clips,
    check_corpora,
    check_probe,
)
from emopeft.downstream.data.augment import check_augment
from emopeft.downstream.data.keys import (
    AugmentKeys,
    CacheKeys,
    ClipKeys,
    CorpusKeys,
    HeadKeys,
    Mapping,
    TrainKeys,
    UpstreamKeys,
)
from emopeft.downstream.data.transfer import TransferKeys, check_transfer
from emopeft.downstream.data.yaml_reader import MAX_BYTES, load_yaml
from emopeft.downstream.tasks.base import task_classes
from emopeft.downstream.tasks.keys import LabelKeys, LossKeys
from emopeft.errors import UserError, unknown
from emopeft.files import read_text
from emopeft.values import Range, checked, key

if TYPE_CHECKING:
    from emopeft.peft_modules.base import Method

EXTENDS = "extends"  # the key of a recipe file that names the shipped one which it changes
EXPERIMENTS = "experiments.yaml"  # a paper's, no recipe: downstream/data/papers.py
FOLDER = "recipes"  # as the shipped ones are written: recipes/PAPER/FILE.yaml

# numpy takes seeds below 2^32, and some streams add a little to the run's.
LARGEST_SEED = 4_000_000_000


# What a probe takes over from the run that starts from it: what is wanted of it, and how (not what)
# is computed.
SHARED_WITH_PROBE = (
    "select", "class_weights", "sampling", "corpora", "batch_seconds", "precision", "tf32",
    "deterministic",
)  # fmt: skip


@dataclasses.dataclass
class Recipe:
    upstream: UpstreamKeys = dataclasses.field(default_factory=UpstreamKeys)
    task: str = key("emotion", "what is predicted, see --list tasks; several: emotion+dimensional")
    corpus: CorpusKeys = dataclasses.field(default_factory=CorpusKeys)
    protocol: str | None = key(None, "see --list protocols; unset: the corpus' own")
    labels: LabelKeys = dataclasses.field(default_factory=LabelKeys)
    loss: LossKeys = dataclasses.field(default_factory=LossKeys)
    method: str = key("none", "see --list methods; sums: lora+ws; options: lora:r=16,targets=q+v")
    clips: ClipKeys = dataclasses.field(default_factory=ClipKeys)
    augment: AugmentKeys = dataclasses.field(default_factory=AugmentKeys)
    head: HeadKeys = dataclasses.field(default_factory=HeadKeys)
    train: TrainKeys = dataclasses.field(default_factory=TrainKeys)
    transfer: TransferKeys = dataclasses.field(default_factory=TransferKeys)
    cache: CacheKeys = dataclasses.field(default_factory=CacheKeys)
    folds: str = key("all", "all, or names such as 1,3")
    seeds: list[int] = key([0], "one run of all folds per seed", range=Range(0, LARGEST_SEED))
    name: str | None = key(None, "folder of the run under --out; unset: made from what is run")
    out: str = key("runs", "where runs are written")
    description: str = key("", "what this recipe is and where its numbers come from")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it would stand in YAML."""
        return dataclasses.asdict(self)


_hints = functools.cache(typing.get_type_hints)  # which is slow, and always the same


@functools.cache
def known_keys(cls: type = Recipe, prefix: str = "") -> tuple[str, ...]:
    """All keys with their dots: ``train.lr``."""
    keys: list[str] = []
    for name, field_type in _hints(cls).items():
        if dataclasses.is_dataclass(field_type):
            keys += known_keys(typing.cast(type, field_type), f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return tuple(keys)


def from_file(path: Path) -> dict[str, Any]:
    """The keys of a recipe file with their dots, over those of the recipe that it extends.

    Raises UserError naming file and key where it is no recipe, or extends none of this package.
    """
    data = read_yaml(path)
    base = data.pop(EXTENDS, None)
    flat = flatten(data, str(path))
    if base is None:
        return flat
    places = shipped(".").glob("*/*.yaml")
    known = [f"{p.parent.name}/{p.name}" for p in places if p.name != EXPERIMENTS]
    if base not in known:
        raise unknown(f"recipe that {path} extends", str(base)[:100], known)
    return merge([from_file(shipped(str(base))), flat])


def located(path: Path) -> Path:
    """Where a recipe file is: as it says, or, where there is none, of this package's own under
    ``recipes/``, so that the same command works in the checkout and beside an installed package."""
    inside = shipped("/".join(path.parts[1:]))
    ours = path.parts[:1] == (FOLDER,) and ".." not in path.parts and inside.is_file()
    return inside if ours and not path.exists() else path


def read_yaml(path: Path) -> dict[str, Any]:
    """A recipe file as nested data. Raises UserError naming the file (and line) when it is not."""
    return nested(read_text(path, MAX_BYTES), f"recipe {path}")


def nested(text: str, where: str) -> dict[str, Any]:
    """A recipe's text as nested data; raises UserError that begins with ``where``."""
    try:
        data = load_yaml(text, where)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {_reason(error)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{where} must hold keys and values, not a {type(data).__name__}")
    return data


def _reason(error: yaml.YAMLError) -> str:
    """What YAML says, on one line and printable."""
    return "".join(c if c.isprintable() else " " for c in " ".join(str(error).split()))[:300]


def flatten(data: Mapping, where: str, prefix: str = "") -> dict[str, Any]:
    """Nested data to dotted keys, each checked to be known."""
    known = known_keys()
    sections = {k.rpartition(".")[0] for k in known if "." in k}
    flat: dict[str, Any] = {}
    for name, value in data.items():
        dotted = f"{prefix}{name}"
        if dotted in known:
            flat[dotted] = value
        elif dotted in sections and isinstance(value, dict):
            flat |= flatten(value, where, f"{dotted}.")
        elif dotted in sections:
            raise UserError(
                f"key '{dotted}' in {where} is a section; give keys such as "
                f"{next(k for k in known if k.startswith(dotted + '.'))}"
            )
        else:
            raise _unknown_key(f"key in {where}", dotted, known)
    return flat


def _unknown_key(kind: str, name: str, known: Sequence[str]) -> UserError:
    """The error for a key that is not there; ``lr`` is answered with ``train.lr``."""
    ends = [k for k in known if "." in k and k.rpartition(".")[2] == name]
    if ends:
        return UserError(f"unknown {kind} '{name}': did you mean {', '.join(ends)}?")
    return unknown(kind, name[:100], known)


def parse_override(text: str) -> dict[str, Any]:
    """``key=value`` of ``-o``; the value is read as YAML, so ``null``, lists and numbers work."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"-o {text} must be key=value")
    name = name.strip()
    if name not in known_keys():
        raise _unknown_key("key in -o", name, known_keys())
    try:
        return {name: load_yaml(value, f"-o {name}")}
    except yaml.YAMLError:
        return {name: value}


def build(flat: Mapping, cls: type = Recipe, prefix: str = "") -> Any:
    """Dotted keys to a Recipe, every value checked for its type and choices."""
    values: dict[str, Any] = {}
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        dotted = prefix + field.name
        field_type = hints[field.name]
        if dataclasses.is_dataclass(field_type):
            values[field.name] = build(flat, typing.cast(type, field_type), dotted + ".")
        elif dotted in flat:
            values[field.name] = checked(dotted, flat[dotted], field_type, field)
    return cls(**values)


def shipped(relative: str) -> Path:
    """A recipe file of this package."""
    return Path(str(resources.files("emopeft.recipes"))) / relative


def default_recipe(protocol: str, kind: str) -> Path:
    """The shipped defaults for a protocol and a kind of method (frozen, peft, finetune).

    SUPERB's protocol is run as published; all others get lengths that suit small corpora, with
    early stopping on dev.
    """
    special = shipped(f"{protocol}/{kind}.yaml")
    named = Path(protocol).name == protocol  # not a file of the user's own
    return special if named and special.is_file() else shipped(f"default/{kind}.yaml")


def probe_keys(protocol: str, train: TrainKeys) -> TrainKeys:
    """How the frozen probe is trained that a head starts from (head.init=probe).

    As ``-p none`` on this protocol by default; only what says which probe is wanted is the run's.

    Args:
        protocol: as `default_recipe` takes it. train: of the run.
    """
    place = default_recipe(protocol, "frozen")
    defaults: Recipe = build(from_file(place))
    shared = {name: getattr(train, name) for name in SHARED_WITH_PROBE}
    return dataclasses.replace(defaults.train, **shared)


def parse_method(spec: str) -> list[Method]:
    """The methods of ``-p``; raises UserError naming what is wrong with the spelling."""
    from emopeft.peft_modules.base import parse  # loads torch, which reading a recipe does not need

    if "," in spec.partition(":")[0]:
        raise UserError(f"a sum of methods is written with +: {spec.replace(',', '+')}")
    return parse(spec)


def validate(recipe: Recipe, later: bool = False) -> Recipe:
    """Checks over several keys. Raises UserError naming the keys.

    Args:
        later: whether its section ``train`` is of a stage that goes on from another.
    """
    from emopeft.downstream.heads.base import HEADS
    from emopeft.peft_modules.base import FROZEN, kind_of

    train = recipe.train
    task_classes(recipe.task)
    if (train.steps is None) == (train.epochs is None):
        raise UserError("give train.steps or train.epochs, and set the other to null")
    if train.steps == 0 and not later and recipe.transfer.init_from is None:
        raise UserError("train.steps=0 trains nothing: it is for a stage that goes on from another")
    if train.loss_batch is not None and train.loss_batch > train.batch_size:
        raise UserError(
            f"train.loss_batch = {train.loss_batch} must be at most train.batch_size = "
            f"{train.batch_size}"
        )
    if train.class_weights != "none" and train.sampling != "none":
        raise UserError(
            f"train.class_weights={train.class_weights} and train.sampling={train.sampling} would "
            "correct for rare classes twice; set one of them to none"
        )
    check_corpora(recipe)
    check_clips(recipe.clips)
    check_augment(recipe.augment)
    methods = parse_method(recipe.method)
    if recipe.head.name not in HEADS:
        raise unknown("value of head.name", recipe.head.name, HEADS)
    if train.head_lr is not None and kind_of(methods) == FROZEN:
        raise UserError(
            f"train.head_lr is for methods that train the upstream; with -p {recipe.method} only "
            "the head trains: set train.lr"
        )
    check_choice(train)
    if recipe.head.init == "probe":
        check_probe(recipe, kind_of(methods) == FROZEN)
    check_transfer(recipe)
    for dotted, values in (("seeds", recipe.seeds), ("train.lr_grid", train.lr_grid)):
        if not values:
            raise UserError(f"{dotted} is empty; give at least one")
        if len(set(values)) < len(values):
            twice = next(v for i, v in enumerate(values) if v in values[:i])
            raise UserError(f"{dotted} holds {twice} twice; give it once")
    name = recipe.name
    if name is not None and (name != Path(name).name or name == ".." or "\n" in name):
        raise UserError(f"-n {name!r} must be a plain name; the place is given with --out")
    if name is not None and len(name.encode()) > 200:
        raise UserError(f"-n {name[:40]}... is longer than 200 bytes; shorten it")
    return recipe


def merge(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Later layers win. One that gives steps replaces epochs, and the other way round."""
    flat: dict[str, Any] = {}
    for layer in layers:
        for one, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
            if layer.get(one) is not None and layer.get(other) is None:
                flat[other] = None
        flat |= layer
    return flat
