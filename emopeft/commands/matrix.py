"""``emopeft matrix``: each of several corpora trained on, all of them tested on, by each method."""

from __future__ import annotations

import argparse
import copy
import logging
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.run import add_places, add_upstream_path, recipe_of
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.data.recipe import Recipe

logger = logging.getLogger(__name__)
METHODS = "none,partial:2,lora"
OUT = "runs/matrix"


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    matrix = add_command(
        commands, "matrix", "train on each of several corpora, test on all: table and heat map",
        _matrix,
        description="Run the protocol `away` from each corpus with each method (finished runs are "
        "kept), then gather them: UAR at home and away, and what each method gains over the frozen "
        "probe. With RUNs, only gather these. Exit status 1 when a run failed.",
    )  # fmt: skip
    add = matrix.add_argument
    add(
        "runs", metavar="RUN", type=path, nargs="*", help="finished runs, or folders that hold some"
    )
    add("--corpus", type=filled, metavar="A+B", help="the corpora, such as ravdess+emodb")
    add_places(matrix, "where they lie")
    add("--classes", metavar="A+B", type=filled, help="some of the classes that all of them share")
    add("-p", "--methods", metavar="METHODS", type=filled, default=METHODS,
        help=f"with commas between them (default: {METHODS})")  # fmt: skip
    add("-u", "--upstream", metavar="NAME", type=filled, help="hubert, whisper_base, ...")
    add("-c", "--recipe", metavar="FILE", type=path, help="a recipe for all of them (YAML)")
    add("-o", "--override", metavar="KEY=VALUE", action="append", default=[],
        help="set any key of the recipe; may be repeated")  # fmt: skip
    add("--fold", type=filled, metavar="F", help="all, or names such as 1,3 (gathered when whole)")
    add("--seed", type=filled, metavar="S", help="0, or several: 0,1,2")
    add_upstream_path(matrix)
    add("--out", type=path, metavar="DIR", help=f"for runs, table and pictures (default: {OUT})")
    add("--only-gather", action="store_true", help="run nothing; gather what is under --out")


def _matrix(flags: argparse.Namespace) -> int:
    out = flags.out or Path(OUT)
    failed = [] if flags.runs or flags.only_gather else _run_all(flags, out)
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    gather(flags.runs or [out], out)
    return 1 if failed else 0


def gather(runs: list[Path], out: Path) -> None:
    """Write OUT/matrix.md, matrix.json and the pictures, and show the tables."""
    from emopeft.leaderboard.matrix import gather_matrix
    from emopeft.leaderboard.matrix_render import terminal, write_matrix

    matrix = gather_matrix(runs)
    print(terminal(matrix))
    written = write_matrix(matrix, out)
    print(f"\nwritten: {', '.join(map(str, written))}")


def split_methods(text: str) -> list[str]:
    """``none,lora:r=4,targets=q+v`` at the commas that stand before a method, each once."""
    methods: list[str] = []
    for item in filled(text).split(","):
        if methods and re.match(r"\s*\w+\s*=", item):  # an option of the method before it
            methods[-1] += f",{item.strip()}"
        elif item := item.strip():
            methods.append(item)
    if twice := [m for m in methods if methods.count(m) > 1]:
        raise UserError(f"-p names the method {twice[0]} twice; give each once")
    return methods


def _run_all(flags: argparse.Namespace, out: Path) -> list[str]:
    """Run every home with every method; returns the names of those that failed."""
    names = [name.strip() for name in (flags.corpus or "").split("+")]
    if len(names) < 2:
        raise UserError(
            "emopeft matrix needs two corpora at least: --corpus ravdess+emodb --data ravdess=DIR "
            "--data emodb=DIR; or name finished runs"
        )
    pairs = [(home, method) for home in names for method in split_methods(flags.methods)]
    recipes = {pair: _recipe(flags, out, *pair) for pair in pairs}  # what is wrong is told at once
    failed = []
    for number, ((home, method), recipe) in enumerate(recipes.items(), start=1):
        name = f"{method} on {home}"
        print(f"{number} of {len(recipes)}: {name}", file=sys.stderr)
        if not _finished(flags, name, recipe):
            failed.append(name)
    return failed


def _finished(flags: argparse.Namespace, name: str, recipe: Recipe) -> bool:
    """Run one of them; False where it failed, so that a night's work does not end with it."""
    from emopeft.downstream.runs.run import run

    try:
        record = run(recipe, shlex.join(flags.argv), flags.recipe)
    except UserError as error:
        logger.error("%s: %s", name, error)
        return False
    except Exception:
        logger.exception("%s failed", name)
        return False
    return not any(fold["status"] == "failed" for fold in record.get("folds", []))


def _recipe(flags: argparse.Namespace, out: Path, home: str, method: str) -> Recipe:
    """The recipe of one run: what ``emopeft run`` makes of the same flags."""
    own = copy.copy(flags)
    own.method, own.out, own.smoke = method, str(out), False
    own.task = own.name = own.tune = None
    classes = f",classes={flags.classes}" if flags.classes else ""
    own.protocol = f"away:home={home}{classes}"
    return recipe_of(own)
