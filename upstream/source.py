"""Where pretrained files come from: a directory, or a repository of the Hugging Face hub.

Regular files under names of ours only; an index of shards only names files beside itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from emopeft.errors import UserError
from emopeft.files import open_regular, read_json
from emopeft.upstream.untrusted import checked_index

CONFIG = "config.json"
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
PREPROCESSOR = "preprocessor_config.json"

ADAPTER = "adapter_config.json"


class Source:
    """A hub repository at one commit, or a directory."""

    def __init__(self, where: str | None, revision: str | None, local: bool):
        assert where is not None
        self.where = where
        self.local = local
        self.commit: str | None = None
        self._asked = revision
        if not local and os.path.lexists(where):  # transformers would take it for the repository
            raise UserError(
                f"there is a local {where} in the working directory, which would be read in place "
                "of the hub's repository; give it with --upstream-path, or run elsewhere"
            )
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

    def weights(self) -> list[Path]:
        """The files that hold the weights, regular ones, in the order that transformers prefers.

        Raises:
            UserError: there are none, a shard is missing, or one is not beside its index.
        """
        for name in WEIGHTS:
            file = self._file(name)
            if file is None:
                continue
            if not name.endswith(".json"):
                return [file]
            suffix = Path(name.removesuffix(".index.json")).suffix
            shards = checked_index(read_json(file), suffix, self.where, name)
            files = [(shard, self._file(shard)) for shard in shards]
            for shard, path in files:
                if path is None:
                    raise self.missing(shard)
            return [path for _, path in files if path is not None]
        raise self.missing(WEIGHTS[0])

    def refuse_adapter(self) -> None:
        """Raise UserError where a peft adapter lies beside the encoder, or in its place."""
        if self._file(ADAPTER) is not None:
            raise UserError(
                f"{self.where} holds a peft adapter ({ADAPTER}), which is not part of an upstream "
                "and would not be applied; merge it into its encoder first, or take a directory "
                "without it"
            )

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
            if not os.path.lexists(file):
                return None
            with open_regular(file):  # not a pipe or a device, which would have no end
                return file
        from transformers.utils import cached_file
        from transformers.utils.hub import extract_commit_hash

        try:
            with quiet():
                path = cached_file(
                    self.where,
                    name,
                    revision=self.commit or self._asked,
                    local_files_only=self._offline,
                    _raise_exceptions_for_missing_entries=False,
                    _raise_exceptions_for_connection_errors=False,
                )
        except Exception as error:
            raise UserError(
                f"cannot read {name} of {self.where}: {reason(error)}; check the name and the "
                "revision, or give a local copy with --upstream-path DIR"
            ) from error
        if path is None:
            return None
        self.commit = self.commit or extract_commit_hash(path, None)
        return Path(path)


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


def read_tensors(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The tensors of safetensors or pickled files; nothing of a pickle but tensors is made.

    Raises:
        UserError: pickled code, or a parameter that is not of floating point.
    """
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            contents = load_file(file)
        else:
            try:
                contents = torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                # torch's own message tells how to switch the check off.
                raise UserError(
                    f"{file} is damaged or holds pickled code, which is never run here; fetch it "
                    "again, or save it with tensors and plain values only, best as safetensors"
                ) from error
            if not isinstance(contents, dict):
                raise UserError(f"{file} holds no tensors by name; fetch it again")
        for name, value in contents.items():
            if isinstance(name, str) and isinstance(value, torch.Tensor):
                tensors[name] = value
    for name, value in tensors.items():
        if name.endswith((".weight", ".bias")) and not value.is_floating_point():
            raise UserError(
                f"{files[0].parent} holds {name} as {str(value.dtype).removeprefix('torch.')}, not "
                "in floating point; fetch its weights again"
            )
    return tensors


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


def reason(error: BaseException) -> str:
    """An error's first informative lines, as one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join([f"{type(error).__name__}:", *lines[:2]])[:300]
