"""Loading pretrained weights: from the Hugging Face hub or a directory, never running their code.

Weights are safetensors where the repository has them; else ``pytorch_model.bin``, which
transformers reads with ``torch.load(weights_only=True)`` (transformers 5, `load_state_dict`).
Every parameter of the encoder must come from the file: none is left random unnoticed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from emopeft.errors import UserError
from emopeft.files import read_json
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import SCHEMES, Entry

CONFIG = "config.json"
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
PREPROCESSOR = "preprocessor_config.json"

# SpecAugment's mask embedding: never used here, and absent from some published checkpoints.
UNUSED = {"masked_spec_embed"}


@dataclasses.dataclass(frozen=True)
class Family:
    """How the models of one ``model_type`` become an Upstream.

    Attributes:
        model: the transformers class, as "module:class".
        wrap: ``wrap(model, preprocessor, **options) -> Upstream`` (not yet sealed); the
            preprocessor is the content of preprocessor_config.json, empty when there is none.
        renamed: prefixes of parameters in a larger checkpoint, replaced by "".
        attention: transformers' attention implementation, None for the model's own.
    """

    model: str
    wrap: Callable[..., Upstream]
    renamed: tuple[str, ...] = ()
    attention: str | None = "sdpa"

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
    values = source.json(CONFIG, required=True)
    model_type = values.get("model_type")
    if model_type not in FAMILIES:
        raise UserError(
            f"{source.where} holds a model of type '{model_type}', which is not supported; "
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
    model = _model(family, source, _config(model_type, values, source))
    upstream = family.wrap(model, source.json(PREPROCESSOR), **options)
    upstream.loader = "transformers"
    upstream.source = source.where
    upstream.revision = source.commit
    upstream.licence = entry.licence
    return upstream.seal()


class Source:
    """A hub repository at one commit, or a directory."""

    def __init__(self, where: str | None, revision: str | None, local: bool):
        assert where is not None
        self.where = where
        self.local = local
        self.commit: str | None = None
        self._asked = revision
        self._offline = not local and not reachable()

    def json(self, name: str, required: bool = False) -> dict[str, Any]:
        """A JSON file's content; {} when it is not there and not required."""
        file = self._file(name)
        if file is None:
            if required:
                raise self.missing(name)
            return {}
        value = read_json(file)
        if not isinstance(value, dict):
            raise UserError(f"{file} is not a JSON object; restore it from its source")
        return value

    def arguments(self) -> dict[str, Any]:
        """What `from_pretrained` needs to read the very same commit."""
        if self.local:
            return {}
        return {"revision": self.commit or self._asked, "local_files_only": self._offline}

    def missing(self, name: str) -> UserError:
        """The error for a file that cannot be had."""
        if self.local:
            return UserError(
                f"{self.where} holds no {name}; --upstream-path must name a directory with "
                "config.json and model.safetensors as written by save_pretrained"
            )
        if self._offline:
            return UserError(
                f"{name} of {self.where} is not in the Hugging Face cache and the hub cannot be "
                "reached; connect once, or give a local copy (config.json and model.safetensors) "
                "with --upstream-path DIR"
            )
        return UserError(
            f"{self.where} has no file {name} at revision {self._asked or 'main'}; check the name "
            "on huggingface.co, or give a local copy with --upstream-path DIR"
        )

    def _file(self, name: str) -> Path | None:
        if self.local:
            file = Path(self.where) / name
            return file if file.is_file() else None
        from transformers.utils import cached_file
        from transformers.utils.hub import extract_commit_hash

        try:
            found = cached_file(
                self.where,
                name,
                revision=self.commit or self._asked,
                local_files_only=self._offline,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        except Exception as error:
            raise UserError(
                f"cannot read {name} of {self.where}: {_reason(error)}; check the name and the "
                "revision, or give a local copy with --upstream-path DIR"
            ) from error
        if found is None:
            return None
        self.commit = self.commit or extract_commit_hash(found, None)
        return Path(found)


def reachable(seconds: float = 5.0) -> bool:
    """Whether the hub answers: one request, because huggingface_hub's own retries take 25 s."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # the kinds depend on the HTTP library of the installed version
        return False
    return True


def _config(model_type: str, values: dict[str, Any], source: Source) -> Any:
    from transformers import CONFIG_MAPPING

    try:
        return CONFIG_MAPPING[model_type].from_dict(values)
    except Exception as error:
        raise UserError(
            f"{CONFIG} of {source.where} is not a valid {model_type} configuration: "
            f"{_reason(error)}; restore it from its source"
        ) from error


def _model(family: Family, source: Source, config: Any) -> Any:
    if source.local and not any((Path(source.where) / name).is_file() for name in WEIGHTS):
        raise source.missing(WEIGHTS[0])
    arguments = source.arguments()
    if family.attention:
        arguments["attn_implementation"] = family.attention
    if family.renamed:
        arguments["key_mapping"] = {f"^{prefix}": "" for prefix in family.renamed}
    try:
        with quiet():
            model, report = family.model_class().from_pretrained(
                source.where,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, in words of our own
                weights_only=True,
                **arguments,
            )
    except Exception as error:
        if not source.local and isinstance(error, OSError):
            raise source.missing(WEIGHTS[0]) from error
        raise UserError(
            f"the weights in {source.where} cannot be loaded ({_reason(error)}); fetch them again"
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
    if family.renamed:
        # Else save_pretrained would put the prefixes back, for a model that has none.
        model._weight_conversions = []
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No report of unused tensors (decoders, heads); no bar off a terminal; nothing uploaded."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    # transformers otherwise asks a public service to convert repositories without safetensors.
    before = os.environ.get("DISABLE_SAFETENSORS_CONVERSION")
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if before is None:
            del os.environ["DISABLE_SAFETENSORS_CONVERSION"]
        else:
            os.environ["DISABLE_SAFETENSORS_CONVERSION"] = before


def _reason(error: BaseException) -> str:
    """An error's first informative lines, as one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join([f"{type(error).__name__}:", *lines[:2]])[:300]


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
