"""``emopeft check``: is a corpus whole?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from emopeft.commands.parsing import Commands, add_command, filled, key_and_value, path
from emopeft.errors import UserError


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    check = add_command(
        commands, "check", "verify a corpus' tree; status 1 when it has errors", _check,
        description="Compare a tree with the published corpus and look into every audio file, "
        "whatever the cache knows of it. "
        "Exit status 0 when there is no error (warnings are fine), 1 when there is one.",
    )  # fmt: skip
    check.add_argument("name", metavar="NAME", type=filled, help="see `emopeft list corpora`")
    check.add_argument("root", metavar="DIR", type=path, help="its tree (manifest: the file)")
    check.add_argument(
        "--hashes", metavar="FILE", nargs="?", const="",
        help="compare with the published hashes (CREMA-D); without FILE the table is in the tree",
    )  # fmt: skip
    check.add_argument("--json", metavar="FILE", type=path, help="write the whole report here")
    check.add_argument(
        "-o", "--option", metavar="KEY=VALUE", dest="options", action="append", default=[],
        help="an option of the corpus, for example language=all (ESD)",
    )  # fmt: skip


def _option(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``; a value in braces is YAML, as in ``run -o corpus.options=...``."""
    import yaml

    from emopeft.downstream.data.yaml_reader import load_yaml

    name, value = key_and_value(text)
    try:
        return name, load_yaml(value, f"-o {name}") if value.startswith("{") else value
    except yaml.YAMLError as error:
        raise UserError(f"-o {name}: {value[:60]!r} is not YAML; write {{name: value}}") from error


def _check(flags: argparse.Namespace) -> int:
    from emopeft.downstream.corpora.base import CORPORA
    from emopeft.downstream.corpora.check import check
    from emopeft.files import default_root, write_json

    corpus = CORPORA[flags.name]
    root = flags.root.expanduser()
    if not root.exists():
        raise UserError(f"{root} does not exist; DIR must name {corpus.folder}")
    options = dict(_option(text) for text in flags.options)
    hashes = None
    if flags.hashes is not None:
        if corpus.hashes is None:
            raise UserError(f"no hashes were published for {corpus.name}; leave --hashes out")
        table = Path(flags.hashes).expanduser() if flags.hashes else root
        if flags.hashes and not table.exists():
            raise UserError(f"the hash table {table} does not exist")
        hashes = corpus.hashes(table)
    report = check(corpus, root, hashes=hashes, options=options, store=default_root())
    if flags.json:
        write_json(flags.json, report.data())
    print(report.text())
    return 0 if report.ok else 1
