"""Patch an upstream with methods, freeze the rest, and prove that all that trains is live."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.files import digest
from emopeft.options import shortened
from emopeft.peft_modules import placing
from emopeft.peft_modules.base import Method, canonical, parse, to_parts
from emopeft.peft_modules.liveness import prove_live
from emopeft.peft_modules.tensors import (
    check_fits,
    moved_by_wrapping,
    not_of_the_base,
    own_tensors,
    put,
    running,
)
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

    Attributes:
        start: where training starts: all below is frozen and can be kept (upstream/base.py).
        tensor_names: all tensors that the base weights do not hold: what trains, what a method
            drew or changed without training it, and what `carry` took over.
        in_head: what peft made of a method's options in the head, by method.
    """

    upstream: Upstream
    parts: list[Part]
    start: int
    tensor_names: list[str]
    in_head: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

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

    def recorded(self) -> dict[str, Any]:
        """The method as a checkpoint has it: its spelling, its parts in full, and peft's view.

        peft's configurations hold what is no option of ours, too; another version of peft may give
        it other values (`check_peft`).
        """
        configs = {m.name: m.resolved(self.upstream) for m in self.methods}
        resolved = {name: config for name, config in configs.items() if config is not None}
        resolved |= {f"{name} in the head": config for name, config in self.in_head.items()}
        return {
            "spec": self.spec,
            "parts": to_parts(self.methods),
            "peft": {"version": version("peft"), "configs": resolved} if resolved else None,
        }

    def check_peft(self, recorded: Mapping[str, Any] | None) -> None:
        """Raise UserError where the installed peft makes something else of the same options.

        Args:
            recorded: the ``peft`` of `recorded`, when it was trained; fields that it does not have
                did not exist then.
        """
        if recorded is None:
            return
        current = (self.recorded()["peft"] or {"configs": {}})["configs"]
        for name, fields in recorded["configs"].items():
            now = current.get(name, {})
            for field, value in fields.items():
                if field not in now or now[field] != value:
                    was, then = recorded["version"], shortened(value)
                    is_now = shortened(now[field]) if field in now else "not known"
                    raise UserError(
                        f"method '{name}' was trained with peft {was}, where {field} is {then}; in "
                        f"the installed peft {version('peft')} it is {is_now}: install peft=={was}"
                    )

    def state(self) -> dict[str, Tensor]:
        """Copies of what is kept, by name: all that a checkpoint needs beside the base weights."""
        tensors = own_tensors(self.upstream)
        return {name: tensors[name].detach().clone() for name in self.tensor_names}

    def load(self, state: Mapping[str, Tensor], later_stage: bool = False) -> None:
        """Put a state back.

        Args:
            later_stage: whether more of the pretrained tensors may be in it than this method
                keeps: those that an earlier stage of the training changed.

        Raises:
            UserError: names, shapes or types are not this adaptation's, or values are not finite.
        """
        tensors, where = own_tensors(self.upstream), f"the adapter of {self.upstream.name}"
        more = state.keys() - set(self.tensor_names)
        odd = [n for n in self.tensor_names if n not in state]
        odd += sorted(n for n in more if n not in tensors or not later_stage)
        if odd:
            raise UserError(
                f"the adapter file does not fit method {self.spec} on {self.upstream.name}: "
                f"{len(odd)} tensors differ, e.g. {odd[0][:200]}; train again"
            )
        for name, tensor in state.items():
            check_fits(where, name, tensor, tensors[name])
        for name, tensor in state.items():
            put(tensors[name], tensor)
        self.tensor_names += sorted(more)

    def carry(self, state: Mapping[str, Tensor]) -> list[str]:
        """Take over what an earlier stage kept, where this one has the tensor, too.

        A pretrained tensor finds its place also where a tuner has wrapped its layer meanwhile,
        unless the tuner itself has changed it. Call it before `freezing.freeze`.

        Returns:
            the names in ``state`` that were not taken: there is no tensor of that name and shape,
            or it lies below ``start``, where all is kept as the base weights gave it.
        """
        tensors, left = own_tensors(self.upstream), []
        runs = running(self.upstream, self.start)
        for name, tensor in state.items():
            place = name if name in tensors else moved_by_wrapping(name, tensors)
            moved_and_changed = place != name and place in self.tensor_names
            if place is None or tensors[place].shape != tensor.shape or moved_and_changed:
                left.append(name)
                continue
            check_fits("what the earlier stage trained", name, tensor, tensors[place])
            if torch.equal(tensors[place], tensor.to(tensors[place].device)):
                continue
            if not any(place.startswith(module) for module in runs):
                left.append(name)
                continue
            put(tensors[place], tensor)
            if place not in self.tensor_names:
                self.tensor_names.append(place)
        return left

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


def adapt(
    upstream: Upstream, method: str | list[Method], prove: bool = True, shared: bool = False
) -> Adaptation:
    """Patch ``upstream`` in place.

    Args:
        upstream: frozen, as `upstream.catalogue.load` gives it.
        method: a spec (``lora+ws``) or parsed methods.
        prove: run the liveness proof (skipped only where a checkpoint that passed it is loaded).
        shared: its tensors lie in memory of others (`tensors.sharing_copy`); those that train are
            given memory of their own.

    Raises:
        UserError: a method cannot work on this upstream, or a trainable tensor is dead.
    """
    methods = parse(method) if isinstance(method, str) else method
    for one in methods:
        _check_possible(one, upstream)
    base = list(own_tensors(upstream).values())
    per_method: list[tuple[Method, list[nn.Parameter]]] = []
    claimed_ids: set[int] = set()
    for one in methods:
        parameters = list(
            {id(p): p for p in one.patch(upstream) if id(p) not in claimed_ids}.values()
        )
        claimed_ids.update(map(id, parameters))
        per_method.append((one, parameters))
    # Libraries switch parameters on and off as they like: the methods' answers count.
    upstream.requires_grad_(False)
    pretrained = {id(t) for t in base}
    for _, parameters in per_method:
        for parameter in parameters:
            parameter.requires_grad_(True)
            if shared and id(parameter) in pretrained:
                parameter.data = parameter.data.clone()
    upstream.eval()
    # In every option, not only in those that differ from today's defaults: it is part of keys.
    upstream.method = f"{canonical(methods)} {digest(to_parts(methods))[:16]}"
    names = {id(p): n for n, p in upstream.named_parameters()}
    parts = [
        Part(one, {names[id(p)]: p.numel() for p in parameters}) for one, parameters in per_method
    ]
    changed = [t for one in methods for t in one.changed(upstream)]
    tensor_names = not_of_the_base(upstream, base, changed)
    adaptation = Adaptation(upstream, parts, upstream.first_change(), tensor_names)
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
