"""``emopeft report PAPER RUNS``: a paper's numbers beside those of the runs at hand."""

from __future__ import annotations

import argparse
import sys

from emopeft.commands.parsing import Commands, add_command, filled, path


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    report = add_command(
        commands, "report", "a paper's numbers beside yours, and what has not been run", _report,
        description="Compare a paper's experiments (emopeft recipes PAPER) with the runs under "
        "RUNS_DIR: numbers counted again from predictions, the difference with its interval, and "
        "of what has not been run the command and the time that it would take here. Markdown. "
        "Exit status 1 when a record was refused.",
        epilog="Corpora are looked for where EMOPEFT_<NAME> says; see emopeft list corpora.",
    )  # fmt: skip
    report.add_argument("paper", metavar="PAPER", type=filled, help="superb, recipes/superb, DIR")
    report.add_argument("runs", metavar="RUNS_DIR", type=path, help="holds runs, at any depth")
    report.add_argument("--output", metavar="FILE.md", type=path,
                        help="where it is written (default: print)")  # fmt: skip
    report.add_argument(
        "--no-hours", action="store_true", help="do not measure how long the rest would take"
    )


def _report(flags: argparse.Namespace) -> int:
    from emopeft.downstream.data.papers import folder_of, read_paper
    from emopeft.files import write_text
    from emopeft.leaderboard.gather import gather
    from emopeft.leaderboard.papers import outcomes
    from emopeft.leaderboard.render_paper import markdown

    folder = folder_of(flags.paper)
    paper, board = read_paper(folder), gather(flags.runs)
    found = outcomes(folder, paper, board, None if flags.no_hours else _expected)
    text = markdown(folder.name, paper, found, board)
    if flags.output is None:
        print(text, end="")
    else:
        write_text(flags.output, text)
        print(f"written: {flags.output}")
    if board.refused:
        print(f"{len(board.refused)} record(s) refused", file=sys.stderr)
    return 1 if board.refused else 0


def _expected(recipe: object) -> str | float:
    """What a run of the recipe lacks here, or how many seconds it takes at most."""
    from emopeft.downstream.data.recipe import Recipe
    from emopeft.downstream.runs.expected import Trial, lacking
    from emopeft.errors import UserError

    assert isinstance(recipe, Recipe)
    if missing := lacking(recipe):
        return missing
    try:
        return Trial.of(recipe).cost().seconds
    except UserError as error:
        return f"it would not run: {error}"
