"""``emopeft evaluate RUN --conditions ...``, and ``emopeft conditions``: what came of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.showing import add_report_out, show
from emopeft.errors import UserError


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    command = add_command(
        commands, "conditions", "how far noise, rooms, telephones, ... bring runs down",
        _conditions,
        description="Finished runs of one plan in the conditions that evaluate RUN --conditions "
        "tested them in: the main metric, what each condition costs, and whether an adapted "
        "encoder loses more than the frozen one (a run of -p none among them), with intervals "
        "over speakers.",
        epilog="With --out DIR also DIR/conditions.csv, which has every number; see "
        "docs/conditions.md.",
    )  # fmt: skip
    add = command.add_argument
    add("runs", metavar="RUN", type=path, nargs="+", help="finished runs of one plan")
    add("--base", metavar="RUN", type=path,
        help="the run that the others are compared with (default: the one of -p none)")  # fmt: skip
    add("--test", metavar="NAME", type=filled,
        help="which of the plan's tests (default: the main one)")  # fmt: skip
    add_report_out(command, "conditions")


def add_conditions_flag(parser: argparse.ArgumentParser) -> None:
    """``--conditions`` of an evaluation."""
    parser.add_argument(
        "--conditions", metavar="SET,VIEW,...", type=filled,
        help="evaluate: test the run's own tests in these, too, and keep what is predicted: sets "
        "(standard, noise, babble, room, channel, short) and views, with , or | between them, such "
        "as noise,telephone,noise:snr=5,kind=pink,excerpt:seconds=1.5 (what has a = but no : "
        "before it belongs to the view before it)",
    )  # fmt: skip


def words_of(text: str) -> list[str]:
    """The sets and views of ``--conditions``; ``noise:snr=5,kind=pink`` is one.

    Raises:
        UserError: a piece is empty.
    """
    words: list[str] = []
    for part in text.split("|"):
        own: list[str] = []
        for piece in part.split(","):
            if not piece.strip():
                raise UserError(f"--conditions {text}: a name is empty; take the comma away")
            if own and "=" in piece and ":" not in piece.partition("=")[0]:
                own[-1] += f",{piece}"
            else:
                own.append(piece)
        words += own
    return [word.strip() for word in words]


def evaluate_conditions(flags: argparse.Namespace, place: Path, fold: str, seed: int | None) -> int:
    """Test a run in conditions, and show what came of it."""
    from emopeft.downstream.reports.tested import tested_table
    from emopeft.downstream.runs.conditions import test_conditions
    from emopeft.downstream.views.conditions import conditions

    given = ("corpus", "labels", "leaks", "output", "override")
    if other := [name for name in given if getattr(flags, name, None)]:
        raise UserError(
            f"--{other[0]} does not go with evaluate --conditions, which tests the run's own tests"
        )
    views = conditions(words_of(flags.conditions))
    if not views:
        raise UserError(
            f"--conditions {flags.conditions}: the clean tests are in the run already; name others"
        )
    found, notes = test_conditions(place, views, fold, flags.upstream_path, flags.data, seed)
    print(tested_table(found, notes))
    return 0


def _conditions(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.condition_table import csv_text
    from emopeft.downstream.reports.conditions import conditions_sections, gather_conditions
    from emopeft.files import write_text

    found = gather_conditions(flags.runs, flags.base, flags.test or "")
    if not found.names:
        raise UserError(" ".join(found.notes))
    show(flags, conditions_sections(found), "conditions")
    if flags.out is not None:
        write_text(flags.out / "conditions.csv", csv_text(found))
        print(f"every number: {flags.out / 'conditions.csv'}")
    return 0
