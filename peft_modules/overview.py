"""Where the parts of an adaptation sit, for the dry run."""

from __future__ import annotations

from typing import Any

from emopeft.peft_modules.apply import Adaptation
from emopeft.upstream.base import Upstream


def describe(adaptation: Adaptation) -> list[dict[str, Any]]:
    """One row per method, place and run of equal blocks.

    Returns:
        rows of ``method``, ``blocks`` ("0-11", "3", or "" outside the blocks), ``module`` (its
        path in the block, or "input", "inside" and "output" for modules put there), ``count``
        (blocks), ``each`` (parameters per block) and ``parameters`` (all of them).
    """
    upstream = adaptation.upstream
    places = _places(upstream)
    rows: list[dict[str, Any]] = []
    for part in adaptation.parts:
        sizes: dict[tuple[str, int], dict[str, int]] = {}
        for name, size in part.sizes.items():
            block, module = _place_of(name, places)
            by_block = sizes.setdefault((module, -1 if block < 0 else 0), {})
            by_block[str(block)] = by_block.get(str(block), 0) + size
        for (module, where), by_block in sizes.items():
            for first, last, size in _runs([(int(b), s) for b, s in by_block.items()]):
                count = last - first + 1
                blocks = "" if where < 0 else str(first) if count == 1 else f"{first}-{last}"
                rows.append(
                    {
                        "method": part.method.name,
                        "blocks": blocks,
                        "module": module,
                        "count": count,
                        "each": size,
                        "parameters": size * count,
                    }
                )
    return rows


def _places(upstream: Upstream) -> dict[str, tuple[int, str]]:
    """Prefixes of parameter names to block number and what to call the place."""
    names = {id(m): n for n, m in upstream.named_modules()}
    places = {names[id(block)] + ".": (i, "") for i, block in enumerate(upstream.blocks)}
    for i in range(upstream.num_blocks):
        for name, shown in (("before", "input"), ("inside", "inside"), ("after", "output")):
            places[f"{name}_block.{i}."] = (i, shown)
    places["inside_front."] = (-1, "front end")
    return places


def _place_of(name: str, places: dict[str, tuple[int, str]]) -> tuple[int, str]:
    for prefix, (block, shown) in places.items():
        if name.startswith(prefix):
            return block, shown or _module_of(name.removeprefix(prefix))
    return -1, _module_of(name.removeprefix("model."))


def _module_of(name: str) -> str:
    """The pretrained module that a parameter belongs to: what stands before peft's own names."""
    pieces = name.split(".")
    for i, piece in enumerate(pieces):
        if piece == "base_layer" or (i + 1 < len(pieces) and pieces[i + 1] == "default"):
            return ".".join(pieces[:i])
    return ".".join(pieces[:-1])


def _runs(sizes: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(block, size) to (first, last, size) of neighbours of equal size."""
    runs: list[tuple[int, int, int]] = []
    for block, size in sorted(sizes):
        if runs and runs[-1][1] == block - 1 and runs[-1][2] == size and block >= 0:
            runs[-1] = (runs[-1][0], block, size)
        else:
            runs.append((block, block, size))
    return runs
