"""The upstream contract: a front end, then blocks, then an end; startable at any block.

An upstream is run as

    extract   waveform -> features     the part that even full fine-tuning usually keeps frozen
                                       (CNN, log-mel, convolutions)
    embed     features -> state 0      projection and position embedding: the input of block 0
    block i   state i  -> state i+1    for i in 0 .. L-1
    finish    the last block's output -> state L (the final norm, where a model has one)

`extract` followed by `embed` is the front end. Hidden states are the L+1 states of SUPERB: the
input of block 0, every block's output, the last one after the final norm (PROTOCOLS.md, trap 12).

Everything is deterministic in eval mode and independent of what else is in the batch: extraction
and embedding are done per group of equal lengths, blocks mask the padded frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from emopeft.upstream.identity import weights_hash
from emopeft.upstream.states import HiddenStates, States, no_lengths, pad

SAMPLE_RATE = 16000

# Where a forward pass starts: a block's index, or one of these two.
FROM_WAVEFORM = -2  # nothing is kept: extract, embed, blocks
FROM_FEATURES = -1  # the output of `extract` is kept


class Upstream(nn.Module):
    """A pretrained encoder. Families derive from this and fill in the four pieces.

    Attributes:
        name: the name it was asked for by.
        loader: "transformers", "s3prl" or "emopeft": never mixed in one row (trap 9).
        source: hub id or directory; revision: the hub's commit, when it came from there.
        licence: of the weights.
        code: revision of our own code of this family, raised when its states change: part of every
            cache key and of a run's identity, as the options are.
        width: D; num_blocks: L.
        stride: samples between two frames.
        min_samples: the shortest clip that gives a frame.
        max_samples: what of a longer clip is used; None: all.
        options: all that decides the states beside the weights' names and values (number of heads,
            normalisation of the waveform, window), as JSON values: part of every cache key and of
            a run's identity.
        roles: the linear layers of a block by role (q k v o fc1 fc2), as paths in the block.
        attention, feed_forward: paths in a block of its attention and its feed-forward module;
            None where that is not a module of its own (Whisper's two linear layers).
        norms: paths in a block of its layer norms, in the order they are applied.
        has_blocks: False for opaque collections (s3prl) that can only be run as a whole. Their
            ``blocks`` are filled all the same where they are recognised, so that methods can patch
            them.
        note: what every result must say of it (None for real encoders).
        standardise: whether a linear head needs its inputs standardised (unscaled functionals).
        traced: while a graph of one clip of any length is made of it: nothing is padded, values are
            not looked at, and no tensor is kept.
    """

    name: str
    loader: str = "transformers"
    source: str = ""
    revision: str | None = None
    licence: str = "unknown"
    code: str = "1"
    width: int
    num_blocks: int
    stride: int = 320
    min_samples: int = 400
    max_samples: int | None = None
    options: dict[str, Any]
    roles: dict[str, str]
    attention: str | None = None
    feed_forward: str | None = None
    norms: tuple[str, ...] = ()
    has_blocks: bool = True
    note: str | None = None
    standardise: bool = False
    traced: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.roles = {}
        self.options = {}
        # What methods put in, per block and in order (peft_modules/placing.py): modules that add
        # frames in front of its input, that are hooked into it, that are applied to its output.
        self.before_block = nn.ModuleList()
        self.inside_block = nn.ModuleList()
        self.after_block = nn.ModuleList()
        self.inside_front = nn.ModuleList()  # modules hooked into `extract`
        self.weights: str = ""  # SHA-256 of the loaded weights, set by `seal`
        self.parameter_count = 0  # of the loaded model, before anything is patched in
        self._lengthened: tuple[Tensor, int, bool, Tensor] | None = None
        self.method = ""  # what it was patched with (peft_modules.apply.adapt)

    @property
    def device(self) -> torch.device:
        """Where the weights are; whatever comes in is moved there, whatever goes out lies there."""
        place = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if place is None else place.device

    # ---- the pieces a family fills in -------------------------------------------------------

    def extract(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (samples,) at 16 kHz to features (time, channels), each on its own."""
        raise NotImplementedError

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features (time, channels) to the input of block 0 (time, width), each on its own."""
        raise NotImplementedError

    def run_block(self, i: int, frames: Tensor, lengths: Tensor) -> Tensor:
        """Block ``i`` alone on (batch, time, width); padded frames must not be attended to."""
        raise NotImplementedError

    def finish(self, frames: Tensor) -> Tensor:
        """The final norm, where the model has one."""
        return frames

    @property
    def blocks(self) -> nn.ModuleList:
        """The L blocks, where methods patch."""
        raise NotImplementedError

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules behind "extract", "embed" and "finish" (blocks are `blocks`)."""
        raise NotImplementedError

    def frames_of(self, samples: int) -> int:
        """How many frames a clip of ``samples`` gives."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Upstream:
        """As in torch, but batch normalisation always keeps its pretrained statistics.

        In train mode it would make an utterance depend on what else is in the batch.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    # ---- what follows from them -------------------------------------------------------------

    def seal(self) -> Upstream:
        """Freeze, switch to eval mode, and note the weights' hash and size. Called by loaders."""
        self.eval()
        self.requires_grad_(False)
        for name in ("before_block", "inside_block", "after_block"):
            setattr(self, name, nn.ModuleList(nn.ModuleList() for _ in range(self.num_blocks)))
        for module in self.modules():
            module.pretrained = True  # type: ignore[assignment]
        self.weights = weights_hash(self)
        self.parameter_count = sum(p.numel() for p in self.parameters())
        return self

    def frontend(self, wavs: Sequence[Tensor]) -> States:
        """Waveforms to the input of block 0."""
        return pad(self.embed(self.extract(wavs)))

    def block(self, i: int, states: States) -> States:
        """Block ``i`` with whatever methods put at its input and output.

        Frames added in front of the input are attended to like others and cut off after the block.
        """
        frames, lengths = states.frames, states.lengths
        for module in cast(nn.ModuleList, self.before_block[i]):
            frames = module(frames)
        added = frames.shape[1] - states.frames.shape[1]
        frames = self.run_block(i, frames, self._longer(lengths, added))[:, added:]
        for module in cast(nn.ModuleList, self.after_block[i]):
            frames = module(frames)
        return States(frames, lengths)

    def _longer(self, lengths: Tensor, added: int) -> Tensor:
        """The lengths with ``added`` frames more: one tensor for all blocks, not one for each.

        `attention_mask` of the transformers families looks at a batch's lengths once (on a GPU: it
        waits for them), and knows them by their tensor.
        """
        if not added:
            return lengths
        inference = torch.is_inference_mode_enabled()
        if self._lengthened is not None:
            of, more, mode, longer = self._lengthened
            if of is lengths and more == added and mode == inference:
                return longer
        longer = lengths + added
        self._lengthened = (lengths, added, inference, longer)
        return longer

    def forward(self, wavs: Sequence[Tensor]) -> HiddenStates:
        """All L+1 hidden states of a list of waveforms (samples,)."""
        return self.forward_from(FROM_WAVEFORM, wavs)

    def forward_from(self, start: int, inputs: Sequence[Tensor]) -> HiddenStates:
        """The states from ``start`` to L, computed from what `prefix` kept.

        Args:
            start: FROM_WAVEFORM, FROM_FEATURES or the index of the first block to run.
            inputs: per utterance, waveform (samples,), features (time, channels) or the state
                entering block ``start`` (time, width).

        Returns:
            L+1 states, or L+1-start from block ``start`` on, its input first.
        """
        if start == FROM_WAVEFORM:
            inputs = self.extract(inputs)
        if start < 0:
            inputs = self.embed(inputs)
        states = pad(inputs)
        layers = [states.frames]
        for i in range(max(start, 0), self.num_blocks):
            states = self.block(i, states)
            layers.append(states.frames)
        layers[-1] = self.finish(layers[-1])
        return HiddenStates(layers, states.lengths)

    @torch.no_grad()
    def prefix(self, start: int, wavs: Sequence[Tensor]) -> tuple[list[Tensor], HiddenStates]:
        """What `forward_from(start, ...)` needs, and the states below it (which are not in it).

        With ``start == num_blocks`` everything is frozen: the kept part is empty and the states
        are all L+1 of them.
        """
        if start == self.num_blocks:
            return [], self.forward(wavs)
        if start == FROM_WAVEFORM:
            return list(wavs), HiddenStates([], no_lengths(self.device))
        features = self.extract(wavs)
        if start == FROM_FEATURES:
            return features, HiddenStates([], no_lengths(self.device))
        embedded = self.embed(features)
        states = pad(embedded)
        layers = []
        for i in range(start):
            layers.append(states.frames)
            states = self.block(i, states)
        start_inputs = [x[: len(e)] for x, e in zip(states.frames, embedded, strict=True)]
        return start_inputs, HiddenStates(layers, states.lengths)

    def first_change(self) -> int:
        """Where training has to start: FROM_WAVEFORM, FROM_FEATURES, a block, or num_blocks."""

        def trains(modules: Sequence[nn.Module]) -> bool:
            return any(p.requires_grad for m in modules for p in m.parameters())

        parts = self.parts()
        if trains([*parts["extract"], self.inside_front]):
            return FROM_WAVEFORM
        if not self.has_blocks:
            return FROM_WAVEFORM if trains([self]) else self.num_blocks
        if trains(parts["embed"]):
            return FROM_FEATURES
        for i in range(self.num_blocks):
            if trains(self.block_modules(i)):
                return i
        # A final norm that trains is recomputed with the block below it.
        return self.num_blocks - 1 if trains(parts["finish"]) else self.num_blocks

    def block_modules(self, i: int) -> list[nn.Module]:
        """Block ``i`` and all that methods put before, into and after it."""
        return [self.before_block[i], self.blocks[i], self.inside_block[i], self.after_block[i]]

    def patched_below(self, start: int) -> str:
        """The method, where something of it sits below ``start`` (frozen again), else "".

        The tensors there do not say all: an adapter's place, mode or scale is in the method's
        spec only. So it belongs in the key of whatever is kept below ``start``.
        """
        everything = not self.has_blocks or start == self.num_blocks
        parts = self.parts()
        below: list[nn.Module] = [self] if everything else []
        if not everything and start > FROM_WAVEFORM:
            below = [*parts["extract"], self.inside_front, *(parts["embed"] if start >= 0 else [])]
            for i in range(max(start, 0)):
                below += self.block_modules(i)
        patched = any(
            not getattr(m, "pretrained", False) and any(True for _ in m.parameters())
            for module in below
            for m in module.modules()
        )
        return self.method if patched else ""

    def train_added(self, mode: bool = True) -> None:
        """Train mode (dropout) for what methods patched in, and for nothing that was pretrained."""
        for module in self.modules():
            if not getattr(module, "pretrained", False):
                module.training = mode

    def role(self, i: int, role: str) -> nn.Module:
        """The linear layer of block ``i`` that plays ``role``."""
        return self.blocks[i].get_submodule(self.roles[role])

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter of all that trains."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)
