"""Where methods put their modules: one function per place, for every family of upstreams.

Modules are kept in the upstream's lists, outside the pretrained model, so that its parameters keep
their names. A module maps (..., width) to (..., width) unless said otherwise, acts on the last
dimension only, and must be the identity at init where its method says so.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from emopeft.errors import UserError, unknown
from emopeft.options import shortened
from emopeft.upstream.base import Upstream

ROLES = ("q", "k", "v", "o", "fc1", "fc2")


class OnOutput:
    """A forward hook that applies a module to another one's output (the first of a tuple).

    A plain object, not a closure: it is copied with the upstream.
    """

    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self, hooked: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self.module(output[0]), *output[1:])
        return self.module(output)


class OnInput:
    """A forward pre-hook that notes a module's input, for `Parallel`."""

    def __init__(self) -> None:
        self.input: Tensor | None = None

    def __call__(self, hooked: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.input = inputs[0]


class AddFromInput:
    """A forward hook that adds a module of the noted input to the output."""

    def __init__(self, module: nn.Module, note: OnInput):
        self.module = module
        self.note = note

    def __call__(self, hooked: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        assert self.note.input is not None
        entering, self.note.input = self.note.input, None
        return output + self.module(entering)


HOOKS = (OnOutput, OnInput, AddFromInput)


def after_block(upstream: Upstream, i: int, module: nn.Module) -> None:
    """Apply ``module`` to the output of block ``i``, after those that are there already."""
    _list(upstream, "after_block", i).append(_placed(upstream, module))
    if not upstream.has_blocks:
        upstream.blocks[i].register_forward_hook(OnOutput(module))


def before_block(upstream: Upstream, i: int, module: nn.Module) -> None:
    """Have ``module`` add frames in front of the input of block ``i``; they are cut off after it.

    ``module`` maps (batch, time, width) to (batch, added + time, width).
    """
    _list(upstream, "before_block", i).append(_placed(upstream, module))


def after_attention(upstream: Upstream, i: int, module: nn.Module) -> None:
    """Apply ``module`` to the attention's output in block ``i``, before the residual is added."""
    if upstream.attention is None:
        raise UserError(f"{upstream.name} has no attention that is a module of its own")
    _list(upstream, "inside_block", i).append(_placed(upstream, module))
    attention = upstream.blocks[i].get_submodule(upstream.attention)
    attention.register_forward_hook(OnOutput(module))


def after_feed_forward(upstream: Upstream, i: int, module: nn.Module) -> None:
    """Apply ``module`` to the feed-forward's output in block ``i``, before the residual is added.

    The hook is on the second linear layer: some families have no module around the two.
    """
    _list(upstream, "inside_block", i).append(_placed(upstream, module))
    upstream.role(i, "fc2").register_forward_hook(OnOutput(module))


def beside_feed_forward(upstream: Upstream, i: int, module: nn.Module) -> None:
    """Add ``module`` of the feed-forward's input to its output in block ``i``."""
    _list(upstream, "inside_block", i).append(_placed(upstream, module))
    note = OnInput()
    upstream.role(i, "fc1").register_forward_pre_hook(note)
    upstream.role(i, "fc2").register_forward_hook(AddFromInput(module, note))


def inside_block(upstream: Upstream, i: int, module: nn.Module) -> None:
    """Keep a module that a method calls in block ``i`` in its own way."""
    _list(upstream, "inside_block", i).append(_placed(upstream, module))


def after_convolution(upstream: Upstream, convolution: nn.Module, module: nn.Module) -> None:
    """Apply ``module`` (batch, channels, time) to the output of a layer of the front end."""
    upstream.inside_front.append(_placed(upstream, module))
    convolution.register_forward_hook(OnOutput(module))


def remove(upstream: Upstream) -> None:
    """Take out everything that the functions above put in."""
    for module in upstream.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [k for k, hook in hooks.items() if isinstance(hook, HOOKS)]:
                del hooks[key]
    for name in ("before_block", "inside_block", "after_block"):
        setattr(upstream, name, nn.ModuleList(nn.ModuleList() for _ in range(upstream.num_blocks)))
    upstream.inside_front = nn.ModuleList()


def _list(upstream: Upstream, name: str, i: int) -> nn.ModuleList:
    modules = getattr(upstream, name)[i]
    assert isinstance(modules, nn.ModuleList)
    return modules


def _placed(upstream: Upstream, module: nn.Module) -> nn.Module:
    """The module, where the upstream's weights are."""
    like = next(upstream.parameters(), None)
    return module if like is None else module.to(like.device)


# ---- choosing blocks and layers -----------------------------------------------------------------


def target_names(
    upstream: Upstream, targets: tuple[str, ...], blocks: str, root: nn.Module | None = None
) -> list[str]:
    """The full module names, in ``root`` or the upstream, of linear layers by role and block.

    Raises:
        UserError: an unknown role, or one that this upstream does not have.
    """
    for role in targets:
        if role not in ROLES:
            raise unknown("role", shortened(role), ROLES)
        if role not in upstream.roles:
            raise UserError(f"{upstream.name} has no linear layer with role '{role}'")
    paths = {id(m): n for n, m in (root or upstream).named_modules()}
    return [
        paths[id(upstream.role(i, role))]
        for i in chosen_blocks(blocks, upstream.num_blocks)
        for role in targets
    ]


def chosen_blocks(text: str, count: int, what: str = "blocks") -> list[int]:
    """``all``, ``last:3``, ``first:2``, ``0-5`` or ``0+3+6-8`` to block numbers."""
    wrong = UserError(
        f"{what}={shortened(text)} must be all, last:N, first:N, or numbers from 0 to "
        f"{count - 1} such as 0-2+5"
    )
    try:
        if text == "all":
            return list(range(count))
        side, colon, number = text.partition(":")
        if colon:
            n = int(number)
            if not 1 <= n <= count:
                raise wrong
            return {"last": list(range(count - n, count)), "first": list(range(n))}[side]
        chosen: set[int] = set()
        for piece in text.split("+"):
            low, dash, high = piece.partition("-")
            first, last = int(low), int(high if dash else low)
            if not 0 <= first <= last < count:  # before anything of that length is made
                raise wrong
            chosen.update(range(first, last + 1))
    except (ValueError, KeyError):
        raise wrong from None
    return sorted(chosen)
