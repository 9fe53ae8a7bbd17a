"""Which upstreams there are, and loading one by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emopeft.errors import UserError, unknown
from emopeft.registry import Registry
from emopeft.upstream.base import Upstream


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of ``--list upstreams``.

    ``load(entry, path, revision, **options)`` makes the Upstream; ``path`` is a local directory
    that replaces the hub (where ``takes_file``, it may be a file).
    """

    name: str
    family: str
    load: Callable[..., Upstream]
    hub_id: str | None = None
    licence: str = "unknown"
    parameters: float | None = None  # of the encoder, in millions
    aliases: tuple[str, ...] = ()
    note: str | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> help
    takes_file: bool = False


UPSTREAMS: Registry[Entry] = Registry("upstream", "emopeft.upstream")


def register(entry: Entry) -> Entry:
    """Make an upstream known under its name and aliases."""
    for alias in entry.aliases:
        UPSTREAMS.add(alias, entry)
    return UPSTREAMS.add(entry.name, entry)


# Prefixes such as `hf:` and `s3prl:` with the function that makes an Entry of what follows.
SCHEMES: dict[str, Callable[[str], Entry]] = {}


def find(name: str) -> Entry:
    """The entry for a name, `hf:ORG/NAME` or `s3prl:NAME`; raises UserError when unknown."""
    UPSTREAMS.discover()  # the families fill SCHEMES too
    scheme, colon, rest = name.partition(":")
    if colon:
        if scheme not in SCHEMES:
            raise UserError(
                f"unknown upstream '{name}': known prefixes are "
                + ", ".join(f"{s}:" for s in sorted(SCHEMES))
            )
        return SCHEMES[scheme](rest)
    return UPSTREAMS[name]


def load(
    name: str, path: str | Path | None = None, revision: str | None = None, **options: Any
) -> Upstream:
    """Load an upstream, frozen and in eval mode.

    Raises:
        UserError: unknown name, missing or damaged weights, or a directory of another family.
    """
    entry = find(name)
    place = Path(path) if path is not None else None
    for option in options:
        if option not in entry.options:
            raise unknown(f"option of upstream {name}", option, entry.options)
    if place is not None and not str(place).isprintable():
        raise UserError(
            f"--upstream-path {str(place)!a} has a name that is not UTF-8 or not printable, which "
            "no record could hold; rename it"
        )
    if place is not None and not (place.is_dir() or (entry.takes_file and place.is_file())):
        raise UserError(
            f"--upstream-path {place} is not a directory; it must hold config.json and "
            "model.safetensors as written by save_pretrained"
        )
    upstream = entry.load(entry, place, revision, **options)
    upstream.name = name
    return upstream
