"""Every method of the installed peft that patches linear layers, by peft's name and options.

Nothing here is a list of methods: names and options are read from peft when one is asked for, and
a method is taken in when it can be put on a small stack of linear layers and trains there. Left
out by rule:

- prompt learning, whose configurations have no ``target_modules``: it acts on a language model's
  inputs; here ``prompt`` and ``prefix`` do that for speech encoders;
- those that fail the trial (they need token ids, task ids, a language model);
- ``ln_tuning`` (on linear layers it trains a copy of the whole layer; here it is ``layernorm``).

LoRA's variants are methods too: each switch ``use_NAME`` of its configuration, and each of its
initialisations that changes the base weights, unless it wants calibration data (a field
``NAME_config``): dora, rslora, pissa, olora ...

Options are the fields of peft's configuration that can be written in a name, with peft's defaults,
beside our ``targets`` and ``blocks``. Seeds that peft leaves unset are 0.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import textwrap
import typing
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emopeft.errors import UserError
from emopeft.options import simple
from emopeft.peft_modules.base import METHODS, Method
from emopeft.peft_modules.injection import ADAPTER, inject, injected
from emopeft.peft_modules.trial import changes_weights, trial
from emopeft.upstream.base import Upstream

# Set by us, or about other things than linear layers of a speech encoder.
OURS = {
    *("layers_pattern", "fan_in_fan_out", "megatron_core", "total_step", "progressbar"),
    *("peft_type", "task_type", "inference_mode", "revision", "base_model_name_or_path"),
    *("peft_version", "auto_mapping", "tokenizer_name_or_path"),
}
BY_RULE = {"ln_tuning": "on linear layers it would train a copy of each; take 'layernorm'"}
# Roles where not q k v o: of the paper (IA3, BEFT), or because part of the method would be dead
# there (GLoRA's biases on keys, to which attention is invariant, and before a layer norm).
TARGETS = {"ia3": ("k", "v", "fc2"), "beft": ("v",), "glora": ("q", "v")}


@dataclasses.dataclass(frozen=True)
class PeftMethod(Method):
    """A method of peft; subclasses are made at run time with peft's fields as options.

    Class attributes:
        type_name: peft's PeftType. fixed: fields that make a variant of it.
    """

    type_name: ClassVar[str]
    fixed: ClassVar[dict[str, Any]] = {}
    order = 20

    def arguments(self) -> dict[str, Any]:
        """Of peft's configuration: what differs from its defaults, and what we decide."""
        config = _configs()[self.type_name]
        fields = {f.name: f for f in dataclasses.fields(config)}
        ours = {"progressbar": False, "total_step": 10**9, "feedforward_modules": []}
        arguments = {k: v for k, v in ours.items() if k in fields}
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in fields and value != fields[name].default:
                arguments[name] = value
        return arguments | self.fixed

    def patch(self, upstream: Upstream) -> Iterable[nn.Parameter]:
        targets, blocks = self.targets, self.blocks  # type: ignore[attr-defined]
        return inject(upstream, self.name, self.type_name, self.arguments(), targets, blocks)

    def changed(self, upstream: Upstream) -> Iterable[Tensor]:
        return injected(upstream)[self.name].replaced()

    def resolved(self, upstream: nn.Module) -> dict[str, Any] | None:
        injection = injected(upstream).get(self.name)
        return None if injection is None else injection.resolved

    def remove(self, upstream: Upstream) -> None:
        injected(upstream).pop(self.name).unload()

    def merge(self, upstream: Upstream) -> None:
        injected(upstream).pop(self.name).merge(self.name)

    # ---- AdaLoRA's schedule (and that of any tuner with the same function) ------------------

    def after_step(self, upstream: Upstream, step: int, total: int) -> None:
        """Let the tuner move its budget of ranks; the schedule's length is the training's.

        Where ``tinit`` and ``tfinal`` are left at 0 they are a tenth and a fifth of it.
        """
        tuner = injected(upstream)[self.name].tuner
        if not hasattr(tuner, "update_and_allocate"):
            return
        config = tuner.peft_config[ADAPTER]
        if getattr(config, "total_step", total) != total:
            config.total_step = total
            if not config.tinit and not config.tfinal:
                config.tinit, config.tfinal = total // 10, total // 5
        tuner.update_and_allocate(step)

    def penalty(self, upstream: Upstream) -> Tensor | None:
        """AdaLoRA's: the mean of |P P' - I| and |Q' Q - I| over its matrices, weighted."""
        injection = injected(upstream)[self.name]
        weight = getattr(injection.config, "orth_reg_weight", None)
        if not weight:
            return None
        terms = []
        for name, p in injection.tuner.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                product = p @ p.T if "lora_A" in name else p.T @ p
                identity = torch.eye(len(product), device=p.device, dtype=p.dtype)
                terms.append(torch.linalg.matrix_norm(product - identity))
        return weight * torch.stack(terms).mean()

    def progress(self, upstream: Upstream) -> dict[str, Any]:
        allocator: Any = getattr(injected(upstream)[self.name].tuner, "rankallocator", None)
        if allocator is None:
            return {}
        config = allocator.peft_config
        averages = ("ipt", "exp_avg_ipt", "exp_avg_unc")
        schedule = ("total_step", "tinit", "tfinal", "rank_pattern")
        return {n: dict(getattr(allocator, n)) for n in averages} | {
            n: getattr(config, n) for n in schedule
        }

    def load_progress(self, upstream: Upstream, state: dict[str, Any]) -> None:
        if not state:
            return
        tuner = injected(upstream)[self.name].tuner
        device = next(tuner.model.parameters()).device
        for name, value in state.items():
            if hasattr(tuner.rankallocator, name):
                value = {k: v.to(device) for k, v in value.items()}
                setattr(tuner.rankallocator, name, value)
            else:
                setattr(tuner.rankallocator.peft_config, name, value)


class PeftLibrary:
    """What the installed peft has, for `peft_modules.base.METHODS`."""

    def names(self) -> list[str]:
        """All names that can be asked for (some may fail the trial)."""
        return sorted(_known())

    def make(self, name: str) -> type[Method]:
        """The method; raises UserError with the reason when it does not patch linear layers."""
        type_name, fixed = _known()[name]
        if name in BY_RULE:
            raise UserError(f"peft's '{name}' is left out: {BY_RULE[name]}")
        cls = _class(name, type_name, fixed)
        cls.identity = trial(cls)
        return cls


METHODS.library = PeftLibrary()


@functools.cache
def _configs() -> dict[str, Any]:
    """PeftType to configuration class, of the types that can be put on chosen modules."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    configs = {}
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        name = str(kind.value)
        fields = {f.name for f in dataclasses.fields(config)}
        if kind in PEFT_TYPE_TO_TUNER_MAPPING and "target_modules" in fields:
            configs[name] = config
    return configs


@functools.cache
def _known() -> dict[str, tuple[str, dict[str, Any]]]:
    """Method name to PeftType and the fields that are fixed in it."""
    known: dict[str, tuple[str, dict[str, Any]]] = {
        kind.lower(): (kind, {}) for kind in _configs() if kind != "LORA"
    }
    config = _configs()["LORA"]
    fields = {f.name: f for f in dataclasses.fields(config)}
    for name, field in fields.items():
        if name.startswith("use_") and field.default is False:
            known.setdefault(name.removeprefix("use_"), ("LORA", {name: True}))
    choices = typing.get_type_hints(config)["init_lora_weights"]
    for choice in re.findall(r"'(\w+)'", str(choices)):
        if f"{choice}_config" not in fields and changes_weights(choice):
            known.setdefault(choice, ("LORA", {"init_lora_weights": choice}))
    return known


def _class(name: str, type_name: str, fixed: dict[str, Any]) -> type[PeftMethod]:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config = _configs()[type_name]
    types = typing.get_type_hints(config)
    fields: list[Any] = [
        _field("targets", tuple[str, ...], TARGETS.get(name, ("q", "k", "v", "o")),
               "roles: any of q k v o fc1 fc2"),
        _field("blocks", str, "all", "which blocks: all, last:N, or numbers such as 0-2+5"),
    ]  # fmt: skip
    for field in dataclasses.fields(config):
        hidden = field.name in OURS or field.name in fixed
        if hidden or not simple(types[field.name]) or field.default is dataclasses.MISSING:
            continue
        default = field.default
        if default is None and field.name.endswith("seed"):
            default = 0  # unset, every process would draw its own
        help = _plain(str(field.metadata.get("help", "")))
        fields.append(_field(field.name, types[field.name], default, help))
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[type_name]  # type: ignore[index]
    namespace = {
        "name": name,
        "type_name": type_name,
        "fixed": fixed,
        "summary": _summary(tuner, fixed),
        "reference": _reference(tuner, config, fixed),
        "__module__": __name__,
    }
    return dataclasses.make_dataclass(
        "Peft" + name.title().replace("_", ""),
        fields,
        bases=(PeftMethod,),
        frozen=True,
        namespace=namespace,
    )


def _field(name: str, kind: Any, default: Any, help: str) -> tuple[str, Any, Any]:
    return name, kind, dataclasses.field(default=default, metadata={"help": help})


def _plain(text: str) -> str:
    """The first sentence of peft's help without links and markup, shortened."""
    text = re.sub(r"<[^>]*>|\((?:https?:)[^)]*\)|[`\[\]]", "", " ".join(text.split()))
    return textwrap.shorten(re.split(r"[.;](?:\s|$)", text)[0], 90, placeholder=" ...")


def _summary(tuner: Any, fixed: dict[str, Any]) -> str:
    if fixed:
        return "peft: LoRA with " + ", ".join(f"{k}={v}" for k, v in fixed.items())
    text = " ".join((tuner.__doc__ or tuner.__name__).split())
    text = re.split(r"(?<=[a-z)])\.\s|\s?https?:|\s?\(?\[", text)[0].rstrip(". ")
    text = re.sub(r"^Creates (an? )?|( adapter)? model from a pretrained.*", "", text, flags=re.I)
    return "peft: " + text[:100]


def _reference(tuner: Any, config: Any, fixed: dict[str, Any]) -> str:
    texts = [tuner.__doc__ or "", config.__doc__ or ""]
    if fixed:
        field = next(f for f in dataclasses.fields(config) if f.name == next(iter(fixed)))
        texts = [str(field.metadata.get("help", ""))]
        value = next(iter(fixed.values()))
        if isinstance(value, str):  # the sentence about this initialisation
            texts = [t for t in re.split(r"(?<=\.)\s", texts[0]) if value.lower() in t.lower()]
    links = re.findall(r"https?://[^\s)>'\"`\]]+", " ".join(texts))
    return links[0].rstrip(".,") if links else "peft's documentation"
