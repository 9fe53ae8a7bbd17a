"""How commands that report on finished runs show it: on the terminal, and into a folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from emopeft.commands.parsing import path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emopeft.downstream.reports.sections import Section


def add_report_out(parser: argparse.ArgumentParser, name: str) -> None:
    """``--out DIR``."""
    parser.add_argument(
        "--out", metavar="DIR", type=path,
        help=f"write {name}.md and its pictures there, too (needs emopeft[plots])",
    )  # fmt: skip


def show(flags: argparse.Namespace, sections: Sequence[Section], name: str) -> None:
    """Print the sections; with ``--out`` write them to NAME.md in that folder."""
    from emopeft.downstream.reports.sections import terminal, write_markdown

    print(terminal(sections))
    if flags.out is not None:
        files = write_markdown(flags.out / f"{name}.md", sections)
        print(f"\nwritten: {', '.join(str(file) for file in files)}")
