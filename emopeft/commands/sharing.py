"""``emopeft export``, ``import`` and ``merge``: trained adapters as directories for the hub."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.run import add_upstream_path, one_seed


def add_to(commands: Commands) -> None:
    """Add the subcommands."""
    exporting = add_command(
        commands, "export", "adapter, head, labels and model card as a directory", _export
    )
    importing = add_command(commands, "import", "an exported directory as a fold's folder", _import)
    merging = add_command(commands, "merge", "a plain full model, where the method can", _merge)
    for command in (exporting, importing, merging):
        command.add_argument("place", type=path, metavar="FROM",
                             help="an exported directory" if command is importing
                             else "a run's or a fold's folder")  # fmt: skip
        command.add_argument("out", type=path, metavar="OUT", help="a new directory")
    for command in (exporting, merging):
        command.add_argument("--fold", type=filled, metavar="F",
                             help="of a run's folder; default: its first trained")  # fmt: skip
        command.add_argument("--seed", type=filled, metavar="S", help="of several; default: first")
        add_upstream_path(command)


def _export(flags: argparse.Namespace) -> int:
    from emopeft.downstream.sharing import hub

    files = hub.export(
        flags.place, flags.out, flags.fold, flags.upstream_path, one_seed(flags.seed)
    )
    print(f"{flags.out}: {', '.join(files)}")
    return 0


def _import(flags: argparse.Namespace) -> int:
    from emopeft.downstream.sharing import hub

    hub.import_(flags.place, flags.out)
    print(
        f"{flags.out}: use it with emopeft predict {flags.out} CLIPS (and --upstream-path DIR "
        "where the base weights are not the hub's)"
    )
    return 0


def _merge(flags: argparse.Namespace) -> int:
    from emopeft.downstream.sharing import hub

    files = hub.merge(flags.place, flags.out, flags.fold, flags.upstream_path, one_seed(flags.seed))
    print(f"{flags.out}: {', '.join(files)}")
    return 0
