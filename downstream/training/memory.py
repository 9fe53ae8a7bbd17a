"""Less memory, or less time, for the same numbers: checkpointing and compilation of blocks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.models.model import AdaptedModel
from emopeft.errors import UserError


def save_memory_and_time(model: AdaptedModel, keys: TrainKeys) -> None:
    """Checkpointing and compilation of the blocks that train, where the recipe asks for them."""
    upstream = model.upstream
    if not (keys.checkpointing or keys.compile) or model.start == upstream.num_blocks:
        return
    if not upstream.has_blocks:
        raise UserError(
            f"train.compile and train.checkpointing need an upstream that runs block by block, and "
            f"{upstream.name} is run as a whole; set both to false"
        )
    if keys.compile:
        for block in upstream.blocks[max(model.start, 0) :]:
            block.compile(dynamic=True)
    if keys.checkpointing:
        inner = upstream.run_block

        def run_block(i: int, frames: Tensor, lengths: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return inner(i, frames, lengths)
            return checkpoint(inner, i, frames, lengths, use_reentrant=False)

        upstream.run_block = run_block  # type: ignore[method-assign]
