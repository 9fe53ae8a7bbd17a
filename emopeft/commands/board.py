"""``emopeft board``: the runs under a folder as ranked tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from emopeft.commands.parsing import Commands, add_command, path


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    board = add_command(
        commands, "board", "finished runs as ranked tables, one per protocol", _board,
        description="Gather finished runs into one table per protocol, counted again from their "
        "predictions. Exit status 1 when a record was refused.",
    )  # fmt: skip
    board.add_argument("runs", type=path, metavar="RUNS_DIR", help="holds runs, at any depth")
    board.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="for leaderboard.md and .json"
    )
    board.add_argument("--sort", metavar="METRIC", help="metric (default: the task's own)")


def _board(flags: argparse.Namespace) -> int:
    return write_board(flags.runs, flags.out, flags.sort)


def write_board(runs: Path, out: Path, sort: str | None = None) -> int:
    """Write OUT/leaderboard.md and OUT/leaderboard.json and show the tables.

    Status 1 when a record was refused (the page is written all the same and says why).
    """
    from emopeft.files import write_json, write_text
    from emopeft.leaderboard.gather import gather
    from emopeft.leaderboard.render import as_json, markdown, terminal

    board = gather(runs, sort)
    write_text(out / "leaderboard.md", markdown(board))
    write_json(out / "leaderboard.json", as_json(board))
    print(terminal(board))
    print(f"\nwritten: {out / 'leaderboard.md'}, {out / 'leaderboard.json'}")
    if board.refused:
        print(f"{len(board.refused)} record(s) refused", file=sys.stderr)
    return 1 if board.refused else 0
