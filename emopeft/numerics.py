"""Precision, TF32 and determinism: decided here, applied here, and in every key.

cuDNN's TF32 is on by default in torch, so that a CNN front end on a GPU differs by about 1e-3 from
one on a CPU; here it is off unless a recipe asks for it (``train.tf32``). The frozen part has a
precision of its own (``cache.precision``), so that what is kept does not depend on who trains.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopeft.errors import UserError
from emopeft.files import digest

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How numbers are computed.

    Attributes:
        precision: of what trains, mixed unless fp32. frozen: of the frozen part.
        tf32: whether fp32 products and convolutions on a GPU may round to TF32.
        deterministic: only kernels that give the same bits each time; slower.
    """

    precision: str = "fp32"
    frozen: str = "fp32"
    tf32: bool = False
    deterministic: bool = False

    @classmethod
    def of(cls, recorded: Any) -> Numerics:
        """What `describe` gave, as untrusted data."""
        names = {f.name: f.type for f in dataclasses.fields(cls)}
        if not isinstance(recorded, dict) or not set(names) >= set(recorded):
            raise UserError("the key 'numerics' must hold precision, frozen, tf32, deterministic")
        for name, value in recorded.items():
            good = type(value) is bool if names[name] == "bool" else value in PRECISIONS
            if not good:
                raise UserError(f"the key 'numerics.{name}' cannot be {value!r:.40}")
        return cls(**recorded)

    def apply(self) -> None:
        """Set torch's switches; of the whole process."""
        import torch

        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = False
        if self.deterministic:  # cuBLAS reads it when its first handle is made
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(self.deterministic)

    def describe(self, device: torch.device | str = "cpu") -> dict[str, Any]:
        """All of it as it matters on a device: a CPU knows no TF32."""
        values = dataclasses.asdict(self)
        return values | {"tf32": self.tf32 and _type_of(device) == "cuda"}

    def describe_frozen(self, device: torch.device | str = "cpu") -> dict[str, Any]:
        """What of it decides the frozen part."""
        values = self.describe(device)
        return {"precision": values["frozen"], "tf32": values["tf32"]}

    def training(self, device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
        """Autocast for what trains and for its head."""
        return autocast(device, self.precision)

    def freezing(self, device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
        """Autocast for the frozen part; never that of a training around it."""
        return autocast(device, self.frozen)


def autocast(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision on a device, or none at all for fp32."""
    import torch

    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(_type_of(device), dtypes.get(precision), enabled=precision in dtypes)


def _type_of(device: torch.device | str) -> str:
    return str(device).partition(":")[0]


def stream(*names: Any) -> int:
    """A seed of its own for each use of chance: equal names give equal draws, others others."""
    return int(digest(list(names))[:15], 16)


def peak_memory(reset: bool = False) -> dict[str, int | None]:
    """Bytes of host and device at their highest since the last ``reset`` (or the start).

    The host's peak can be reset on Linux only; elsewhere it is that of the whole process.
    """
    import resource
    import sys

    import torch

    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host = host if sys.platform == "darwin" else host * 1024
    with contextlib.suppress(OSError):
        host = _resident_peak() or host
        if reset:
            Path("/proc/self/clear_refs").write_text(
                "5"
            )  # the highest size becomes the present one
    if reset and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return {"host": host, "device": device}


def _resident_peak() -> int | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
