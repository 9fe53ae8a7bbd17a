"""Trained adapters as directories for the hub.

python -m peft_modules export RUN_OR_FOLD OUT     adapter, head, labels, model card
python -m peft_modules import DIR OUT             back to a fold's folder
python -m peft_modules merge RUN_OR_FOLD OUT      a plain full model, where possible
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from emopeft.errors import UserError


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m peft_modules", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help in (
        ("export", "write a directory for the hub"),
        ("import", "turn one back into a fold's folder"),
        ("merge", "write a plain full model"),
    ):
        command = commands.add_parser(name, help=help)
        command.add_argument("place", type=Path, metavar="FROM")
        command.add_argument("out", type=Path, metavar="OUT")
        if name != "import":
            command.add_argument("--fold", help="of a run's folder; default: its first finished")
            command.add_argument("--upstream-path", metavar="DIR", help="the base weights")
    given = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        from emopeft.downstream.sharing import hub

        if given.command == "import":
            hub.import_(given.place, given.out)
            print(
                f"{given.out}: use it with run_downstream.py -m predict --run {given.out} --audio "
                "CLIPS (and --upstream-path DIR where the base weights are not the hub's)"
            )
        else:
            write = hub.export if given.command == "export" else hub.merge
            files = write(given.place, given.out, given.fold, given.upstream_path)
            print(f"{given.out}: {', '.join(files)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
