"""An expert of s3prl's collection as an Upstream: run as a whole, one utterance at a time.

Clips are run one by one: several families give other values on padded batches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.upstream.base import FROM_WAVEFORM, SAMPLE_RATE, Upstream
from emopeft.upstream.states import HiddenStates, no_lengths, pad

# As in s3prl's interfaces.py: how many frames its own layers may differ.
TOLERATED = 5

# How blocks are recognised: linear layers by role and the norms, as fairseq and BERT name them.
_LAYOUTS: tuple[tuple[dict[str, str], tuple[str, ...]], ...] = (
    (
        {
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.out_proj",
            "fc1": "fc1",
            "fc2": "fc2",
        },
        ("self_attn_layer_norm", "final_layer_norm"),
    ),
    (
        {
            "q": "attention.self.query",
            "k": "attention.self.key",
            "v": "attention.self.value",
            "o": "attention.output.dense",
            "fc1": "intermediate.dense",
            "fc2": "output.dense",
        },
        ("attention.output.LayerNorm", "output.LayerNorm"),
    ),
)


class CollectionUpstream(Upstream):
    """An expert of s3prl, opaque: run as a whole.

    Where its transformer layers are recognised by their names, methods can patch them (they are
    run from the waveform all the same); whether a patch is live, the proof decides.

    States are the expert's ``hidden_states``; ``num_blocks`` is their number less one, found by a
    trial run, as are the width, the stride and the shortest clip. Frames count as valid up to the
    expert's downsample rate times the clip's samples, as in s3prl.

    Args:
        name: of s3prl's collection.
        expert: the module that its entry makes.
        facts: what decides the states beside the weights: s3prl's version, the digest of a file
            given by the user.
    """

    loader = "s3prl"
    has_blocks = False

    def __init__(self, name: str, expert: nn.Module, facts: Mapping[str, str] | None = None):
        super().__init__()
        self.expert: Any = expert
        self.options = {"s3prl": name, **(facts or {})}
        # Some experts have neither parameters nor buffers, and have to be somewhere.
        self.register_buffer("_place", torch.zeros(0), persistent=False)
        self._blocks: Any = []
        self._switch_projections_on()
        self.eval()
        with torch.no_grad():
            trial = self._run(_noise(SAMPLE_RATE))
            self.width = trial[-1].shape[-1]
            self.num_blocks = len(trial) - 1
            self.stride = self._rate(trial)
            self.min_samples = self._shortest()
        self._recognise_blocks()

    @property
    def blocks(self) -> nn.ModuleList:
        return self._blocks

    def _recognise_blocks(self) -> None:
        for modules in (m for m in self.expert.modules() if isinstance(m, nn.ModuleList)):
            if len(modules) != self.num_blocks:
                continue
            for roles, norms in _LAYOUTS:
                paths = {name for name, _ in modules[0].named_modules()}
                if paths.issuperset([*roles.values(), *norms]):
                    # Not a submodule twice over: every parameter keeps one name.
                    self.__dict__["_blocks"] = modules
                    self.roles, self.norms = dict(roles), norms
                    self.attention = roles["q"].rpartition(".")[0].removesuffix(".self")
                    return

    def __deepcopy__(self, memo: dict[int, Any]) -> CollectionUpstream:
        """A copy whose expert collects its own states: s3prl's hooks hold on to the original's."""
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        hooks = getattr(copied.expert, "hooks", None)
        if isinstance(hooks, list) and hasattr(copied.expert, "_register_hook_handler"):
            for module in copied.expert.modules():
                for key, hook in list(module._forward_hooks.items()):
                    if "generate_hook_handler" in getattr(hook, "__qualname__", ""):
                        del module._forward_hooks[key]
            for hook in hooks:
                hook.handler = None
                copied.expert._register_hook_handler(hook)
        return copied

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CollectionUpstream:
        """As in torch, and with the tensors that experts keep as plain attributes."""
        super()._apply(fn, recurse)
        for module in self.expert.modules():
            for name, value in list(vars(module).items()):
                if not isinstance(value, nn.Parameter):
                    vars(module)[name] = _moved(value, fn)
        return self

    def parts(self) -> dict[str, list[nn.Module]]:
        return {"extract": [], "embed": [], "finish": []}

    def frames_of(self, samples: int) -> int:
        """Measured: one run on noise of this length."""
        with torch.no_grad():
            return self._valid(self._run(_noise(samples)), samples)

    def forward(self, wavs: Sequence[Tensor]) -> HiddenStates:
        per_clip = []
        for wav in wavs:
            states = self._run(wav)
            per_clip.append([x[: self._valid(states, len(wav))] for x in states])
        layers = [pad(items) for items in zip(*per_clip, strict=True)]
        return HiddenStates([x.frames for x in layers], layers[0].lengths)

    def forward_from(self, start: int, inputs: Sequence[Tensor]) -> HiddenStates:
        if start != FROM_WAVEFORM:
            raise UserError(f"{self.name} can only be run from the waveform")
        return self(inputs)

    def prefix(self, start: int, wavs: Sequence[Tensor]) -> tuple[list[Tensor], HiddenStates]:
        if start == FROM_WAVEFORM:
            return list(wavs), HiddenStates([], no_lengths(self.device))
        if start != self.num_blocks:
            raise UserError(f"{self.name} can only be run from the waveform")
        with torch.no_grad():
            return [], self(wavs)

    def _run(self, wav: Tensor) -> list[Tensor]:
        """All states (time, width) of one clip, cut to the shortest."""
        place = self.device
        output = self.expert([wav.to(place, torch.float32)])
        states = output.get("hidden_states")
        if states is None:
            states = output["last_hidden_state"]
        if isinstance(states, dict):
            states = list(states.values())
        if isinstance(states, Tensor):
            states = [states]
        frames = [x[0] for x in states]
        counts, widths = [len(x) for x in frames], {x.shape[-1] for x in frames}
        if len(widths) > 1 or max(counts) - min(counts) > TOLERATED:
            raise UserError(
                f"the layers of s3prl:{self.options['s3prl']} have different widths or frame "
                "rates and cannot be weighed against each other; choose another upstream"
            )
        return [x[: min(counts)].to(place) for x in frames]  # a few compute on the CPU

    def _rate(self, trial: list[Tensor]) -> int:
        if hasattr(self.expert, "get_downsample_rates"):
            return int(self.expert.get_downsample_rates("hidden_states"))
        return round(SAMPLE_RATE / max(1, len(trial[-1])))

    def _valid(self, states: list[Tensor], samples: int) -> int:
        return min(len(states[-1]), max(1, round(samples / self.stride)))

    def _shortest(self) -> int:
        low, high = 0, SAMPLE_RATE  # `high` works
        while high - low > 1:
            middle = (low + high) // 2
            try:
                last = self._run(_noise(middle))[-1]
                works = len(last) > 0 and bool(last.isfinite().all())
            except Exception:  # each family fails in its own way
                works = False
            low, high = (low, middle) if works else (middle, high)
        return high

    def _switch_projections_on(self) -> None:
        """Have attentions call their projections, else LoRA on them is dead (trap 1)."""
        for module in self.modules():
            switch: Any = getattr(module, "_set_skip_embed_dim_check", None)
            if switch is not None:
                switch()


def _noise(samples: int) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(0)) * 0.1


def _moved(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or a list, tuple or dict of nothing but tensors, with ``fn`` applied."""
    if isinstance(value, Tensor):
        return fn(value)
    if type(value) in (list, tuple) and value and all(isinstance(x, Tensor) for x in value):
        return type(value)(fn(x) for x in value)
    if type(value) is dict and value and all(isinstance(x, Tensor) for x in value.values()):
        return {k: fn(x) for k, x in value.items()}
    return value
