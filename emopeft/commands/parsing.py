"""What all subcommands share: a parser that answers in one sentence, and types of flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from emopeft.errors import UserError

Commands = Any  # what argparse's add_subparsers returns; its type has no public name
Function = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Misuse is one sentence and exit status 2; no flag may be given twice or be abbreviated."""

    def __init__(self, **keys: Any):
        keys.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **keys)
        self.register("action", None, Once)
        self.register("action", "store", Once)

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


class Once(argparse.Action):
    """Takes a value; a second one is an error, where argparse would let the last win in silence."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        dests = namespace.__dict__.setdefault("_seen", set())
        if option_string is not None and self.dest in dests:
            raise argparse.ArgumentError(self, "is given twice; take one")
        dests.add(self.dest)
        setattr(namespace, self.dest, values)


def filled(text: str) -> str:
    """Text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a value, or leave the flag out")
    return text


def path(text: str) -> Path:
    """A path that is not empty."""
    return Path(filled(text))


def add_command(commands: Commands, name: str, help: str, function: Function, **keys: Any) -> Any:
    """A subcommand that calls ``function`` with its flags; returns its parser."""
    parser = commands.add_parser(name, help=help, description=keys.pop("description", help), **keys)
    parser.set_defaults(function=function)
    return parser


def key_and_value(text: str, flag: str = "-o") -> tuple[str, str]:
    """``KEY=VALUE`` of a flag."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{flag} {text}: expected KEY=VALUE")
    return name.strip(), value.strip()
