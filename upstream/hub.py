"""Loading pretrained weights: from the Hugging Face hub or a directory, never running their code.

Weights are safetensors where the repository has them; else ``pytorch_model.bin``, which is read
with ``torch.load(weights_only=True)``. transformers is given tensors and a checked configuration
(`upstream.untrusted`) and no path: no adapter, index, kernel or module beside them is ever looked
at. Every parameter of the encoder must come from the file: none is left random unnoticed.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from emopeft.errors import UserError
from emopeft.upstream.base import SAMPLE_RATE, Upstream
from emopeft.upstream.catalogue import SCHEMES, Entry
from emopeft.upstream.source import (
    CONFIG,
    PREPROCESSOR,
    Source,
    quiet,
    read_tensors,
    reason,
)
from emopeft.upstream.untrusted import checked_config, checked_preprocessor, shown

# SpecAugment's mask embedding: never used here, and absent from some published checkpoints. It is
# zero there.
UNUSED = {"masked_spec_embed"}


@dataclasses.dataclass(frozen=True)
class Family:
    """How the models of one ``model_type`` become an Upstream.

    Attributes:
        model: the transformers class, as "module:class".
        wrap: ``wrap(model, preprocessor, **options) -> Upstream`` (not yet sealed); the
            preprocessor is the content of preprocessor_config.json, empty when there is none.
        renamed: prefixes of parameters in a larger checkpoint, replaced by "".
        attention: transformers' attention implementation: always given, never the configuration's.
    """

    model: str
    wrap: Callable[..., Upstream]
    renamed: tuple[str, ...] = ()
    attention: str = "sdpa"

    def model_class(self) -> Any:
        """The transformers class; imported here, for transformers is slow to import."""
        module, name = self.model.split(":")
        return getattr(importlib.import_module(f"transformers.models.{module}"), name)


# Hub commits that are known from several public sources. Of all others the newest is taken; either
# way the commit is recorded, and `-o upstream.revision=COMMIT` (or `main`) overrules it.
PINNED = {
    "facebook/hubert-base-ls960": "dba3bb02fda4248b6e082697eee756de8fe8aa8a",
    "facebook/wav2vec2-base": "0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
    "facebook/wav2vec2-xls-r-300m": "1a640f32ac3e39899438a2931f9924c02f080a54",
    "microsoft/wavlm-base": "efa81aae7ff777e464159e0f877d54eac5b84f81",
    "microsoft/wavlm-base-plus": "4c66d4806a428f2e922ccfa1a962776e232d487b",
    "microsoft/wavlm-large": "c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c",
}

# model_type of config.json -> how to load it. Families add themselves.
FAMILIES: dict[str, Family] = {}


def load_transformers(
    entry: Entry, path: Path | None, revision: str | None, **options: Any
) -> Upstream:
    """Load an encoder of the transformers library, sealed.

    Raises:
        UserError: no network and no copy, files missing or damaged, or another family's model.
    """
    if path is None:
        source = Source(entry.hub_id, revision or PINNED.get(entry.hub_id or ""), local=False)
    else:
        source = Source(str(path), None, local=True)
    if source.local:
        source.refuse_adapter()
    values = source.json(CONFIG, required=True)
    if not source.local:  # now that the commit is known
        source.refuse_adapter()
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"{source.where} holds a model of type {shown(model_type)}, which is not supported; "
            f"supported are {', '.join(sorted(FAMILIES))}"
        )
    if entry.family not in ("", model_type):
        raise UserError(
            f"{source.where} holds a model of family '{model_type}', but upstream "
            f"'{entry.name}' is of family '{entry.family}'; choose an upstream of family "
            f"'{model_type}' or another directory"
        )
    family = FAMILIES[model_type]
    for option in options:
        if option not in inspect.signature(family.wrap).parameters:
            raise UserError(f"upstreams of family '{model_type}' have no option '{option}'")
    preprocessor = checked_preprocessor(source.json(PREPROCESSOR), source.where)
    model = _model(family, source, *_config(family, values, source))
    upstream = family.wrap(model, preprocessor, **options)
    _try(upstream, source)
    upstream.loader = "transformers"
    upstream.source = source.where
    upstream.revision = source.commit
    upstream.licence = entry.licence
    return upstream.seal()


def _config(family: Family, values: dict[str, Any], source: Source) -> Any:
    from transformers import CONFIG_MAPPING

    model_type = values["model_type"]
    kind = CONFIG_MAPPING[model_type]
    checked = checked_config(values, kind, source.where)
    try:
        config = kind.from_dict(checked)
        config._attn_implementation = family.attention
        # Nothing is allocated on this device: what the configuration describes can be weighed.
        with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = family.model_class()(config)
    except Exception as error:
        raise UserError(
            f"{CONFIG} of {source.where} is not a valid {model_type} configuration: "
            f"{reason(error)}; restore it from its source"
        ) from error
    return config, {n: p.numel() for n, p in model.named_parameters()}


def _model(family: Family, source: Source, config: Any, sizes: dict[str, int]) -> Any:
    """The encoder with its weights, which we read: transformers is given no path."""
    files = source.weights()
    total = sum(n for name, n in sizes.items() if name not in UNUSED)
    stored = sum(file.stat().st_size for file in files)
    if total > stored:  # a parameter takes one byte at least
        raise UserError(
            f"the weights in {source.where} do not fit its {CONFIG}: it describes {total} "
            f"parameters and they hold {stored} bytes; fetch both files again"
        )
    arguments: dict[str, Any] = {}
    if family.renamed:
        arguments["key_mapping"] = {f"^{prefix}": "" for prefix in family.renamed}
    try:
        # Where a tensor is missing, one is drawn: not from the caller's random state.
        with quiet(), torch.random.fork_rng(devices=[]):
            model, report = family.model_class().from_pretrained(
                None,
                config=config,
                state_dict=read_tensors(files),
                dtype=torch.float32,
                attn_implementation=family.attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, in words of our own
                weights_only=True,
                trust_remote_code=False,
                local_files_only=True,
                **arguments,
            )
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the weights in {source.where} cannot be loaded ({reason(error)}); fetch them again"
        ) from error
    if report["mismatched_keys"]:
        name, in_file, expected = sorted(report["mismatched_keys"])[0]
        raise UserError(
            f"the weights in {source.where} do not fit its {CONFIG}: {name} has shape "
            f"{tuple(in_file)}, not {tuple(expected)}; fetch both files again"
        )
    absent = sorted(set(report["missing_keys"]) - UNUSED)
    if absent:
        raise UserError(
            f"the weights in {source.where} lack {len(absent)} tensors of the encoder "
            f"({', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}); they belong to "
            "another model or are incomplete"
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in set(report["missing_keys"]):
                parameter.zero_()  # else it, and the weights' hash with it, would be random
            if not bool(parameter.isfinite().all()):
                raise UserError(
                    f"the weights in {source.where} are damaged: {name} is not finite; fetch them "
                    "again"
                )
            # Of its own: what was read may be a view of the file, which others can overwrite.
            parameter.data = parameter.detach().clone()
    # Else save_pretrained would put the prefixes back, for a model that has none.
    if family.renamed:
        model._weight_conversions = []
    return model


def _try(upstream: Upstream, source: Source) -> None:
    """Run the front end and a block on the shortest clip: a configuration can still be nonsense.

    Raises UserError where that fails, or where a frame takes more than a second.
    """
    problem = "it gives no frame for a clip of one second"
    if upstream.min_samples <= SAMPLE_RATE and upstream.stride <= SAMPLE_RATE:
        noise = torch.randn(upstream.min_samples, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                states = upstream.eval().frontend([0.1 * noise])
                frames = upstream.run_block(0, states.frames, states.lengths)
                problem = "" if bool(upstream.finish(frames).isfinite().all()) else "NaN"
        except Exception as error:  # as many kinds as there are ways to fail
            problem = reason(error)
    if problem:
        raise UserError(
            f"{CONFIG} of {source.where} describes an encoder that cannot be run ({problem}); "
            "restore it from its source"
        )


def _from_hub(rest: str) -> Entry:
    if rest.count("/") != 1 or not all(rest.split("/")):
        raise UserError(f"hf:{rest} must name a repository as hf:ORG/NAME")
    return Entry(
        name=f"hf:{rest}",
        family="",  # config.json says
        load=load_transformers,
        hub_id=rest,
        options={"window": "Whisper only: clip (default) or 30s"},
    )


SCHEMES["hf"] = _from_hub
