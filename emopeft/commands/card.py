"""The card's command line: ``python run_downstream.py -u hubert -d emotion -p lora``.

One flat set of flags, with ``-m evaluate`` and ``-m predict``; the functions are those of
``emopeft run``, ``evaluate``, ``predict`` and ``list``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from emopeft import __version__
from emopeft.commands import run
from emopeft.commands.conditions import add_conditions_flag
from emopeft.commands.door import guarded
from emopeft.commands.listing import LISTS, show_list
from emopeft.commands.parsing import Parser, path
from emopeft.commands.zero_shot import add_zero_shot_flags
from emopeft.errors import UserError


def parser() -> argparse.ArgumentParser:
    """The flags, with help for each."""
    p = Parser(
        prog="run_downstream.py",
        description="Adapt a pretrained speech encoder to emotion recognition, fold by fold.",
        epilog="Without -m it trains and tests. --list shows what there is; README.md has "
        "examples. The same as `emopeft run`, `evaluate`, `predict` and `list`.",
    )
    run.add_run_flags(p)
    add = p.add_argument
    add("-m", "--mode", choices=("train", "evaluate", "predict"), default="train",
        help="train and test (default), evaluate a run again, or predict")  # fmt: skip
    add("--run", metavar="DIR", type=path, help="for evaluate and predict: the run's folder")
    add("--audio", metavar="PATH", type=path, help="for predict: a file or a folder")
    run.add_output(p)
    add_zero_shot_flags(p)
    add_conditions_flag(p)
    add("--list", choices=LISTS, help="show what there is")
    add("--version", action="version", version=f"emopeft {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line; returns the exit status."""
    return guarded(_main, sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    if not argv:
        parser().print_help()
        return 0
    flags = parser().parse_args(argv)
    if flags.list:
        return show_list(flags.list)
    if flags.mode == "train":
        return run.train(flags, shlex.join(["python", "run_downstream.py", *argv]))
    place = flags.run
    if place is None and flags.name is not None:
        place = Path(flags.out or "runs") / flags.name
    if place is None:
        raise UserError(f"-m {flags.mode} needs --run DIR, the folder of a run")
    if flags.mode == "evaluate":
        return run.evaluate(flags, place)
    if flags.audio is None:
        raise UserError("-m predict needs --audio, a file or a folder")
    return run.predict(flags, place)


def entry_point() -> None:
    """The script."""
    sys.exit(main())
