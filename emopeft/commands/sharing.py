"""``emopeft export``, ``import``, ``merge``, ``onnx``: trained folds as directories for others."""

from __future__ import annotations

import argparse
import dataclasses

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.run import add_places, add_upstream_path, one_seed


def add_to(commands: Commands) -> None:
    """Add the subcommands."""
    exporting = add_command(
        commands, "export", "adapter, head, labels and model card as a directory", _export
    )
    importing = add_command(commands, "import", "an exported directory as a fold's folder", _import)
    merging = add_command(commands, "merge", "a plain full model, where the method can", _merge)
    graphing = add_command(
        commands, "onnx", "one ONNX graph, waveform to scores, checked against torch", _onnx,
        description="Write a trained fold as one ONNX graph, waveform to scores, of clips of any "
        "length; adapters are merged where the method can. It is run by onnxruntime and compared "
        "with torch before it is there.",
    )  # fmt: skip
    graphing.add_argument("--int8", action="store_true",
                          help="also with linear layers in eight bits, and what that costs on the "
                          "fold's test clips")  # fmt: skip
    add_places(graphing, "with --int8: where the corpus lies, if not where it did")
    for command in (exporting, importing, merging, graphing):
        command.add_argument("place", type=path, metavar="FROM",
                             help="an exported directory" if command is importing
                             else "a run's or a fold's folder")  # fmt: skip
        command.add_argument("out", type=path, metavar="OUT", help="a new directory")
    for command in (exporting, merging, graphing):
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


def _onnx(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.delay import delay_sections
    from emopeft.downstream.reports.onnx_check import onnx_sections
    from emopeft.downstream.reports.sections import terminal
    from emopeft.downstream.runs.checkpoints import fold_folders
    from emopeft.downstream.runs.delay import QUICK, measure
    from emopeft.downstream.sharing.onnx_export import export_onnx

    seed = one_seed(flags.seed)
    facts = export_onnx(
        flags.place, flags.out, flags.fold, flags.upstream_path, seed, flags.int8, flags.data
    )
    sections = onnx_sections(facts)
    if flags.int8:
        fold = fold_folders(flags.place, flags.fold or "all", seed)[0]
        quick = dataclasses.replace(QUICK, device="cpu")
        sections += delay_sections(measure([fold, flags.out], quick, flags.upstream_path))
    print(f"{terminal(sections)}\n\nwritten: {flags.out}")
    return 0
