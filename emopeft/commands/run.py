"""EmoPEFT's command line: adapt a speech encoder to emotion recognition, fold by fold.

    python run_downstream.py -u hubert -d emotion -p lora --corpus iemocap --data DIR

Flags make a recipe (downstream/data/recipe.py), the recipe is run (downstream/runs/run.py), and
the table is shown (downstream/reports/show.py).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emopeft import __version__
from emopeft.errors import UserError

LISTS = ("upstreams", "methods", "corpora", "protocols")

# What each flag sets in the recipe.
FLAGS = {
    "upstream": "upstream.name",
    "task": "task",
    "method": "method",
    "corpus": "corpus.name",
    "data": "corpus.data",
    "protocol": "protocol",
    "fold": "folds",
    "upstream_path": "upstream.path",
    "name": "name",
    "out": "out",
    "tune": "train.tune",
}


def parser() -> argparse.ArgumentParser:
    """The flags, with help for each."""
    p = argparse.ArgumentParser(
        prog="run_downstream.py",
        description="Adapt a pretrained speech encoder to emotion recognition, fold by fold.",
        epilog="Without -m it trains and tests. --list shows upstreams, methods, corpora and "
        "protocols; README.md has examples.",
        allow_abbrev=False,
    )
    add = p.add_argument
    add("-u", dest="upstream", metavar="UPSTREAM", help="hubert, whisper_base, hf:ORG/NAME, ...")
    add("-d", dest="task", metavar="TASK", help="what is predicted: emotion")
    add("-p", dest="method", metavar="METHOD", help="none, lora, partial:3, lora+ws, ...")
    add("-c", dest="recipe", metavar="FILE", type=Path, help="a recipe (YAML)")
    add("--corpus", metavar="NAME", help="which corpus (default: iemocap)")
    add("--data", metavar="DIR", help="where it lies (or set EMOPEFT_<NAME>)")
    add("--protocol", metavar="NAME", help="which folds and classes (default: the corpus' own)")
    add("--fold", metavar="F", help="all, or names such as 1,3")
    add("--seed", metavar="S", help="0, or several: 0,1,2")
    add("--upstream-path", metavar="DIR", help="local weights, as written by save_pretrained")
    add("--tune", choices=("none", "lr"), help="lr: choose the learning rate on dev, per fold")
    add("-o", dest="override", metavar="KEY=VALUE", action="append", default=[],
        help="set any key of the recipe; may be repeated")  # fmt: skip
    add("-n", dest="name", metavar="NAME", help="name of the run's folder")
    add("--out", metavar="DIR", help="where runs are written (default: runs)")
    add("-m", dest="mode", choices=("train", "evaluate", "predict"), default="train",
        help="train and test (default), evaluate a run again, or predict")  # fmt: skip
    add("--run", metavar="DIR", type=Path, help="for evaluate and predict: the run's folder")
    add("--audio", metavar="PATH", type=Path, help="for predict: a file or a folder")
    add("--output", metavar="FILE", type=Path, help="for predict: .csv or .json (default: print)")
    add("--dry-run", action="store_true", help="show recipe, folds, sizes and cost; train nothing")
    add("--list", choices=LISTS, help="show what there is")
    add("--version", action="version", version=f"emopeft {__version__}")
    return p


def recipe_of(flags: argparse.Namespace) -> Any:
    """Defaults, recipe file, flags and -o, in this order, to a checked recipe."""
    from emopeft.downstream.data import recipe as recipes
    from emopeft.downstream.data.prepare import protocol_name
    from emopeft.peft_modules.base import kind_of, parse

    given: list[dict[str, Any]] = []
    if flags.recipe is not None:
        given.append(recipes.flatten(recipes.read_yaml(flags.recipe), str(flags.recipe)))
    set_by_flags = {key: getattr(flags, flag) for flag, key in FLAGS.items()}
    given.append({k: v for k, v in set_by_flags.items() if v is not None})
    if flags.seed is not None:
        given.append({"seeds": _whole_numbers("--seed", flags.seed)})
    given += [recipes.parse_override(text) for text in flags.override]

    first = recipes.build(recipes.merge(given))
    methods = parse(first.method)
    place = recipes.default_recipe(protocol_name(first), kind_of(methods))
    defaults = recipes.flatten(recipes.read_yaml(place), str(place))
    return recipes.validate(recipes.build(recipes.merge([defaults, *given])))


def _whole_numbers(flag: str, text: str) -> list[int]:
    try:
        return [int(x) for x in text.split(",")]
    except ValueError:
        raise UserError(f"{flag} {text} must be whole numbers such as 0 or 0,1,2") from None


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    flags = parser().parse_args(argv)
    from emopeft.downstream.reports import show

    if flags.list:
        print(show.listing(flags.list))
    elif flags.mode == "train":
        recipe = recipe_of(flags)
        if flags.dry_run:
            print(show.dry_run(recipe))
        else:
            from emopeft.downstream.runs.run import run

            record = run(recipe, command_of(argv))
            if int(os.environ.get("RANK", "0")) == 0:
                print(show.result(record, Path(recipe.out)))
    else:
        _use_checkpoint(flags)
    return 0


def _use_checkpoint(flags: argparse.Namespace) -> None:
    from emopeft.downstream.reports import show
    from emopeft.downstream.runs import apply_checkpoint

    place = flags.run
    if place is None and flags.name is not None:
        place = Path(flags.out or "runs") / flags.name
    if place is None:
        raise UserError(f"-m {flags.mode} needs --run DIR, the folder of a run")
    if flags.mode == "evaluate":
        results = apply_checkpoint.evaluate(
            place, flags.fold or "all", flags.upstream_path, flags.data
        )
        print(show.evaluation(results))
        return
    if flags.audio is None:
        raise UserError("-m predict needs --audio, a file or a folder")
    rows, _ = apply_checkpoint.predict(place, flags.audio, flags.fold, flags.upstream_path)
    text = apply_checkpoint.write_rows(rows, flags.output)
    print(text if flags.output is None else f"{len(rows)} predictions in {flags.output}")


def command_of(argv: Sequence[str]) -> str:
    """The command that repeats a run."""
    return shlex.join(["python", "run_downstream.py", *argv])


def entry_point() -> None:
    """The console command: user errors are one sentence and status 2."""
    # Libraries' advice to their own users is noise to ours.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where this one stopped", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    entry_point()
