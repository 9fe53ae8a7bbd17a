"""Small adapters in the CNN front end, after each of its layers.

    x <- x + U ReLU(V x + b_V) + b_U per frame,   U = 0 and b_U = 0 at init, so the identity

x has the layer's channels. Everything above the front end has to be computed again, so nothing is
kept of a clip but its waveform. After Chen et al. 2023 (CHAPTER), who put such adapters into the
feature extractor of HuBERT. For the HuBERT-like families.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules import placing
from emopeft.peft_modules.ba import Bottleneck
from emopeft.peft_modules.base import Method, option, register
from emopeft.upstream.base import Upstream


class ChannelBottleneck(Bottleneck):
    """`Bottleneck` on the channels of (batch, channels, time)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


@register
@dataclasses.dataclass(frozen=True)
class CnnAdapter(Method):
    name = "cnn_adapter"
    summary = "bottleneck adapters in the CNN front end"
    reference = "after Chen et al. 2023, CHAPTER"
    order = 15

    bottleneck: int = option(32, "inner width")
    layers: str = option("all", "which layers of the CNN: all, last:N, or numbers such as 0-2+5")

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        if self.bottleneck < 1:
            raise UserError(f"cnn_adapter:bottleneck={self.bottleneck} must be at least 1")
        front = upstream.parts()["extract"]
        layers = getattr(front[0], "conv_layers", None) if front else None
        if layers is None:
            raise UserError(
                f"cnn_adapter needs the convolutional front end of HuBERT and its kin, which "
                f"{upstream.name} does not have; choose another method"
            )
        added = []
        for i in placing.chosen_blocks(self.layers, len(layers), "layers"):
            added.append(ChannelBottleneck(layers[i].conv.out_channels, self.bottleneck))
            placing.after_convolution(upstream, layers[i], added[-1])
        return [p for module in added for p in module.parameters()]
