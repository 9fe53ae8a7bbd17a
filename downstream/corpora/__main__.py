"""``python -m downstream.corpora list`` and ``check NAME DIR``.

Exit status: 0 when there is no error (warnings are fine), 1 when the tree has errors, 2 when the
command itself cannot be carried out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.corpora.check import check
from emopeft.errors import UserError
from emopeft.files import write_json


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m downstream.corpora", description="Corpora: what is known, what is there."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,check}")
    commands.add_parser("list", help="all corpora with size, licence and environment variable")
    checker = commands.add_parser(
        "check",
        help="verify a tree; exit status 1 when it has errors",
        description="Compare a tree with the published corpus and look into every audio file.",
    )
    checker.add_argument("name", metavar="NAME", help="a corpus, see `list`")
    checker.add_argument("root", metavar="DIR", type=Path, help="its tree (manifest: the file)")
    checker.add_argument(
        "--hashes",
        metavar="FILE",
        nargs="?",
        const="",
        help="compare with the published hashes (CREMA-D); without FILE the table is in the tree",
    )
    checker.add_argument("--json", metavar="FILE", type=Path, help="write the whole report here")
    checker.add_argument(
        "-o",
        metavar="KEY=VALUE",
        dest="options",
        action="append",
        default=[],
        help="an option of the corpus, for example language=all (ESD)",
    )
    return parser.parse_args(arguments)


def _list() -> str:
    rows = [
        [
            name,
            corpus.title,
            corpus.language,
            sum(corpus.expected.values()) or "-",
            corpus.speakers or "-",
            len(corpus.emotions) or "-",
            corpus.licence,
            corpus.environment,
        ]
        for name, corpus in CORPORA.items()
    ]
    headers = ["name", "corpus", "language", "clips", "speakers", "labels", "licence", "variable"]
    return tabulate(rows, headers=headers, maxcolwidths=[None, 32, 12, *[None] * 3, 28, None])


def _check(arguments: argparse.Namespace) -> int:
    corpus = CORPORA[arguments.name]
    root = arguments.root.expanduser()
    if not root.exists():
        raise UserError(f"{root} does not exist; DIR must name {corpus.folder}")
    options = {}
    for text in arguments.options:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"-o {text}: expected KEY=VALUE")
        options[key.strip()] = value.strip()
    hashes = None
    if arguments.hashes is not None:
        if corpus.hashes is None:
            raise UserError(f"no hashes were published for {corpus.name}; leave --hashes out")
        table = Path(arguments.hashes).expanduser() if arguments.hashes else root
        if arguments.hashes and not table.exists():
            raise UserError(f"the hash table {table} does not exist")
        hashes = corpus.hashes(table)
    report = check(corpus, root, hashes=hashes, options=options)
    if arguments.json:
        write_json(arguments.json, report.data())
    print(report.text())
    return 0 if report.ok else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parsed = _arguments(arguments)
    try:
        if parsed.command == "list":
            print(_list())
            return 0
        return _check(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
