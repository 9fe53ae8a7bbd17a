"""``emopeft card RUN``: all that is known of one run, on one page."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emopeft.commands.parsing import Commands, add_command, path
from emopeft.commands.run import add_upstream_path

if TYPE_CHECKING:
    from emopeft.downstream.reports.sections import Section

MARKDOWN, PAGE = "card.md", "card.html"


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    card = add_command(
        commands, "card", "one run on one page: where, for whom, how sure, how fast", _card,
        description="Where a finished run fails, for whom, under what (conditions that it was "
        "tested in: emopeft evaluate RUN --conditions standard), how sure it is, how fast: "
        f"{MARKDOWN} with pictures, and {PAGE}, which needs nothing beside itself.",
    )  # fmt: skip
    card.add_argument("run", metavar="RUN", type=path, help="a finished run")
    card.add_argument("--base", metavar="RUN", type=path,
                      help="the frozen probe (-p none) that it is compared with")  # fmt: skip
    card.add_argument("--layers", metavar="DIR", type=path,
                      help="what emopeft layers wrote of the same plan")  # fmt: skip
    card.add_argument("--no-delay", action="store_true", help="do not time the checkpoint")
    add_upstream_path(card)
    card.add_argument("--out", metavar="DIR", type=path,
                      help="where the card goes (default: RUN/card)")  # fmt: skip


def _card(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.page import write_page
    from emopeft.downstream.reports.run_card import run_card
    from emopeft.downstream.reports.sections import Section, write_markdown

    card = run_card(flags.run, flags.base, _delay(flags), _layers(flags))
    out: Path = flags.out or flags.run / "card"
    footer = "Made by `emopeft card` from the run's own files; every number can be made again."
    write_page(
        out / PAGE, card.sections, title=card.title, lead=card.lead, glance=card.glance,
        footer=footer,
    )  # fmt: skip
    first = Section(card.title, [card.lead, *card.glance])
    write_markdown(out / MARKDOWN, [first, *card.sections])
    print("\n".join([card.title, card.lead, *(f"- {sentence}" for sentence in card.glance)]))
    print(f"card: {out / PAGE}, {out / MARKDOWN}")
    return 0


def _delay(flags: argparse.Namespace) -> Callable[[], Sequence[Section]] | None:
    if flags.no_delay:
        return None

    def make() -> Sequence[Section]:
        from emopeft.downstream.reports.delay import delay_of

        return delay_of(flags.run, flags.upstream_path)

    return make


def _layers(flags: argparse.Namespace) -> Callable[[], Sequence[Section]] | None:
    if flags.layers is None:
        return None

    def make() -> Sequence[Section]:
        from emopeft.downstream.reports.layer_numbers import read_layers_in
        from emopeft.downstream.reports.layers import layers_sections

        return layers_sections(read_layers_in(flags.layers, flags.run, flags.base))

    return make
