"""Putting a tuner of the peft library on the linear layers of an upstream's plain model.

The tuner works on the transformers model itself, not on the Upstream around it, so that what is
saved fits the plain model (`PeftModel.from_pretrained`). No ``task_type``: with one, peft passes
text arguments (PROTOCOLS.md, trap 8).
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules.placing import target_names
from emopeft.upstream.base import Upstream

ADAPTER = "default"  # peft's name for the one adapter of a tuner
# Fields of peft's configurations that say where something comes from, not what is computed.
ABOUT = {
    *("peft_version", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode"),
    *("tokenizer_name_or_path", "progressbar"),
}


@dataclasses.dataclass
class Injected:
    """A tuner on a model.

    Attributes:
        tuner: peft's BaseTuner, whose ``model`` is the patched one.
        changed: base weights that the tuner's initialisation replaced (PiSSA), as they were.
        resolved: peft's configuration as it was before any training, see `plain_config`.
    """

    tuner: Any
    changed: dict[str, Tensor]
    resolved: dict[str, Any]

    @property
    def config(self) -> Any:
        """peft's configuration."""
        return self.tuner.peft_config[ADAPTER]

    def replaced(self) -> list[Tensor]:
        """The base weights that `changed` tells of, as they are now (in the wrapped layers)."""
        weights = []
        for name in self.changed:
            path, _, last = name.rpartition(".")
            layer = self.tuner.model.get_submodule(path)
            weights.append(getattr(getattr(layer, "base_layer", layer), last))
        return weights

    def unload(self) -> None:
        """Take the tuner off; the model's weights are what they were before it."""
        self.tuner.unload()
        with torch.no_grad():
            for name, weight in self.changed.items():
                self.tuner.model.get_parameter(name).copy_(weight)
        forget(self.tuner.model)

    def merge(self, name: str) -> None:
        """Write the update into the model's weights and take the tuner off.

        Raises UserError when peft cannot merge this method.
        """
        try:
            with quiet():
                self.tuner.merge_and_unload()
        except (NotImplementedError, AttributeError, ValueError, TypeError) as error:
            raise UserError(
                f"peft cannot merge '{name}' into plain weights ({first_line(error)}); use export"
            ) from error
        forget(self.tuner.model)


def injected(module: nn.Module) -> dict[str, Injected]:
    """The tuners on an upstream or on a head, by method."""
    return module.__dict__.setdefault("tuners", {})


def plain_model(upstream: Upstream) -> nn.Module:
    """The library's own model inside an upstream: what a tuner works on and what is saved."""
    model = getattr(upstream, "model", None) or getattr(upstream, "expert", None)
    if not isinstance(model, nn.Module):
        raise UserError(f"{upstream.name} has no model that could be patched; use -p none")
    return model


def inject(
    upstream: Upstream,
    method: str,
    kind: str,
    arguments: dict[str, Any],
    roles: tuple[str, ...],
    blocks: str,
) -> list[nn.Parameter]:
    """Put a tuner on linear layers chosen by role and block; returns what it wants trained.

    Args:
        method: our name for it. kind: peft's PeftType. arguments: of peft's configuration.

    Raises:
        UserError: no such layers, layers that another tuner is on, or options peft refuses.
    """
    model = plain_model(upstream)
    names = target_names(upstream, roles, blocks, model)
    for name in names:
        if hasattr(model.get_submodule(name), "base_layer"):
            raise UserError(
                f"{method} cannot be put on {name}, which another method of the sum has already "
                "patched; give the two different targets or blocks"
            )
    if "feedforward_modules" in arguments:  # IA3 scales the input of these, else the output
        feed_forward = {r for r in roles if r in ("fc1", "fc2")}
        chosen = target_names(upstream, tuple(feed_forward), blocks, model) if feed_forward else []
        arguments = arguments | {"feedforward_modules": chosen}
    injected(upstream)[method], parameters = put_on(model, method, kind, names, arguments)
    return parameters


def inject_head(
    head: nn.Module, method: str, kind: str, arguments: dict[str, Any]
) -> list[nn.Parameter]:
    """Put a tuner on the last linear layer of a head's classifier, or of each where it has several
    (one per group of outputs)."""
    linears = [n for n, m in head.named_modules() if isinstance(m, nn.Linear)]
    of_classifier = [n for n in linears if "classifier" in n.split(".")]
    last = {n.partition("classifier")[0]: n for n in of_classifier}
    names = list(last.values())
    if not names:
        raise UserError("this head has no linear classifier to patch; take head.name=superb")
    trained = [p for p in head.parameters() if p.requires_grad]
    frozen = {id(p) for name in names for p in head.get_submodule(name).parameters()}
    injected(head)[method], parameters = put_on(head, method, kind, names, arguments)
    for parameter in trained:  # the tuner froze the whole head
        parameter.requires_grad_(id(parameter) not in frozen)
    return parameters


def put_on(
    model: nn.Module, method: str, kind: str, names: list[str], arguments: dict[str, Any]
) -> tuple[Injected, list[nn.Parameter]]:
    """A tuner on these layers, and the parameters that it switched on."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    configs: Any = PEFT_TYPE_TO_CONFIG_MAPPING
    tuners: Any = PEFT_TYPE_TO_TUNER_MAPPING
    # Plain LoRA is known to leave the weights alone: no second copy of them is needed. Others may
    # write into them, so they work on a copy: the memory may be shared with other models.
    known = kind == "LORA" and "init_lora_weights" not in arguments
    watched: dict[str, Any] = {} if known else {n: model.get_submodule(n) for n in names}
    before = {n: layer.weight.detach() for n, layer in watched.items()}
    for name, layer in watched.items():
        layer.weight.data = before[name].clone()
    model.requires_grad_(False)
    try:
        with quiet():
            config = configs[kind](target_modules=names, **arguments)
            tuner = tuners[kind](model, config, ADAPTER)
    except (ValueError, TypeError, AssertionError, RuntimeError, KeyError, ImportError) as error:
        raise UserError(f"peft refuses '{method}' here: {first_line(error)}") from error
    parameters = [p for p in model.parameters() if p.requires_grad]
    changed = {}
    for name, layer in watched.items():
        if not torch.equal(layer.weight, before[name]):
            changed[f"{name}.weight"] = before[name]
        else:
            layer.weight.data = before[name]
    return Injected(tuner, changed, plain_config(config)), parameters


def plain_config(config: Any) -> dict[str, Any]:
    """Those fields of peft's configuration that are plain values, as JSON.

    Many are not options of ours and take peft's defaults, which may differ in the next version:
    checkpoints hold them all.
    """
    options = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in ABOUT and _is_plain(value):
            options[field.name] = _as_json(value)
    return options


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple, set)):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str, enum.Enum))


def _as_json(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return _as_json(value.value)
    if isinstance(value, dict):
        return {k: _as_json(v) for k, v in value.items()}
    if isinstance(value, set):
        return sorted(map(_as_json, value), key=str)
    return [_as_json(v) for v in value] if isinstance(value, (list, tuple)) else value


def forget(model: nn.Module) -> None:
    """Remove the configuration that a tuner leaves on its model."""
    if hasattr(model, "peft_config"):
        del model.peft_config


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """peft's advice to its own users is noise to ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    """An error's first line, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
