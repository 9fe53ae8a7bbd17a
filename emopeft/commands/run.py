"""``emopeft run``, ``evaluate`` and ``predict``: training, and what is done with its checkpoints.

Flags make a recipe (downstream/data/recipe.py), the recipe is run (downstream/runs/run.py), and
the table is shown (downstream/reports/).
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopeft.commands.conditions import add_conditions_flag, evaluate_conditions
from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.zero_shot import add_zero_shot_flags, zero_shot
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.data.recipe import Recipe

# What each flag sets in the recipe.
FLAGS = {
    "upstream": "upstream.name",
    "task": "task",
    "method": "method",
    "corpus": "corpus.name",
    "protocol": "protocol",
    "fold": "folds",
    "upstream_path": "upstream.path",
    "name": "name",
    "out": "out",
    "tune": "train.tune",
    "init_from": "transfer.init_from",
}


def add_to(commands: Commands) -> None:
    """Add the subcommands."""
    running = add_command(
        commands, "run", "train and test: a recipe over the folds of a protocol", _run,
        epilog="emopeft list shows upstreams, methods, corpora, protocols and tasks; README.md "
        "has examples.",
    )  # fmt: skip
    add_run_flags(running)

    evaluating = add_command(
        commands, "evaluate", "test a run again, from its checkpoints", _evaluate
    )
    evaluating.add_argument("run", metavar="RUN", type=path, help="the run's folder")
    add_places(evaluating, "where the corpus lies")
    evaluating.add_argument(
        "--corpus", metavar="NAME", type=filled,
        help="others than the run's own, all of each: zero-shot",
    )  # fmt: skip
    evaluating.add_argument(
        "-o", "--override", metavar="KEY=VALUE", action="append", default=[],
        help="with --corpus: corpus.options, corpus.allow_incomplete",
    )  # fmt: skip
    add_zero_shot_flags(evaluating)
    add_conditions_flag(evaluating)
    add_output(evaluating)
    predicting = add_command(commands, "predict", "what a run's model says of clips", _predict)
    predicting.add_argument("run", metavar="RUN", type=path, help="a run's or a fold's folder")
    predicting.add_argument("audio", metavar="AUDIO", type=path, help="a file or a folder")
    add_output(predicting)
    for command in (evaluating, predicting):
        command.add_argument("--fold", metavar="F", type=filled, help="all, or names such as 1,3")
        command.add_argument("--seed", metavar="S", type=filled, help="of several: this one")
        add_upstream_path(command)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of ``run``, which are those of the card, too."""
    add = parser.add_argument
    add(
        "-u",
        "--upstream",
        type=filled,
        metavar="NAME",
        help="hubert, whisper_base, hf:ORG/NAME, ...",
    )
    add("-d", "--task", type=filled, metavar="TASK", help="what is predicted: emotion")
    add("-p", "--method", type=filled, metavar="METHOD", help="none, lora, partial:3, lora+ws, ...")
    add("-c", "--recipe", metavar="FILE", type=path, help="a recipe (YAML); see emopeft recipes")
    add(
        "--corpus",
        type=filled,
        metavar="NAME",
        help="which corpus (default: iemocap); several: a+b",
    )
    add_places(parser, "where it lies (or set EMOPEFT_<NAME>)")
    add(
        "--protocol",
        type=filled,
        metavar="NAME",
        help="which folds and classes (default: the corpus' own)",
    )
    add("--fold", type=filled, metavar="F", help="all, or names such as 1,3")
    add("--seed", type=filled, metavar="S", help="0, or several: 0,1,2")
    add_upstream_path(parser)
    add("--tune", choices=("none", "lr"), help="lr: choose the learning rate on dev, per fold")
    add("--init-from", metavar="RUN", type=filled, help="go on from a finished run's checkpoints")
    add(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="set any key of the recipe; may be repeated",
    )
    add("-n", "--name", type=filled, metavar="NAME", help="name of the run's folder")
    add("--out", type=filled, metavar="DIR", help="where runs are written (default: runs)")
    add("--dry-run", action="store_true", help="show recipe, folds, sizes and cost; train nothing")
    add(
        "--smoke",
        action="store_true",
        help="try the recipe: two steps of a tiny encoder on the demo corpus, all else as it is",
    )


def add_upstream_path(parser: argparse.ArgumentParser) -> None:
    """``--upstream-path``."""
    parser.add_argument("--upstream-path", type=filled, metavar="DIR",
                        help="local weights, as written by save_pretrained")  # fmt: skip


def add_places(parser: argparse.ArgumentParser, what: str) -> None:
    """``--data``."""
    parser.add_argument(
        "--data", metavar="[NAME=]DIR", type=filled, action="append",
        help=f"{what}; of several corpora: NAME=DIR for each, or a DIR with a folder for each",
    )  # fmt: skip


def add_output(parser: argparse.ArgumentParser) -> None:
    """``--output``."""
    parser.add_argument("--output", metavar="FILE", type=path,
                        help="where predictions go: .csv or .json (default: print)")  # fmt: skip


def recipe_of(flags: argparse.Namespace) -> Recipe:
    """Defaults, recipe file, flags and -o, in this order, to a checked recipe."""
    from emopeft.downstream.data import recipe as recipes
    from emopeft.downstream.data.places import places_of
    from emopeft.downstream.data.prepare import choose_corpora
    from emopeft.downstream.data.resolve import resolve

    layers: list[dict[str, Any]] = []
    if flags.recipe is not None:
        layers.append(recipes.from_file(recipes.located(flags.recipe)))
    set_by_flags = {key: getattr(flags, flag, None) for flag, key in FLAGS.items()}
    layers.append({k: v for k, v in set_by_flags.items() if v is not None})
    if flags.seed is not None:
        layers.append({"seeds": _whole_numbers("--seed", flags.seed)})
    overrides = [recipes.parse_override(text) for text in flags.override]
    if flags.data is not None:
        layers.append({"corpus.data": flags.data[0]})  # that there is one decides, too
        chosen = choose_corpora(recipes.build(recipes.merge([*layers, *overrides])))
        layers.append({"corpus.data": places_of(flags.data, [c.name for c in chosen])})
    return resolve([*layers, *overrides], flags.smoke)


def _whole_numbers(flag: str, text: str) -> list[int]:
    try:
        return [int(x) for x in text.split(",")]
    except ValueError:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise UserError(f"{flag} {shown} must be whole numbers such as 0 or 0,1,2") from None


def _run(flags: argparse.Namespace) -> int:
    return train(flags, shlex.join(flags.argv))


def train(flags: argparse.Namespace, command: str) -> int:
    """Train and test what the flags say, or show what it would be; ``command`` is recorded."""
    recipe = recipe_of(flags)
    if flags.smoke:
        from emopeft.commands.demo import make_demo  # which imports this module

        make_demo(str(recipe.corpus.name), Path(str(recipe.corpus.data)))
    if flags.dry_run:
        from emopeft.downstream.reports.dry_run import dry_run

        print(dry_run(recipe))
        return 0
    from emopeft.downstream.reports.results import result
    from emopeft.downstream.runs.run import run

    record = run(recipe, command, flags.recipe)
    if not record:
        return 0  # another rank shows it, or other processes train all folds and say so
    print(result(record, Path(recipe.out)))
    # That a fold failed is told by the status, too; its reason stands in the table.
    return 1 if any(fold["status"] == "failed" for fold in record["folds"]) else 0


def _evaluate(flags: argparse.Namespace) -> int:
    return evaluate(flags, flags.run)


def evaluate(flags: argparse.Namespace, place: Path) -> int:
    """Test the folds of a run again and show how far they are from what was recorded; or, with
    ``--corpus``, on other corpora; or, with ``--conditions``, in noise, rooms, ..."""
    seed, fold = one_seed(flags.seed), flags.fold or "all"
    from emopeft.downstream.reports.results import evaluation
    from emopeft.downstream.runs.evaluate import evaluate as test_again
    from emopeft.downstream.runs.evaluate import recipe_of_run

    own = recipe_of_run(place).corpus.name
    if flags.conditions is not None:
        flags.corpus = None if flags.corpus == own else flags.corpus
        return evaluate_conditions(flags, place, fold, seed)
    if flags.corpus not in (None, own):
        return zero_shot(flags, place, fold, seed)
    if flags.labels or flags.leaks or flags.output:
        raise UserError("--labels, --leaks and --output go with evaluate --corpus OTHER")
    print(evaluation(test_again(place, fold, flags.upstream_path, flags.data, seed)))
    return 0


def _predict(flags: argparse.Namespace) -> int:
    return predict(flags, flags.run)


def predict(flags: argparse.Namespace, place: Path) -> int:
    """Predictions of a fold's model on files of any place; those made are kept if it is stopped."""
    from emopeft.downstream.runs.predict import predict as predictions
    from emopeft.downstream.runs.predict import write_rows

    seed, rows = one_seed(flags.seed), []
    try:
        for row in predictions(place, flags.audio, flags.fold, flags.upstream_path, seed):
            rows.append(row)
    finally:
        if rows:
            text = write_rows(rows, flags.output)
            print(text if flags.output is None else f"{len(rows)} rows in {flags.output}")
    without = [r for r in rows if not any(v for k, v in r.items() if k not in ("path", "note"))]
    return 1 if without else 0  # why is said in each one's note


def one_seed(text: str | None) -> int | None:
    """The one seed of ``--seed``, where it chooses a checkpoint; None: any."""
    if text is None:
        return None
    seeds = _whole_numbers("--seed", text)
    if len(seeds) > 1:
        raise UserError(f"--seed {text} names several checkpoints; give one, or leave it out")
    return seeds[0]
