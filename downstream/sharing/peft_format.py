"""An adapter in the peft library's own format, proven to load there."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from emopeft.downstream.models.build import base_of
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.sharing import card
from emopeft.peft_modules.injection import Injected, injected, plain_model, quiet
from emopeft.peft_modules.liveness import probe_clips
from emopeft.upstream.base import Upstream

FILE = "adapter_model.safetensors"  # peft's name for it, beside adapter_config.json
# States that differ by less, relative to the largest value, are the same but for rounding;
# an adapter must also be reproduced to this part of what it changes at all.
SAME, PART = 1e-4, 0.05


def write(
    out: Path,
    model: AdaptedModel,
    config: dict[str, Any],
    upstream_path: str | None,
    encoder: dict[str, Tensor],
) -> dict[str, str] | None:
    """Write peft's files where they say everything; returns our tensors' names in them.

    They are written of a model that peft itself made of them and that gives the same states.
    """
    injection = _only_tuner(model)
    if injection is None:
        return None
    names = injection.config.target_modules
    # A pattern, which must fit from the first letter on: on a larger model (Whisper with its
    # decoder) a list of names would match somewhere else and load nothing, with a warning only.
    # Lily needs the list: its layers share tensors by the name that matched them.
    for targets in ("|".join(map(re.escape, sorted(names))), names):
        wrapped = _wrapped(injection, targets, model, config, upstream_path, encoder)
        if wrapped is not None:
            break
    else:
        return None
    with quiet():
        wrapped.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # peft's template; ours comes last
    saved = load_file(out / FILE)
    ours = {name: _wrapped_name(name).replace(".default", "") for name in encoder}
    if all(n in saved and torch.equal(saved[n], encoder[o]) for o, n in ours.items()):
        return ours
    # A method that stores its tensors in another form; peft's files stay, ours are complete.
    return None


def _wrapped(
    injection: Injected,
    targets: Any,
    model: AdaptedModel,
    config: dict[str, Any],
    upstream_path: str | None,
    encoder: dict[str, Tensor],
) -> Any:
    """A new plain model with the adapter, by peft alone; None where it gives other states."""
    from peft import get_peft_model

    fresh = base_of(config, upstream_path)
    settings = copy.deepcopy(injection.config)
    settings.base_model_name_or_path = card.Base.of(fresh, config["upstream"]).name
    settings.revision = fresh.revision
    settings.target_modules = targets
    plain: Any = plain_model(fresh)
    trained, bare = states(model.upstream), states(fresh)
    trains = {f"upstream.{n}" for part in model.adaptation.parts for n in part.sizes}
    with quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"] + 1)  # another one: peft's file must say it all
        wrapped: Any = get_peft_model(plain, settings)
        parameters = dict(wrapped.named_parameters())
        for name in trains:
            if _wrapped_name(name) not in parameters:
                return None
            parameters[_wrapped_name(name)].copy_(encoder[name])
    error = difference(trained, states(fresh.eval()))
    same = error <= min(SAME, PART * difference(trained, bare))
    return wrapped if same else None


def states(upstream: Upstream) -> list[Tensor]:
    """Its states of some noise."""
    with torch.no_grad():
        return [x.cpu() for x in upstream(probe_clips(upstream)).layers]


def difference(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference of two lists of states, relative to the largest value."""
    largest = max(1.0, *(float(x.abs().max()) for x in some))
    return max(float((x - y).abs().max()) for x, y in zip(some, others, strict=True)) / largest


def _wrapped_name(name: str) -> str:
    return "base_model.model." + name.removeprefix("upstream.model.")


def _only_tuner(model: AdaptedModel) -> Injected | None:
    """The tuner, when it is all that changes the plain model and the plain model calls it."""
    upstream: Upstream = model.upstream
    tuners = list(injected(upstream).values())
    if len(tuners) != 1 or not hasattr(upstream, "model"):
        return None
    tuner_ids = {id(p) for p in tuners[0].tuner.model.parameters()}
    patched = {id(p) for n, p in upstream.trainable() if "default" in n.split(".")}
    if any(id(p) not in tuner_ids or id(p) not in patched for _, p in upstream.trainable()):
        return None
    # transformers' own WavLM attention does not call its projections (PROTOCOLS.md, trap 1).
    return None if upstream.options.get("model_type") == "wavlm" else tuners[0]
