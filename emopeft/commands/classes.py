"""``emopeft classes``: a finished run, class by class."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.showing import add_report_out, show


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    command = add_command(
        commands, "classes", "a run class by class: recall, F1, EER, what is taken for what",
        _classes,
        description="Of a finished run: recall, precision, F1 and EER of each class with 95 % "
        "intervals over speakers, micro, macro and weighted F1, top-2 accuracy and macro EER over "
        "folds and on all of them together, and the confusion in shares of the truth. With --out "
        "the numbers as CSV, too.",
    )  # fmt: skip
    command.add_argument("run", metavar="RUN", type=path, help="a finished run")
    command.add_argument("--test", metavar="NAME", type=filled,
                         help="a test of the protocol (default: its first)")  # fmt: skip
    add_report_out(command, "classes")


def _classes(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.confusion import (
        class_by_class,
        confusion_sections,
        write_class_numbers,
    )

    found = class_by_class(flags.run, flags.test)
    show(flags, confusion_sections(found), "classes")
    if flags.out is not None:
        print(", ".join(map(str, write_class_numbers(found, flags.out))))
    return 0
