"""``python -m leaderboard RUNS_DIR --out DIR``: the runs under a folder as ranked tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from emopeft.errors import UserError
from emopeft.files import write_json, write_text
from emopeft.leaderboard.gather import gather
from emopeft.leaderboard.render import as_json, markdown, terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Write DIR/leaderboard.md and DIR/leaderboard.json and show the tables.

    Returns the exit status: 0, 1 when a record was refused (the page is written all the same and
    says why), 2 on misuse.
    """
    parser = argparse.ArgumentParser(
        prog="python -m leaderboard",
        description="Gather finished runs into one table per protocol, counted again from their "
        "predictions. Exit status 1 when a record was refused.",
    )
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR", help="holds runs, at any depth")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for leaderboard.md and .json"
    )
    parser.add_argument("--sort", metavar="METRIC", help="metric (default: the task's own)")
    options = parser.parse_args(arguments)
    try:
        board = gather(options.runs, options.sort)
        write_text(options.out / "leaderboard.md", markdown(board))
        write_json(options.out / "leaderboard.json", as_json(board))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    encoding = sys.stdout.encoding or "utf-8"  # a plain C terminal has no ±
    print(terminal(board).encode(encoding, "replace").decode(encoding))
    print(f"\nwritten: {options.out / 'leaderboard.md'}, {options.out / 'leaderboard.json'}")
    if board.refused:
        print(f"{len(board.refused)} record(s) refused", file=sys.stderr)
    return 1 if board.refused else 0


if __name__ == "__main__":
    sys.exit(main())
