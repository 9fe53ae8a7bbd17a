"""The tensors of an upstream: which ones a checkpoint must hold, and how they are put back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.upstream.base import FROM_WAVEFORM, Upstream

_OF_EVERY_MODULE = set(vars(nn.Module()))


def own_tensors(upstream: nn.Module) -> dict[str, Tensor]:
    """All tensors by name: parameters, all buffers, and what tuners keep in plain dictionaries.

    One that several modules share stands under its first name. Some of peft's tuners keep what
    they drew (which weights train, which frequencies) outside torch's own lists.
    """
    tensors = dict(upstream.named_parameters()) | dict(upstream.named_buffers())
    ids = {id(t) for t in tensors.values()}
    for name, module in upstream.named_modules():
        if getattr(module, "pretrained", False):
            continue
        for attribute, value in vars(module).items():
            if attribute in _OF_EVERY_MODULE or not isinstance(value, dict):
                continue
            for key, tensor in value.items():
                if isinstance(tensor, Tensor) and id(tensor) not in ids:
                    ids.add(id(tensor))
                    tensors[f"{name}.{attribute}.{key}".lstrip(".")] = tensor
    return tensors


def not_of_the_base(
    upstream: Upstream, base: Iterable[Tensor], changed: Iterable[Tensor]
) -> list[str]:
    """The names of all that the base weights do not hold: what trains, was put in, or was changed.

    Args:
        base: the upstream's tensors before it was patched (the objects: they must still live).
        changed: pretrained ones that methods changed without training them.
    """
    pretrained = {id(t) for t in base} - {id(t) for t in changed}
    return [
        name
        for name, tensor in own_tensors(upstream).items()
        if tensor.requires_grad or id(tensor) not in pretrained
    ]


def check_fits(where: str, name: str, tensor: Tensor, target: Tensor) -> None:
    """Raise UserError unless ``tensor`` may take the place of ``target``: shape, type, finite."""
    if tensor.shape != target.shape:
        raise UserError(
            f"{where} does not fit: {name} has shape {tuple(tensor.shape)} instead of "
            f"{tuple(target.shape)}; take the checkpoint that belongs to it, or train again"
        )
    if tensor.dtype != target.dtype:
        raise UserError(
            f"{where} does not fit: {name} holds {_plain(tensor.dtype)} instead of "
            f"{_plain(target.dtype)}; take the checkpoint that belongs to it, or train again"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(f"{where} is damaged: {name} holds NaN or infinity; train again")


def put(target: Tensor, tensor: Tensor) -> None:
    """Give ``target`` the values of ``tensor``, in memory of its own.

    Not in place: a frozen tensor may lie in memory that it shares with the unpatched upstream.
    """
    target.data = tensor.detach().to(target.device, copy=True)


def untrained(name: str, start: Tensor, value: Tensor) -> Tensor:
    """``value``, where the update that begins at ``start`` (a factor of it) begins with nothing."""
    if bool(start.any()):
        raise UserError(
            f"{name} is not 0 where both stages start, so its update would count twice; "
            "transfer.strategy=addition starts both stages from an untrained method"
        )
    return value


def sharing_copy(upstream: Upstream) -> Upstream:
    """A copy with modules of its own whose tensors lie in the same memory.

    `apply.adapt(..., shared=True)` gives those that train memory of their own, so that any number
    of folds and seeds need the frozen part of an encoder once.
    """
    memo: dict[int, Any] = {}
    for parameter in upstream.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
    for buffer in upstream.buffers():
        memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(upstream, memo)


def double_copy(upstream: Upstream) -> Upstream:
    """A copy in float64 on the CPU, where every device's tensors can go, made in one step."""
    memo: dict[int, Any] = {}
    for tensor in own_tensors(upstream).values():
        value = tensor.detach().cpu()
        value = value.double() if value.is_floating_point() else value.clone()
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, tensor.requires_grad)
        memo[id(tensor)] = value
    return copy.deepcopy(upstream, memo)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def moved_by_wrapping(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a pretrained tensor once a tuner has wrapped its layer, or None."""
    module, _, last = name.rpartition(".")
    wrapped = f"{module}.base_layer.{last}"
    return wrapped if wrapped in tensors else None


def running(upstream: Upstream, start: int) -> tuple[str, ...]:
    """The beginnings of names of all tensors that a pass from ``start`` on computes with."""
    if start == upstream.num_blocks:
        return ()
    if start == FROM_WAVEFORM:
        return ("",)
    parts = upstream.parts()
    modules = [*parts["finish"], *(parts["embed"] if start < 0 else [])]
    for i in range(max(start, 0), upstream.num_blocks):
        modules += upstream.block_modules(i)
    paths = {id(m): n for n, m in upstream.named_modules()}
    return tuple(paths[id(m)] + "." for m in modules)
