"""An adapted upstream with its head, as one module that starts where training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.heads.base import Head
from emopeft.errors import UserError
from emopeft.peft_modules.apply import Adaptation
from emopeft.peft_modules.freezing import freeze
from emopeft.peft_modules.tensors import check_fits, put
from emopeft.upstream.base import Upstream

IN_HEAD = "head"  # the pattern that freezes it; and what its tensors' names start with


class AdaptedModel(nn.Module):
    """``forward(batch)`` gives the head's outputs (batch, outputs).

    Args:
        upstream: frozen, or patched by ``adaptation``.
        start: where it starts to train; with an adaptation, its own counts.
        dropout: the encoder's own dropout in the blocks that train.
    """

    def __init__(
        self,
        upstream: Upstream,
        head: Head,
        start: int,
        dropout: bool = False,
        adaptation: Adaptation | None = None,
    ):
        super().__init__()
        self.adaptation = adaptation or Adaptation(upstream, [], start, [])
        self.methods = self.adaptation.methods
        self.upstream = upstream
        self.head = head
        self.dropout = dropout

    @property
    def start(self) -> int:
        """Where training starts (upstream/base.py)."""
        return self.adaptation.start

    def train(self, mode: bool = True) -> AdaptedModel:
        """Train mode for the head and the patched-in modules only.

        The pretrained blocks stay in eval mode (no dropout of their own, traps 4 and 5) unless the
        recipe asks for it with ``upstream.dropout``; those below ``start`` always do.
        """
        super().train(mode)
        if mode:
            self.upstream.eval()
            if self.dropout:
                for block in self.upstream.blocks[max(self.start, 0) :]:
                    block.train()
            self.upstream.train_added()
        return self

    def forward(self, batch: Batch) -> Tensor:
        return batch.averaged(self._outputs(batch))

    def _outputs(self, batch: Batch) -> Tensor:
        if not batch.start_inputs:
            if isinstance(batch.states, Tensor):
                return self.head(batch.states, torch.empty(0))
            return self._from_frames(batch.states)
        hidden = self.upstream.forward_from(self.start, batch.start_inputs)
        if isinstance(batch.states, Tensor):
            return self.head(torch.cat([batch.states, hidden.means()], dim=1), hidden.lengths)
        upper = torch.stack(hidden.layers, dim=1)
        if batch.states and batch.states[0].shape[0]:
            lower = _pad_frames(batch.states, upper.shape[2]).to(upper.dtype)
            upper = torch.cat([lower, upper], dim=1)
        return self.head(upper, hidden.lengths)

    def _from_frames(self, states: list[Tensor]) -> Tensor:
        lengths = torch.tensor([s.shape[1] for s in states], device=states[0].device)
        return self.head(_pad_frames(states, int(lengths.max())), lengths)

    # ---- what methods want of the training ---------------------------------------------------

    def after_step(self, step: int, total: int) -> None:
        """After an optimiser step, before its gradients are cleared."""
        for part in self.adaptation.parts:
            if part.sizes:  # a method that is frozen in this stage has no gradients
                part.method.after_step(self.upstream, step, total)

    def penalty(self) -> Tensor | None:
        """What the methods add to the loss of an optimiser step, or None."""
        parts = [part for part in self.adaptation.parts if part.sizes]
        terms = [part.method.penalty(self.upstream) for part in parts]
        penalties = [term for term in terms if term is not None]
        return torch.stack(penalties).sum() if penalties else None

    def method_progress(self) -> dict[str, Any]:
        """What the methods keep between steps, as tensors and plain data."""
        return {m.name: m.progress(self.upstream) for m in self.methods}

    def load_method_progress(self, progress: dict[str, Any]) -> None:
        """Put back what `method_progress` gave."""
        for method in self.methods:
            method.load_progress(self.upstream, progress.get(method.name, {}))

    def trainable_state(self) -> dict[str, Tensor]:
        """Copies of all that trains and of the head's buffers, by name."""
        state = {f"upstream.{n}": p.detach().clone() for n, p in self.upstream.trainable()}
        state |= {f"head.{n}": t.detach().clone() for n, t in self.head.state_dict().items()}
        return state

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trainable_state` gave."""
        tensors = {f"upstream.{n}": p for n, p in self.upstream.trainable()}
        tensors |= {f"head.{n}": t for n, t in self.head.state_dict().items()}
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(state[name])

    # ---- checkpoints and stages -------------------------------------------------------------

    def kept_state(self) -> dict[str, Tensor]:
        """Copies of all that the base weights do not hold, by name: what a checkpoint holds.

        That is what trains, the head with its buffers, and what a method drew or changed without
        training it: no seed is needed to put it back.
        """
        state = {f"upstream.{n}": t for n, t in self.adaptation.state().items()}
        head = self.head.state_dict()
        return state | {f"{IN_HEAD}.{n}": t.detach().clone() for n, t in head.items()}

    def load_kept_state(self, state: Mapping[str, Tensor], later_stage: bool = False) -> None:
        """Put back what `kept_state` gave.

        Args:
            later_stage: see `Adaptation.load`.

        Raises:
            UserError: names, shapes or types do not fit this model, or values are not finite.
        """
        upstream, head = _split(state)
        head_tensors = self.head.state_dict(keep_vars=True)
        if odd := sorted(head_tensors.keys() ^ head.keys()):
            raise UserError(
                f"the checkpoint does not fit its head: {len(odd)} tensors differ, e.g. "
                f"{odd[0][:200]}; train again"
            )
        for name, tensor in head.items():
            check_fits("the head of the checkpoint", name, tensor, head_tensors[name])
        self.adaptation.load(upstream, later_stage)
        for name, tensor in head.items():
            put(head_tensors[name], tensor)

    def carry(self, state: Mapping[str, Tensor]) -> list[str]:
        """Start this stage where an earlier one ended, of which ``state`` is the kept state.

        Call it before `freeze`, and before an optimiser or another device is given the model.

        Returns:
            the names in ``state`` that were not taken: this model has no such tensor, or of
            another shape. None for a stage with the same method and head.
        """
        upstream, head = _split(state)
        left = [f"upstream.{n}" for n in self.adaptation.carry(upstream)]
        head_tensors = self.head.state_dict(keep_vars=True)
        for name, tensor in head.items():
            if name in head_tensors and head_tensors[name].shape == tensor.shape:
                check_fits("the earlier stage's head", name, tensor, head_tensors[name])
                put(head_tensors[name], tensor)
            else:
                left.append(f"{IN_HEAD}.{name}")
        return left

    def freeze(self, patterns: Sequence[str]) -> list[str]:
        """Stop training some of what trains; returns the names, as in `kept_state`.

        Args:
            patterns: "head" (all of it); else a method of the sum by its name ("lora"; "ws" and
                what it put into the head, too), or a part of the upstream's parameter names.

        Raises:
            UserError: a pattern that chooses nothing, or a tensor that is dead without the others.
        """
        frozen: list[str] = []
        rest: list[str] = []
        parameters = dict(self.head.named_parameters())
        for pattern in patterns:
            patched = self.head.patched.get(pattern, [])
            names = list(parameters) if pattern == IN_HEAD else list(patched)
            if pattern == "ws" and self.adaptation.weighted_sum:
                names += [n for n in parameters if n == "featurizer.weights"]
            names = [n for n in names if parameters[n].requires_grad]
            for name in names:
                parameters[name].requires_grad_(False)
            frozen += [f"{IN_HEAD}.{n}" for n in names]
            in_upstream = any(p.sizes for p in self.adaptation.parts if p.method.name == pattern)
            if not names or in_upstream:
                rest.append(pattern)
        return frozen + [f"upstream.{n}" for n in (freeze(self.adaptation, rest) if rest else [])]

    def dropout_rates(self) -> dict[str, float]:
        """The rates of the pretrained blocks' own dropout that are active while they train.

        Returns:
            rates above 0 by their place ("3.attention.dropout": block 3); {} where it is off.
        """
        return active_dropout(self.upstream, self.start) if self.dropout else {}


def active_dropout(upstream: Upstream, start: int) -> dict[str, float]:
    """The rates above 0 of the pretrained blocks from ``start`` on, by their place."""
    first = max(start, 0)
    return {
        f"{i}.{place}": rate
        for i, block in enumerate(upstream.blocks[first:], first)
        for place, rate in _rates(block)
    }


def _rates(block: nn.Module) -> list[tuple[str, float]]:
    """Dropout's rates in a block: of its modules, and the numbers that its functions take."""
    rates: list[tuple[str, float]] = []
    for name, module in block.named_modules():
        if not getattr(module, "pretrained", False):
            continue
        if isinstance(module, nn.modules.dropout._DropoutNd):
            rates.append((name, float(module.p)))
        for attribute, value in vars(module).items():
            if "dropout" in attribute and isinstance(value, (int, float)):
                rates.append((f"{name}.{attribute}".lstrip("."), float(value)))
    return [(place, rate) for place, rate in rates if rate > 0]


def _split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the upstream and of the head, without the first part of their names."""
    sides: dict[str, dict[str, Tensor]] = {"upstream": {}, IN_HEAD: {}}
    for name, tensor in state.items():
        side, _, rest = name.partition(".")
        if side not in sides:
            raise UserError(
                f"the checkpoint holds a tensor '{name[:100]}', which belongs to neither upstream "
                "nor head; train again"
            )
        sides[side][rest] = tensor
    return sides["upstream"], sides[IN_HEAD]


def _pad_frames(states: list[Tensor], frames: int) -> Tensor:
    """Per utterance (states, time, width) to (batch, states, frames, width)."""
    return torch.stack([nn.functional.pad(s, (0, 0, 0, frames - s.shape[1])) for s in states])
