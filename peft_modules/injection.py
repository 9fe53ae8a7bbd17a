"""Putting a tuner of the peft library on the linear layers of an upstream's plain model.

The tuner works on the transformers model itself, not on the Upstream around it, so that what is
saved fits the plain model (`PeftModel.from_pretrained`). No ``task_type``: with one, peft passes
text arguments (PROTOCOLS.md, trap 8).
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.peft_modules.placing import target_names
from emopeft.upstream.base import Upstream

ADAPTER = "default"  # peft's name for the one adapter of a tuner


@dataclasses.dataclass
class Injected:
    """A tuner on a model.

    Attributes:
        tuner: peft's BaseTuner, whose ``model`` is the patched one.
        changed: base weights that the tuner's initialisation replaced (PiSSA), as they were.
    """

    tuner: Any
    changed: dict[str, Tensor]

    @property
    def config(self) -> Any:
        """peft's configuration."""
        return self.tuner.peft_config[ADAPTER]

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


def injected(upstream: Upstream) -> dict[str, Injected]:
    """The tuners on an upstream, by method."""
    return upstream.__dict__.setdefault("tuners", {})


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
    tuner, parameters, changed = put_on(model, method, kind, names, arguments)
    injected(upstream)[method] = Injected(tuner, changed)
    return parameters


def inject_head(head: nn.Module, kind: str, arguments: dict[str, Any]) -> list[nn.Parameter]:
    """Put a tuner on the last linear layer of a head's classifier."""
    linears = [n for n, m in head.named_modules() if isinstance(m, nn.Linear)]
    names = [n for n in linears if n.split(".")[0] == "classifier"][-1:]
    if not names:
        raise UserError("this head has no linear classifier to patch; take head.name=superb")
    trained = [p for p in head.parameters() if p.requires_grad]
    layer = head.get_submodule(names[0])
    frozen = {id(p) for p in layer.parameters()}
    _, parameters, _ = put_on(head, "lora", kind, names, arguments)
    for parameter in trained:  # the tuner froze the whole head
        parameter.requires_grad_(id(parameter) not in frozen)
    return parameters


def put_on(
    model: nn.Module, method: str, kind: str, names: list[str], arguments: dict[str, Any]
) -> tuple[Any, list[nn.Parameter], dict[str, Tensor]]:
    """A tuner, the parameters it switched on, and the base weights that it changed."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    configs: Any = PEFT_TYPE_TO_CONFIG_MAPPING
    tuners: Any = PEFT_TYPE_TO_TUNER_MAPPING
    # Plain LoRA is known to leave the weights alone: no second copy of them is needed.
    known = kind == "LORA" and "init_lora_weights" not in arguments
    watched: dict[str, Any] = {} if known else {n: model.get_submodule(n) for n in names}
    before = {n: layer.weight.detach().clone() for n, layer in watched.items()}
    model.requires_grad_(False)
    try:
        with quiet():
            config = configs[kind](target_modules=names, **arguments)
            tuner = tuners[kind](model, config, ADAPTER)
    except (ValueError, TypeError, AssertionError, RuntimeError, KeyError, ImportError) as error:
        raise UserError(f"peft refuses '{method}' here: {first_line(error)}") from error
    parameters = [p for p in model.parameters() if p.requires_grad]
    changed = {
        f"{n}.weight": before[n]
        for n, layer in watched.items()
        if not torch.equal(layer.weight, before[n])
    }
    return tuner, parameters, changed


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
