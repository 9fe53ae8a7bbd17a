"""What the encoders of the transformers library share: device, padding mask, final norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.upstream.base import Upstream
from emopeft.upstream.states import mask_of


class TransformersUpstream(Upstream):
    """An Upstream around an encoder of transformers, which stays whole under ``self.model``.

    So peft can patch it, and what is trained can be saved for the plain transformers model. Its
    pieces are called one by one: no layerdrop, no SpecAugment, whatever the configuration says.
    """

    loader = "transformers"
    model: Any
    # Whether clips of different lengths go through the front end as one padded batch, where that is
    # exact. None: on accelerators, where every call costs; on the CPU it gains nothing, and a clip
    # keeps its bits whatever it is batched with.
    one_batch: bool | None = None

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self._mask: tuple[Tensor, int, bool, Tensor | None] | None = None

    def as_one_batch(self, items: Sequence[Tensor]) -> bool:
        """Whether to pad these (time first) into one batch, rather than to group equal lengths."""
        pad_allowed = self.device.type != "cpu" if self.one_batch is None else self.one_batch
        return pad_allowed and len({len(x) for x in items}) > 1

    def attention_mask(self, lengths: Tensor, frames: int) -> Tensor | None:
        """Booleans (batch, 1, 1, frames), true where attended to; None when nothing is padded.

        Kept from block to block, to look at the lengths (on a GPU: to wait) once per batch.
        """
        if self.traced:
            return None
        inference = torch.is_inference_mode_enabled()
        if self._mask is not None:
            of, size, mode, mask = self._mask
            if of is lengths and size == frames and mode == inference:
                return mask
        mask = mask_of(lengths, frames)
        mask = None if bool(mask.all()) else mask[:, None, None, :]
        self._mask = (lengths, frames, inference, mask)
        return mask


def conv_frames(samples: int, kernels: list[int], strides: list[int]) -> int:
    """Frames that a stack of unpadded convolutions makes of ``samples``."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)


def conv_reach(kernels: list[int], strides: list[int]) -> int:
    """The fewest samples of which a stack of unpadded convolutions makes one frame."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def numbers(config: Any, names: str) -> dict[str, Any]:
    """The named values of a configuration that change the states without being weights."""
    values = {n: getattr(config, n, None) for n in names.split()}
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items() if v is not None}
