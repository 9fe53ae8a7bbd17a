"""Whether two upstreams give the same states: the hash of weights, and what a record is held to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from emopeft.upstream.base import Upstream


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of a module's state."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().contiguous().cpu()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return sha.hexdigest()


def same_base(recorded: Mapping[str, Any], upstream: Upstream) -> str | None:
    """Whether an upstream gives the states that something recorded was trained on.

    Args:
        recorded: ``weights``, ``loader``, ``options`` and ``code`` as they were; what is absent is
            not compared.
        upstream: as loaded, unpatched.

    Returns:
        None where it does, else what differs, as a clause without a full stop.
    """
    if "loader" in recorded and recorded["loader"] != upstream.loader:
        return f"it is loaded by {upstream.loader}, not by {recorded['loader']}"
    if "weights" in recorded and recorded["weights"] != upstream.weights:
        recorded_hash = recorded["weights"]
        return (
            f"its weights are others (SHA-256 {upstream.weights[:12]}, not "
            f"{recorded_hash[:12] if isinstance(recorded_hash, str) else recorded_hash})"
        )
    options = recorded.get("options", upstream.options)
    if not isinstance(options, Mapping):
        return "its recorded options are damaged"
    for name in sorted({*options, *upstream.options}):
        ours, theirs = upstream.options.get(name), options.get(name)
        if ours != theirs:
            return f"its option {name} is {ours}, not {theirs}"
    if "code" in recorded and recorded["code"] != upstream.code:
        return (
            f"this version of emopeft computes other states of it (revision {upstream.code}, not "
            f"{recorded['code']})"
        )
    return None
