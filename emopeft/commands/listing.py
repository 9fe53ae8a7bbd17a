"""``emopeft list``: what there is."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, filled
from emopeft.errors import UserError

LISTS = ("upstreams", "methods", "corpora", "protocols", "tasks", "views")


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    listing = add_command(commands, "list", f"what there is: {', '.join(LISTS)}", _list)
    listing.add_argument("what", choices=LISTS, metavar="WHAT", help=", ".join(LISTS))
    listing.add_argument(
        "name", nargs="?", metavar="NAME", type=filled, help="corpora: all of this one"
    )


def _list(flags: argparse.Namespace) -> int:
    return show_list(flags.what, flags.name)


def show_list(what: str, name: str | None = None) -> int:
    """Print one of the lists, or all that is known of one corpus."""
    from emopeft.downstream.reports.listing import listing

    if name is not None and what != "corpora":
        raise UserError(f"`emopeft list {what}` takes no NAME; only corpora have more to show")
    print(listing(what, name))
    return 0
