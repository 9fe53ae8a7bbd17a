"""``emopeft layers``: a probe on each state of a frozen encoder, beside their learned sum."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.run import add_places, add_upstream_path, recipe_of
from emopeft.commands.showing import show
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.data.recipe import Recipe

OUT = "runs/layers"
# Of a run these are its own; corpus.data and upstream.path may have moved.
OWN = ("upstream", "task", "recipe", "corpus", "protocol", "fold", "seed", "tune")
MOVED = ("corpus.", "cache.")


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    layers = add_command(
        commands, "layers", "which layers tell: a probe on each state of a frozen encoder", _layers,
        description="Train a frozen probe on every single state (head.layers=0, 1, ...) and on "
        "their learned weighted sum, all at once on features that are computed once, and show the "
        "metric by layer. Every probe is an ordinary run under --out; what is finished is not "
        "trained again. With RUN: on its encoder, corpus, folds and seeds, and beside it. Exit "
        "status 1 when a fold failed.",
    )  # fmt: skip
    add = layers.add_argument
    add("run", metavar="RUN", type=path, nargs="?", help="a finished run")
    add("-u", "--upstream", type=filled, metavar="NAME", help="hubert, whisper_base, ...")
    add("-d", "--task", type=filled, metavar="TASK", help="what is predicted: emotion")
    add("-c", "--recipe", metavar="FILE", type=path, help="a recipe of a frozen probe (YAML)")
    add("--corpus", type=filled, metavar="NAME", help="which corpus; several: a+b")
    add_places(layers, "where it lies (or set EMOPEFT_<NAME>)")
    add("--protocol", type=filled, metavar="NAME", help="which folds and classes")
    add("--fold", type=filled, metavar="F", help="all, or names such as 1,3")
    add("--seed", type=filled, metavar="S", help="0, or several: 0,1,2")
    add_upstream_path(layers)
    add("--tune", choices=("none", "lr"), help="lr: choose the learning rate on dev, per fold")
    add("-o", "--override", metavar="KEY=VALUE", action="append", default=[],
        help="set any key of the recipe; may be repeated")  # fmt: skip
    add("--metric", type=filled, metavar="NAME", help="that is drawn (default: the task's own)")
    add("-n", "--name", type=filled, metavar="NAME",
        help="folder of these runs under --out (default: made from what is run)")  # fmt: skip
    add("--out", type=path, metavar="DIR",
        help=f"holds the folder with runs, table, CSV and picture (default: {OUT})")  # fmt: skip


def _layers(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.layer_numbers import read_layers
    from emopeft.downstream.reports.layers import layers_sections, write_csv
    from emopeft.downstream.runs.layers import run_layers

    summed: Path | None = None
    if flags.run is not None:
        recipe, is_sum = _like(flags)
        summed = flags.run if is_sum else None
    else:
        recipe = _recipe(flags)
    done = run_layers(recipe, shlex.join(flags.argv), flags.recipe, summed, flags.metric)
    for failure in done.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if not done.complete:
        return 0  # another rank shows it, or other processes train the rest and say so
    layers = read_layers(done.states, done.summed, flags.run)
    sections = layers_sections(layers, flags.metric)
    flags.out = done.states[0].parent
    write_csv(flags.out / "layers.csv", layers)
    show(flags, sections, "layers")
    return 1 if done.failures else 0


def _recipe(flags: argparse.Namespace) -> Recipe:
    """What ``emopeft run -p none`` makes of the same flags."""
    if flags.upstream is None and flags.recipe is None:
        raise UserError("emopeft layers needs a run, or -u, -d, --corpus and --data as emopeft run")
    flags.method, flags.smoke, flags.init_from = None, False, None
    flags.out = str(flags.out or OUT)
    return recipe_of(flags)


def _like(flags: argparse.Namespace) -> tuple[Recipe, bool]:
    """The recipe of the run's probes, and whether the run is that of the weighted sum."""
    from emopeft.downstream.data import recipe as recipes
    from emopeft.downstream.runs.layers import recipe_like

    given = [name for name in OWN if getattr(flags, name) is not None]
    if given:
        raise UserError(
            f"--{given[0]} is the run's own; leave it out, or leave RUN out and say all of it"
        )
    keys: dict[str, Any] = {}
    for text in flags.override:
        keys |= recipes.parse_override(text)
    if other := [key for key in keys if not key.startswith(MOVED)]:
        raise UserError(
            f"-o {other[0]} is the run's own; with RUN only corpus.* and cache.* change"
        )
    recipe, is_sum = recipe_like(flags.run, keys, flags.data, flags.upstream_path)
    out, name = str(flags.out or OUT), flags.name or flags.run.resolve().name
    return dataclasses.replace(recipe, out=out, name=name), is_sum
