"""``emopeft calibration``: how far the probabilities of finished runs can be trusted."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.showing import add_report_out, show

MOST_BINS = 1000


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    command = add_command(
        commands, "calibration", "can probabilities be trusted? ECE, NLL, a temperature of dev",
        _calibration,
        description="Of finished runs of one plan: ECE, Brier score, NLL, confidence against what "
        "is right, and what is right of the surest clips, before and after a temperature that is "
        "fitted on dev of each fold and seed; 95 % intervals over speakers. With the frozen probe "
        "(-p none) among them, the paired difference of each to it. With --out the numbers as CSV, "
        "too.",
    )  # fmt: skip
    command.add_argument("runs", metavar="RUN", type=path, nargs="+", help="finished runs")
    command.add_argument("--bins", metavar="N", type=_bins, default=15,
                         help="bins of equal mass for ECE (default: 15)")  # fmt: skip
    command.add_argument("--test", metavar="NAME", type=filled,
                         help="a test of the protocol (default: its first)")  # fmt: skip
    add_report_out(command, "calibration")


def _bins(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_BINS):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MOST_BINS}")
    return int(text)


def _calibration(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.calibration import calibration_sections
    from emopeft.downstream.reports.calibration_csv import write_numbers
    from emopeft.downstream.reports.calibration_numbers import calibrated

    found = calibrated(flags.runs, flags.bins, flags.test)
    show(flags, calibration_sections(found), "calibration")
    if flags.out is not None:
        print(", ".join(map(str, write_numbers(found, flags.out))))
    return 0
