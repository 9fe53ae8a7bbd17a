"""YAML as recipes need it: plain values only, and bounded in size, depth and expansion.

Aliases may repeat a small part; one that repeats itself, or a small file that unfolds into
millions of values, is refused before anything is built of it.
"""

from __future__ import annotations

from typing import Any

import yaml

from emopeft.errors import UserError

MAX_BYTES = 256 << 10
MAX_NODES = 20_000  # values after aliases are written out; the longest shipped recipe has 60
MAX_DEPTH = 20
MERGE = "tag:yaml.org,2002:merge"  # the key <<
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")


def load_yaml(text: str, where: str) -> Any:
    """The value of a YAML text: None, bool, int, float, str, or lists and mappings of those.

    Raises:
        UserError: it is too large, nested too deep, refers to itself, or holds other than plain
            values; the sentence begins with ``where``.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{where} is longer than {MAX_BYTES >> 10} kB; that is no recipe")
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except _Refused as error:
        raise UserError(f"{where} {error}") from None
    except (ValueError, OverflowError, RecursionError):
        # of int() and float(): more digits than Python converts
        raise UserError(f"{where} holds a number that cannot be read; write it shorter") from None
    finally:
        loader.dispose()


class _Refused(Exception):
    """Why a YAML text is not taken; completes a sentence that begins with its name."""


class _Loader(yaml.SafeLoader):
    """Counts what it composes, and builds plain values only."""

    # Dates stay text; everything that is not plain has no constructor.
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rows if not tag.endswith(":timestamp")]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {
        f"tag:yaml.org,2002:{name}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{name}"]
        for name in PLAIN
    } | {None: yaml.SafeLoader.construct_undefined}

    def __init__(self, text: str):
        super().__init__(text)
        self.nodes = self.depth = 0
        self.sizes: dict[str, int] = {}  # anchor to the values under it, aliases written out
        self.open: set[str] = set()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        anchor = getattr(event, "anchor", None) or ""
        alias = isinstance(event, yaml.AliasEvent)
        if alias and anchor in self.open:
            raise _Refused(f"holds '*{anchor}', which refers to itself; write the value out")
        before = self.nodes
        self.nodes += self.sizes.get(anchor, 1) if alias else 1
        if self.nodes > MAX_NODES:
            raise _Refused(f"unfolds into more than {MAX_NODES:,} values; that is no recipe")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused(f"is nested deeper than {MAX_DEPTH} levels; that is no recipe")
        if anchor and not alias:
            self.open.add(anchor)
        node = super().compose_node(parent, index)
        if anchor and not alias:
            self.open.discard(anchor)
            self.sizes[anchor] = self.nodes - before
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in names:
                    raise _Refused(f"holds key {ascii(key.value[:60])} twice; give it once")
                names.add(key.value)
        return super().construct_mapping(node, deep)
