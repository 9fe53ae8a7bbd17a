"""``emopeft groups``: for whom finished runs fail, and whether adapting widens the gap."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.showing import add_report_out, show


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    groups = add_command(
        commands, "groups", "for whom runs fail: groups, fairness, and the frozen probe's gap",
        _groups,
        description="UAR, recall and CCC of groups of speakers in finished runs of one plan, with "
        "intervals over speakers, fairness measures, and whether each run widens the gap that the "
        "frozen encoder's probe has (a run of -p none among them). From predictions alone.",
        epilog="With --out DIR also DIR/groups.csv, which has every number; see docs/groups.md.",
    )  # fmt: skip
    add = groups.add_argument
    add("runs", metavar="RUN", type=path, nargs="+", help="finished runs of one plan")
    add("--by", metavar="TRAIT,...", type=filled,
        help="sex, age, race, ethnicity, language, corpus, style, ... or speaker (default: every "
        "known trait that makes several groups)")  # fmt: skip
    add("--bands", metavar="TRAIT=N,N,...", action="append", default=[],
        help="where bands of a trait in numbers begin (default: age=18,30,45,60)")  # fmt: skip
    add("--least", metavar="N", type=int, default=5,
        help="speakers that a group must have to be given a number (default: 5)")  # fmt: skip
    add("--base", metavar="RUN", type=path,
        help="the run that the others are compared with (default: the one of -p none)")  # fmt: skip
    add("--test", metavar="NAME", type=filled,
        help="which of the plan's tests (default: the main one)")  # fmt: skip
    add_report_out(groups, "groups")


def _groups(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.group_table import csv_text
    from emopeft.downstream.reports.grouping import BANDS, bands_of
    from emopeft.downstream.reports.groups import gather_groups, groups_sections
    from emopeft.errors import UserError
    from emopeft.files import write_text

    by = [name.strip() for name in (flags.by or "").split(",")]
    if flags.by and not all(by):
        raise UserError(f"--by {flags.by}: a name is empty; give traits with commas between them")
    groups = gather_groups(
        flags.runs, by if flags.by else (), {**BANDS, **bands_of(flags.bands)}, flags.least,
        flags.base, flags.test or "",
    )  # fmt: skip
    show(flags, groups_sections(groups), "groups")
    if flags.out is not None:
        write_text(flags.out / "groups.csv", csv_text(groups))
        print(f"every number: {flags.out / 'groups.csv'}")
    return 0
