"""An adapted upstream with its head, as one module that starts where training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.models.heads import Head
from emopeft.peft_modules.base import Method
from emopeft.upstream.base import Upstream


class AdaptedModel(nn.Module):
    """``forward(batch)`` gives the head's outputs (batch, outputs)."""

    def __init__(
        self,
        upstream: Upstream,
        head: Head,
        start: int,
        dropout: bool = False,
        methods: Sequence[Method] = (),
    ):
        super().__init__()
        self.methods = list(methods)
        self.upstream = upstream
        self.head = head
        self.start = start
        self.dropout = dropout

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
        if not batch.kept:
            if isinstance(batch.states, Tensor):
                return self.head(batch.states, torch.empty(0))
            return self._from_frames(batch.states)
        hidden = self.upstream.forward_from(self.start, batch.kept)
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
        for method in self.methods:
            method.after_step(self.upstream, step, total)

    def penalty(self) -> Tensor | None:
        """What the methods add to the loss of an optimiser step, or None."""
        terms = [method.penalty(self.upstream) for method in self.methods]
        found = [term for term in terms if term is not None]
        return torch.stack(found).sum() if found else None

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
        own = {f"upstream.{n}": p for n, p in self.upstream.trainable()}
        own |= {f"head.{n}": t for n, t in self.head.state_dict().items()}
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])


def _pad_frames(states: list[Tensor], frames: int) -> Tensor:
    """Per utterance (states, time, width) to (batch, states, frames, width)."""
    return torch.stack([nn.functional.pad(s, (0, 0, 0, frames - s.shape[1])) for s in states])
