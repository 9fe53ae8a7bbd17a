"""``emopeft check``: is a corpus whole?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopeft.commands.parsing import Commands, add_command, filled, key_and_value, path
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.corpora.base import Corpus


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    check = add_command(
        commands, "check", "verify a corpus' tree; status 1 when it has errors", _check,
        description="Compare a tree with the published corpus and look into every audio file, "
        "whatever the cache knows of it. "
        "Exit status 0 when there is no error (warnings are fine), 1 when there is one.",
    )  # fmt: skip
    check.add_argument(
        "name", metavar="NAME", type=filled, help="see `emopeft list corpora`; several: a+b"
    )
    check.add_argument(
        "places", metavar="[NAME=]DIR", type=filled, nargs="+",
        help="its tree (manifest: the file); of several corpora: NAME=DIR for each, or a DIR with "
        "a folder for each",
    )  # fmt: skip
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
    from emopeft.downstream.corpora.check import check
    from emopeft.downstream.data.places import corpora_of, placed
    from emopeft.files import default_root, write_json

    corpora = corpora_of(flags.name)
    roots = placed(corpora, flags.places)
    options = dict(_option(text) for text in flags.options)
    if len(corpora) > 1 and (options or flags.hashes is not None):
        raise UserError(f"-o and --hashes are of one corpus, not of {flags.name}; check it alone")
    for corpus, root in roots:
        if not root.exists():
            raise UserError(f"{root} does not exist; DIR must name {corpus.folder}")
    hashes = _hashes(flags, *roots[0])
    reports = []
    for corpus, root in roots:
        reports.append(check(corpus, root, hashes=hashes, options=options, store=default_root()))
        print(reports[-1].text() + "\n" * (len(corpora) > 1))
    if flags.json:
        data = [report.data() for report in reports]
        write_json(flags.json, data if len(data) > 1 else data[0])
    return 0 if all(report.ok for report in reports) else 1


def _hashes(
    flags: argparse.Namespace, corpus: Corpus, root: Path
) -> dict[str, tuple[str, int]] | None:
    if flags.hashes is None:
        return None
    if corpus.hashes is None:
        raise UserError(f"no hashes were published for {corpus.name}; leave --hashes out")
    table = Path(flags.hashes).expanduser() if flags.hashes else root
    if flags.hashes and not table.exists():
        raise UserError(f"the hash table {table} does not exist")
    return corpus.hashes(table)
