"""``emopeft delay``: how long trained folds take from a waveform to their scores."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, add_command, filled, path
from emopeft.commands.run import add_upstream_path
from emopeft.commands.showing import add_report_out, show
from emopeft.errors import UserError


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    command = add_command(
        commands, "delay", "how fast a trained fold is, clip by clip: table and picture", _delay,
        description="Time trained folds, their adapters as trained and merged into the weights, "
        "beside the frozen encoder; and folders of emopeft onnx. One clip at a time, in turns.",
    )  # fmt: skip
    add = command.add_argument
    add("places", metavar="RUN_OR_FOLD", type=path, nargs="+",
        help="folders of runs, of folds, or of emopeft onnx")  # fmt: skip
    add("--seconds", metavar="S,S,...", type=filled, help="clip lengths (default: 1,2,3,5,7,10)")
    add("--audio", metavar="FILE", type=path,
        help="a file: how long decoding and resampling take beside the model")  # fmt: skip
    add("--threads", metavar="N", type=filled, help="of the processor (default: torch's)")
    add("--device", metavar="NAME", type=filled, help="cpu, cuda, ... (default: the best)")
    add("--rounds", metavar="N", type=filled, help="turns that all have (default: 5)")
    add("--repeats", metavar="N", type=filled, help="times that each is timed in a turn (10)")
    add("--fold", type=filled, metavar="F", help="of runs; default: the first trained")
    add_upstream_path(command)
    add_report_out(command, "delay")


def _delay(flags: argparse.Namespace) -> int:
    from emopeft.downstream.reports.delay import delay_sections, write_numbers
    from emopeft.downstream.runs.delay import SECONDS, Settings, measure

    default = Settings()
    settings = Settings(
        seconds=SECONDS if flags.seconds is None else _lengths(flags.seconds),
        rounds=_whole("--rounds", flags.rounds) or default.rounds,
        repeats=_whole("--repeats", flags.repeats) or default.repeats,
        threads=_whole("--threads", flags.threads),
        device=flags.device,
    )
    found = measure(flags.places, settings, flags.upstream_path, flags.audio, flags.fold)
    show(flags, delay_sections(found), "delay")
    if flags.out is not None:
        print(f"numbers: {', '.join(map(str, write_numbers(flags.out, found)))}")
    return 0


def _lengths(text: str) -> list[float]:
    try:
        return sorted({float(x) for x in text.split(",")})
    except ValueError:
        raise UserError(f"--seconds {text:.60} must be numbers such as 1,3,10") from None


def _whole(flag: str, text: str | None) -> int | None:
    if text is not None and not (text.isascii() and text.isdigit() and int(text[:9])):
        raise UserError(f"{flag} {text:.40} must be a whole number from 1")
    return None if text is None else int(text)
