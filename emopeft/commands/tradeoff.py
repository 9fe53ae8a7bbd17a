"""``emopeft tradeoff``: what runs of one transfer plan gain, and what they forget for it."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, path


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    command = add_command(
        commands, "tradeoff", "gain and forgetting of two-stage runs: table and picture", _tradeoff,
        description="Gain in the target against forgetting of the source, of finished runs of one "
        "plan with two stages. Runs that trained one domain alone, or both as one, are compared "
        "with the source's end of the others.",
    )  # fmt: skip
    command.add_argument("runs", metavar="RUN", type=path, nargs="+", help="finished runs")
    command.add_argument("--output", metavar="FILE", type=path,
                         help="a picture: .svg, .png or .pdf (needs emopeft[plots])")  # fmt: skip


def _tradeoff(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.tradeoff import tradeoff

    print(tradeoff(flags.runs, flags.output))
    return 0
