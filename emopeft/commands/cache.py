"""``emopeft cache list`` and ``clean``: the kept frozen parts."""

from __future__ import annotations

import argparse

from emopeft.commands.parsing import Commands, Parser, add_command, filled, path
from emopeft.errors import unknown


def add_to(commands: Commands) -> None:
    """Add the subcommands."""
    cache = commands.add_parser(
        "cache", help="the kept frozen parts: list, clean", description="The kept frozen parts."
    )
    cache.add_argument("--dir", type=path, help="the caches' place (default: $EMOPEFT_CACHE)")
    actions = cache.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=Parser
    )
    add_command(actions, "list", "what there is, the last used first", _list)
    clean = add_command(actions, "clean", "delete all that no process uses", _clean)
    clean.add_argument(
        "ids", nargs="*", metavar="ID", type=filled, help="only these, as `list` names them"
    )
    clean.add_argument("--keep-gb", type=float, help="the last used ones up to this size stay")


def _list(flags: argparse.Namespace) -> int:
    from emopeft.downstream.feature_cache.folders import folders, table
    from emopeft.files import default_root

    print(table(folders(flags.dir or default_root())))
    return 0


def _clean(flags: argparse.Namespace) -> int:
    from emopeft.downstream.feature_cache.folders import folders, remove, remove_leftovers
    from emopeft.files import default_root

    root = flags.dir or default_root()
    remove_leftovers(root)
    caches = folders(root)
    chosen = caches
    if flags.ids:
        names = [c.path.name for c in caches]
        for name in flags.ids:
            if not any(n.startswith(name) for n in names):
                raise unknown("cache", name, [n[:8] for n in names])
        chosen = [c for c in caches if c.path.name.startswith(tuple(flags.ids))]
    elif flags.keep_gb is not None:
        left, chosen = sum(c.bytes for c in caches), []
        for cache in caches:  # the least recently used first
            if left > flags.keep_gb * 1e9 and not cache.busy:
                chosen.append(cache)
                left -= cache.bytes
    freed = 0
    for cache in chosen:
        if cache.busy or not remove(cache):
            print(f"{cache.path.name[:8]} is in use and stays")
            continue
        freed += cache.bytes
        print(f"deleted {cache.path.name[:8]} ({cache.bytes / 1e6:,.1f} MB)")
    print(f"freed {freed / 1e9:.3g} GB")
    return 0
