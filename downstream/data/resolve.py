"""From what a user says to the recipe that is run: defaults below it, ``--smoke`` above it.

A smoke run is the same recipe made small: it shows in seconds that a recipe runs to its end, and
its numbers mean nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.data.prepare import protocol_name
from emopeft.downstream.data.recipe import (
    Recipe,
    build,
    default_recipe,
    flatten,
    from_file,
    merge,
    parse_method,
    shipped,
    validate,
)
from emopeft.downstream.data.transfer import TransferKeys

Keys = dict[str, Any]  # with their dots

# Keys that name ratings; the smoke run keeps those that its corpus has.
RATINGS = ("labels.dimensions", "loss.dimension_weights")
# Where `emopeft demo` makes them, too.
DEMO_FOLDERS = {"demo": "demo_corpus", "demo-domains": "demo_domains"}


def resolve(layers: list[Keys], smoke: bool = False) -> Recipe:
    """The checked recipe of layers of keys (later ones win) over the defaults for its protocol.

    Args:
        smoke: make it small, see `smoke_keys`.

    Raises:
        UserError: naming the key that is wrong.
    """
    from emopeft.peft_modules.base import kind_of

    first = build(merge(layers))
    kind = kind_of(parse_method(first.method))
    keys = merge([from_file(default_recipe(protocol_name(first), kind)), *layers])
    if smoke:
        keys = merge([keys, smoke_keys(keys)])
    return validate(build(keys))


def smoke_keys(keys: Keys) -> Keys:
    """What a smoke run changes: ``recipes/smoke.yaml``, the place of the demo corpus
    ($EMOPEFT_DEMO, else ./demo_corpus), and of the ratings those that it has. A transfer's is that
    of two domains."""
    small = from_file(shipped("smoke.yaml"))
    if str(keys.get("protocol")).partition(":")[0] == "transfer":
        small |= from_file(shipped("smoke-transfer.yaml"))
    demo = CORPORA[small["corpus.name"]]
    small["corpus.data"] = os.environ.get(demo.environment) or DEMO_FOLDERS[demo.name]
    for name in RATINGS:
        asked = keys.get(name)
        if isinstance(asked, dict):
            small[name] = {rating: asked[rating] for rating in asked if rating in demo.scales}
        elif isinstance(asked, list):
            small[name] = [rating for rating in asked if rating in demo.scales]
    return small


def stage_keys(recipe: Recipe, keys: Mapping[str, Any], where: str, later: bool) -> TrainKeys:
    """The recipe's section ``train`` with the keys that a stage replaces.

    Args:
        where: they stand, for errors. later: whether the stage goes on from another.

    Raises:
        UserError: naming a key that is unknown, or does not fit.
    """
    whole = dataclasses.replace(recipe, transfer=TransferKeys())
    changed = flatten({"train": dict(keys)}, where)
    flat = merge([flatten(whole.to_dict(), "the recipe"), changed])
    return validate(build(flat), later).train
