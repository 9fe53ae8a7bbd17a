"""The outputs of a model on a set of utterances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.training.batching import micro_batches


@torch.inference_mode()
def outputs_of(
    model: torch.nn.Module,
    examples: Examples,
    indices: Sequence[int],
    keys: TrainKeys,
    accelerator: Accelerator,
) -> Tensor:
    """Outputs (len(indices), outputs) in float32 on the CPU, computed by all processes."""
    model.eval()
    local_indices = list(indices)[accelerator.process_index :: accelerator.num_processes]
    budget = math.inf if examples.preloaded is not None else keys.batch_seconds * 2
    groups = micro_batches(local_indices, examples.seconds, budget)
    pairs: list[tuple[int, Tensor]] = []
    batches = examples.prefetch(groups, accelerator.device)
    for group, inputs in zip(groups, batches, strict=True):
        pairs += zip(group, precise(model(inputs)).cpu(), strict=True)
    if accelerator.num_processes > 1:
        pairs = gather_object(pairs)
    by_index = dict(pairs)
    return torch.stack([by_index[i] for i in indices])


def precise(outputs: Tensor) -> Tensor:
    """Outputs in float32 at least."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()
