"""The battery's table: every family, every method (with options that fit the tiny models)."""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.frozen import empty_states, per_utterance
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.build import assemble
from emopeft.downstream.models.model import AdaptedModel
from emopeft.peft_modules.apply import Adaptation, adapt
from emopeft.peft_modules.base import METHODS, parse
from emopeft.peft_modules.library import PeftMethod
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import load
from tests.tiny import TINY


def _s3prl(family: str) -> Upstream:
    """s3prl's own model, small, as its collection gives it."""
    from tests.upstream.test_s3prl import checkpoint

    with tempfile.TemporaryDirectory() as folder:
        return load(f"s3prl:{family}_custom", checkpoint(family, Path(folder) / "model.pt"))


FAMILIES: dict[str, Callable[[], Upstream]] = dict(TINY)
if importlib.util.find_spec("s3prl"):
    for _family in ("hubert", "wav2vec2"):
        FAMILIES[f"s3prl_{_family}"] = functools.partial(_s3prl, _family)

# Sizes that are too large for a width of 32 by default.
SMALL = {
    "adamss": "adamss:r=8",
    "c3a": "c3a:block_size=16",
    "gralora": "gralora:r=8",
    "hira": "hira:r=8",
    "lily": "lily:r=4",
    "miss": "miss:r=8",
    "oft": "oft:oft_block_size=16",
    "partial": "partial:1",
    "peanut": "peanut:r=8",
    "psoft": "psoft:r=8",
    "pvera": "pvera:r=8",
    "qalora": "qalora:qalora_group_size=16",
    "randlora": "randlora:r=8",
    "road": "road:group_size=16",
    "shira": "shira:r=4",
    "unilora": "unilora:theta_d_length=16",
    "vblora": "vblora:vector_length=16,num_vectors=8",
    "vera": "vera:r=8",
    "waveft": "waveft:n_frequency=100",
}
MODULES = ("lora", "ba", "ws", "wg")
FIFTEEN = ["+".join(chosen) for n in range(1, 5) for chosen in itertools.combinations(MODULES, n)]
VARIANTS = [
    "ba:attention=true,bottleneck=8",
    "adapter:mode=parallel",
    "lora@peft-ser",
    "lora:blocks=last:1,targets=q+fc2,dropout=0.1",
    "lora:targets=classifier",
    "ws:layers=blocks",
    "lora+prompt+wg",
    "prefix:2+ba",
    "lora+bitfit+layernorm",
    "lora+partial:1",
]


def specs() -> list[str]:
    """All methods of the registry, the 15 sums, and variants."""
    return [SMALL.get(name, name) for name in METHODS] + FIFTEEN[4:] + VARIANTS


def mergeable(family: str, spec: str) -> bool:
    """Whether a trained one can be written into the plain model's weights."""
    peft_cannot = {"lily"} | ({"beft"} if family == "moonshine" else set())  # its v has no bias
    return all(
        m.name not in peft_cannot
        and (not m.adds or m.name in ("none", "ws", "lora") or isinstance(m, PeftMethod))
        for m in parse(spec)
    )


def refusal(family: str, spec: str) -> str | None:
    """What the refusal says where a method cannot be placed, or None."""
    if "cnn_adapter" in spec and family in (
        "whisper",
        "moonshine",
        "s3prl_hubert",
        "s3prl_wav2vec2",
    ):
        return "convolutional front end"
    if family.startswith("s3prl") and ("prompt" in spec or "prefix" in spec):
        return "runs block by block"
    return None


def clips(device: torch.device | str = "cpu") -> list[Tensor]:
    """Two short clips of different lengths, so that one is padded."""
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(n, generator=generator) * 0.1).to(device) for n in (3600, 2400)]


@functools.cache
def base(family: str, device: str = "cpu") -> tuple[Upstream, list[Tensor], list[Tensor]]:
    """The unpatched upstream, its features of the clips (none, if opaque), and its states."""
    upstream = FAMILIES[family]().to(device)
    upstream.name = family
    with torch.no_grad():
        features = upstream.extract(clips(device)) if upstream.has_blocks else []
        return upstream, features, upstream(clips(device)).layers


def built(
    upstream: Upstream, spec: str, prove: bool = True, seed: int = 0
) -> tuple[Adaptation, AdaptedModel]:
    """An adapted copy with a head, all that is drawn from ``seed``, on the upstream's device."""
    torch.manual_seed(seed)
    adaptation = adapt(copy.deepcopy(upstream), spec, prove=prove)
    torch.manual_seed(seed)
    weighted = any(m.name == "ws" for m in adaptation.methods)
    head = make_head(
        "superb",
        width=upstream.width,
        states=upstream.num_blocks + 1,
        outputs=4,
        layers="weighted_sum" if weighted else "last",
        hidden=16,
    )
    model = assemble(adaptation, head, dropout=False)
    return adaptation, model.to(device_of(upstream))


def device_of(module: torch.nn.Module) -> torch.device:
    """Where its tensors lie."""
    return next(module.parameters()).device


def batch_of(model: AdaptedModel) -> Batch:
    """The clips as a model takes them, of two of its classes."""
    device = device_of(model)
    kept, below = model.upstream.prefix(model.start, clips(device))
    pooled = model.head.pooled
    states = empty_states(model.upstream, pooled, 2, device)
    if below.layers:
        states = below.means() if pooled else per_utterance(below, False)
    return Batch(states, kept, torch.tensor([[0.0], [1.0]], device=device))
