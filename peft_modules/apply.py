"""Patch an upstream with methods, freeze the rest, and prove that all that trains is live."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules import placing
from emopeft.peft_modules.base import Method, canonical, parse
from emopeft.peft_modules.liveness import prove_live
from emopeft.upstream.base import Upstream


@dataclasses.dataclass
class Part:
    """One method of a sum and what it trains: parameter name in the upstream to size."""

    method: Method
    sizes: dict[str, int]

    @property
    def parameters(self) -> int:
        return sum(self.sizes.values())


@dataclasses.dataclass
class Adaptation:
    """A patched upstream.

    ``start`` is where training starts: all below is frozen and can be kept (upstream/base.py).
    """

    upstream: Upstream
    parts: list[Part]
    start: int

    @property
    def methods(self) -> list[Method]:
        """In the order they were applied."""
        return [p.method for p in self.parts]

    @property
    def spec(self) -> str:
        return canonical(self.methods)

    @property
    def weighted_sum(self) -> bool:
        """Whether the method itself asks for a weighted sum of the states."""
        return any(p.method.name == "ws" for p in self.parts)

    def state(self) -> dict[str, Tensor]:
        """What trains, by name: all that a checkpoint needs beside the base weights."""
        return {name: p.detach().clone() for name, p in self.upstream.trainable()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Put a state back. Raises UserError when names or shapes are not this adaptation's."""
        own = dict(self.upstream.trainable())
        if own.keys() != state.keys():
            odd = sorted(own.keys() ^ state.keys())
            raise UserError(
                f"the adapter file does not fit method {self.spec} on {self.upstream.name}: "
                f"{len(odd)} tensors differ, e.g. {odd[0]}"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != state[name].shape:
                    raise UserError(
                        f"the adapter file does not fit {self.upstream.name}: {name} has shape "
                        f"{tuple(state[name].shape)} instead of {tuple(parameter.shape)}"
                    )
                parameter.copy_(state[name])

    def remove(self) -> None:
        """Take out all that was put in; with methods that only add, the base outputs are back."""
        placing.remove(self.upstream)
        for method in reversed(self.methods):
            method.remove(self.upstream)
        self.upstream.requires_grad_(False)

    def merge(self) -> None:
        """See `merge`."""
        merge(self.upstream, self.methods)


def merge(upstream: Upstream, methods: list[Method]) -> None:
    """Write all that was trained into the model's plain weights; the outputs stay the same.

    Raises:
        UserError: a method of the sum adds modules that plain weights cannot stand for.
    """
    for method in methods:
        if type(method).merge is Method.merge:
            method.merge(upstream)  # refuses before anything is changed
    for method in reversed(methods):
        method.merge(upstream)
    upstream.requires_grad_(False)


def adapt(upstream: Upstream, method: str | list[Method], prove: bool = True) -> Adaptation:
    """Patch ``upstream`` in place.

    Args:
        upstream: frozen, as `upstream.catalogue.load` gives it.
        method: a spec (``lora+ws``) or parsed methods.
        prove: run the liveness proof (skipped only where a checkpoint that passed it is loaded).

    Raises:
        UserError: a method cannot work on this upstream, or a trainable tensor is dead.
    """
    methods = parse(method) if isinstance(method, str) else method
    for one in methods:
        _check_possible(one, upstream)
    wanted: list[tuple[Method, list[nn.Parameter]]] = []
    seen: set[int] = set()
    for one in methods:
        parameters = list({id(p): p for p in one.patch(upstream) if id(p) not in seen}.values())
        seen.update(map(id, parameters))
        wanted.append((one, parameters))
    # Libraries switch parameters on and off as they like: the methods' answers count.
    upstream.requires_grad_(False)
    for _, parameters in wanted:
        for parameter in parameters:
            parameter.requires_grad_(True)
    upstream.eval()
    upstream.method = canonical(methods)
    names = {id(p): n for n, p in upstream.named_parameters()}
    parts = [Part(one, {names[id(p)]: p.numel() for p in parameters}) for one, parameters in wanted]
    adaptation = Adaptation(upstream, parts, upstream.first_change())
    if prove:
        prove_live(upstream)
    return adaptation


def _check_possible(method: Method, upstream: Upstream) -> None:
    if method.needs_steps and not upstream.has_blocks:
        raise UserError(
            f"method '{method.name}' changes the frames that a block sees and needs an upstream "
            f"that runs block by block; {upstream.name} is run as a whole: choose another method, "
            "or the upstream of the same name without s3prl:"
        )
    if method.needs_blocks and not len(upstream.blocks):
        why = (
            "has none"
            if upstream.has_blocks
            else "is run as a whole and its blocks are not recognised"
        )
        raise UserError(
            f"method '{method.name}' patches transformer blocks and {upstream.name} {why}; use "
            "-p none or -p full, or another upstream"
        )


def patch_head(methods: list[Method], head: nn.Module) -> dict[str, list[str]]:
    """Let methods change a newly made head in place.

    Returns:
        per method that did, the names of the parameters it trains there.
    """
    patched: dict[str, list[str]] = {}
    for method in methods:
        parameters = list(method.patch_head(head))
        for parameter in parameters:
            parameter.requires_grad_(True)
        if parameters:
            names = {id(p): n for n, p in head.named_parameters()}
            patched[method.name] = [names[id(p)] for p in parameters]
    return patched


def describe(adaptation: Adaptation) -> list[dict[str, Any]]:
    """Where each part sits, for the dry run: one row per method, place and run of equal blocks.

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
