"""Every upstream of s3prl's collection by name: ``s3prl:NAME``.

``import s3prl.hub`` fails beside torchaudio 2.9 and newer (trap 2), so the one family that defines
NAME is found by parsing, and only that one is imported. Checkpoints are read with ``weights_only``,
whatever the family's code asks for (three ask for unpickling); of pickled classes, only
`argparse.Namespace`, a bag of values, is let through. Some families ``eval`` what stands in a
checkpoint or configuration: they are given lists of numbers and nothing else (`s3prl_eval`).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emopeft.errors import UserError, unknown
from emopeft.files import digest, file_digest
from emopeft.guard import set_audio_backend
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import SCHEMES, Entry
from emopeft.upstream.s3prl_collection import CollectionUpstream
from emopeft.upstream.s3prl_eval import only_numbers

_PATHS = ("ckpt", "model_config")


@functools.cache
def _root() -> Path:
    """Where s3prl is installed; found without importing it."""
    spec = importlib.util.find_spec("s3prl")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("s3prl is not installed: pip install s3prl")
    return Path(next(iter(spec.submodule_search_locations)))


@functools.cache
def _families() -> dict[str, tuple[str, frozenset[str]]]:
    """Name -> (module of its family, names of its arguments), by parsing s3prl's hubconf files."""
    root = _root()
    names: dict[str, tuple[str, frozenset[str]]] = {}
    for file in sorted(root.glob("upstream/*/hubconf.py")):
        module = f"s3prl.upstream.{file.parent.name}.hubconf"
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = frozenset(a.arg for a in node.args.args + node.args.kwonlyargs)
                names[node.name] = (module, arguments)  # the later wins, as in s3prl's hub.py
    return names


def s3prl_names() -> list[str]:
    """All names, sorted. Those ending in ``_url`` are left out: ``_local`` reads the same file."""
    return sorted(n for n in _families() if not n.endswith("_url"))


def _path_argument(name: str) -> str | None:
    """What an entry calls the file it needs, or None when it brings its own."""
    arguments = _families()[name][1]
    for argument in _PATHS:
        if argument in arguments:
            return argument
    # Most `_local` entries pass everything on to a `_custom` one.
    return "ckpt" if name.endswith(("_local", "_custom")) else None


def _load(entry: Entry, path: Path | None, revision: str | None, **options: Any) -> Upstream:
    name = entry.name.removeprefix("s3prl:")
    argument = _path_argument(name)
    if revision is not None:
        raise UserError(f"{entry.name} has no revisions: s3prl downloads fixed files")
    if argument is None and path is not None:
        local = _local_entry(name)
        raise UserError(
            f"{entry.name} brings its own weights and takes no --upstream-path"
            + (f"; for a local file use s3prl:{local}" if local else "")
        )
    if argument is not None and path is None:
        raise UserError(f"{entry.name} needs its checkpoint or configuration: --upstream-path FILE")
    facts = {"version": (_root() / "version.txt").read_text(encoding="utf-8").strip()}
    if path is not None:
        # The weights do not say all: a configuration decides what is computed.
        facts["file"] = contents_digest(path)
    with _as_loading():
        expert = _expert(entry.name, _families()[name][0], name, argument, path)
        upstream = CollectionUpstream(name, expert, facts)
    upstream.source = str(path) if path is not None else entry.name
    return upstream.seal()


def contents_digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files by their names in it. Regular files only."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(f for f in path.rglob("*") if not f.is_dir())
    return digest([[f.relative_to(path).as_posix(), file_digest(f)] for f in files])


def _local_entry(name: str) -> str | None:
    """The entry of the same family that reads a local file."""
    module = _families()[name][0]
    local = (n for n in s3prl_names() if _families()[n][0] == module and _path_argument(n))
    return next(local, None)


def _expert(
    shown: str, module: str, name: str, argument: str | None, path: Path | None
) -> nn.Module:
    try:
        function = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"{shown} cannot be imported ({error}); install what it needs or choose another"
        ) from error
    try:
        keywords = {} if argument is None else {argument: str(path)}
        expert = function(**keywords)
    except Exception as error:
        raise _refusal(error, shown, name, path) from error
    if not isinstance(expert, nn.Module):
        raise UserError(f"{shown} is not an upstream; see the names of s3prl's collection")
    return expert


def _refusal(error: Exception, shown: str, name: str, path: Path | None) -> UserError:
    """What to tell the user when an entry of s3prl fails."""
    what = f"the checkpoint of {shown}" if path is None else str(path)
    if isinstance(error, UserError):
        return UserError(f"{what}: {error}")
    reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    if "Unsupported global" in str(error) or "Unsupported operand" in str(error):
        return UserError(
            f"{what} holds pickled code, which is never run here; save it again with tensors and "
            "plain values only"
        )
    if isinstance(error, ImportError):
        return UserError(f"{shown} needs a package that is missing: {error}")
    if path is not None:
        return UserError(
            f"{path} cannot be loaded as {shown} ({reason}); it is damaged or another family's"
        )
    if isinstance(error, OSError):
        local = _local_entry(name)
        return UserError(
            f"the weights of {shown} cannot be downloaded ({type(error).__name__}); check the "
            "network" + (f", or use s3prl:{local} with --upstream-path FILE" if local else "")
        )
    return UserError(f"{shown} cannot be loaded ({reason}); choose another upstream")


@contextlib.contextmanager
def _as_loading() -> Iterator[None]:
    """Force ``weights_only``, lend `set_audio_backend`, restrain ``eval``, keep random states."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    states = random.getstate(), np.random.get_state()
    try:
        with (
            set_audio_backend(),
            only_numbers(),
            torch.random.fork_rng(devices=[]),
            torch.serialization.safe_globals([argparse.Namespace]),
        ):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _entry(rest: str) -> Entry:
    if rest not in s3prl_names():
        raise unknown("s3prl upstream", rest, s3prl_names())
    return Entry(name=f"s3prl:{rest}", family="s3prl", load=_load, takes_file=True)


SCHEMES["s3prl"] = _entry
