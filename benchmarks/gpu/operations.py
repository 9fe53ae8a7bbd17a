"""How many operations an encoder of HuBERT's kind takes, worked out from its configuration.

A multiplication and an addition count as two. For one clip of S samples, with T frames, width D,
inner width F:

    front    sum over the convolutions of 2 T_l C_l C_(l-1) k_l   (T_l, C_l: frames and channels)
    embed    2 T C D  (projection)  +  2 T' D (D / g) k           (position convolution, g groups,
                                                                   T' = T + 1 for an even k)
    block    8 T D^2  (q, k, v, o)  +  4 T D F  (feed-forward)  +  4 T^2 D  (scores and their sums)

Norms, activations and the head are left out (under one per cent). A backward pass through layers
that train takes twice their forward pass (gradients of inputs and of weights), through frozen ones
below something that trains once (of inputs). So a step takes, per clip:

    plain loop, all trains           3 (front + embed + L block)
    plain loop, LoRA in all blocks   front + embed + 2 L block
    plain loop, the last n blocks    front + embed + L block + 2 n block
    ours, full                       3 (embed + L block)          the front is kept
    ours, LoRA in all blocks         2 L block                    front and embed are kept
    ours, the last n blocks          3 n block                    all below is kept
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Operations:
    """Of a forward pass of one clip; ``block`` is of one of ``blocks``."""

    front: float
    embed: float
    block: float
    blocks: int

    @classmethod
    def of(cls, config: Any, samples: int) -> Operations:
        """Of a configuration of transformers' HuBERT (or wav2vec 2.0)."""
        frames, channels, front = samples, 1, 0.0
        for out, kernel, stride in zip(
            config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
        ):
            frames = (frames - kernel) // stride + 1
            front += 2.0 * frames * out * channels * kernel
            channels = out
        width, inner = config.hidden_size, config.intermediate_size
        kernel, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        position = 2.0 * (frames + (kernel % 2 == 0)) * width * (width // groups) * kernel
        block = 8.0 * frames * width**2 + 4.0 * frames * width * inner + 4.0 * frames**2 * width
        return cls(front, 2.0 * frames * channels * width + position, block,
                   config.num_hidden_layers)  # fmt: skip

    @property
    def forward(self) -> float:
        """Of the whole encoder."""
        return self.front + self.embed + self.blocks * self.block

    def step(self, method: str, ours: bool) -> float:
        """Of a training step, forwards and backwards: "full", "lora" or "partial:N"."""
        if method == "full":
            return 3 * (self.forward - self.front * ours)
        if method == "lora":
            return 2 * self.blocks * self.block + (0 if ours else self.front + self.embed)
        last = int(method.removeprefix("partial:"))
        return 3 * last * self.block if ours else self.forward + 2 * last * self.block
