"""``emopeft recipes [PAPER]``: which command repeats which experiment of a paper."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, filled


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    recipes = add_command(
        commands, "recipes", "papers, and the command that repeats each of their experiments", _show
    )
    recipes.add_argument(
        "paper", metavar="PAPER", nargs="?", type=filled, help="one of them (default: a list)"
    )


def _show(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.papers import list_papers, show_paper

    print(list_papers() if flags.paper is None else show_paper(flags.paper))
    return 0
