"""``emopeft list``: what there is."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command

LISTS = ("upstreams", "methods", "corpora", "protocols", "tasks")


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    listing = add_command(commands, "list", f"what there is: {', '.join(LISTS)}", _list)
    listing.add_argument("what", choices=LISTS, metavar="WHAT", help=", ".join(LISTS))


def _list(flags: argparse.Namespace) -> int:
    return show_list(flags.what)


def show_list(what: str) -> int:
    """Print one of the lists."""
    from emopeft.downstream.reports.listing import listing

    print(listing(what))
    return 0
