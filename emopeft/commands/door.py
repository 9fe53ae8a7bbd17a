"""``emopeft COMMAND``: the one door to all that the harness does.

    emopeft run -u hubert -d emotion -p lora --corpus iemocap --data DIR

The card's command line, ``python run_downstream.py``, is `emopeft.commands.card`, and what
``python -m ROOM`` calls is `emopeft.commands.modules`; all three run the same functions.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from emopeft import __version__
from emopeft.commands import (
    board,
    cache,
    calibration,
    classes,
    conditions,
    corpora,
    delay,
    demo,
    groups,
    layers,
    listing,
    matrix,
    recipes,
    report,
    run,
    run_card,
    sharing,
    tradeoff,
)
from emopeft.commands.parsing import Parser
from emopeft.errors import UserError, unknown

GROUPS = (
    run,
    matrix,
    recipes,
    corpora,
    cache,
    sharing,
    board,
    report,
    groups,
    calibration,
    classes,
    conditions,
    delay,
    layers,
    run_card,
    tradeoff,
    listing,
    demo,
)


def parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of all subcommands, and their names."""
    top = Parser(
        prog="emopeft",
        description="Adapt a pretrained speech encoder to emotion recognition, fold by fold.",
        epilog="emopeft COMMAND --help says more; emopeft demo shows that all works.",
    )
    top.add_argument("--version", action="version", version=f"emopeft {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    for group in GROUPS:
        group.add_to(commands)
    return top, list(commands.choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line, as it would be typed after ``emopeft``; returns its status."""
    return guarded(_main, sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    top, names = parser()
    if not argv:
        top.print_help()
        return 0
    if list(argv) == ["run"]:  # an error about a corpus that nobody named helps no newcomer
        top.parse_args(["run", "--help"])
    first = argv[0]
    if first.startswith("-") and first not in ("-h", "--help", "--version"):
        raise UserError(f"give a command before {first}, such as: emopeft run {first} ...")
    if not first.startswith("-") and first not in names:
        raise unknown("command", first, names)
    flags = top.parse_args(argv)
    flags.argv = ["emopeft", *argv]
    return flags.function(flags)


def guarded(function: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """The status of ``function(argv)``; 2 and one sentence for whatever the user can mend."""
    # Libraries' advice to their own users is noise to ours.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a plain C terminal has no ±
        sys.stdout.reconfigure(errors="replace")
    try:
        check_text(argv)
        return function(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:  # its number, where the run has saved its state first
        print("\ninterrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def check_text(argv: Sequence[str]) -> None:
    """Arguments stand in records and tables: they must be UTF-8. Raises UserError."""
    for argument in argv:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"argument {ascii(argument)} is not UTF-8; rename the file or type it again"
            ) from None


def entry_point() -> None:
    """The console command."""
    sys.exit(main())
