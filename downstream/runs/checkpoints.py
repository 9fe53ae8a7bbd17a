"""The checkpoints of a run, and what one of them gives for a waveform."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.excerpts import spans
from emopeft.downstream.feature_cache.frozen import frozen_item
from emopeft.downstream.models.model import AdaptedModel
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from emopeft.upstream.base import SAMPLE_RATE

CONFIG = "adapter.json"


def fold_folders(run: Path, folds: str = "all", seed: int | None = None) -> list[Path]:
    """The trained folds of a run's folder, every seed of each; or the folder itself when it is one.

    Args:
        folds: "all", or fold names such as ``1,3``.
        seed: this one only.
    """
    if (run / CONFIG).is_file():
        return [run]
    if not run.is_dir():
        raise UserError(f"{run} does not exist; name a run's folder, e.g. runs/NAME")
    trained = {
        (match[1], int(match[2])): path
        for path in run.glob("fold*_seed*")
        if (path / CONFIG).is_file() and (match := re.fullmatch(r"fold(.+)_seed(\d+)", path.name))
    }
    names = {name for name, _ in trained}
    fold_names = names if folds == "all" else {x.strip() for x in folds.split(",")}
    chosen = [p for (name, s), p in trained.items() if name in fold_names and seed in (None, s)]
    missing = sorted(fold_names - {name for name, s in trained if seed in (None, s)})
    if missing or not chosen:
        trained_names = ", ".join(p.name for p in sorted(trained.values(), key=natural)) or "none"
        which = f"fold {', '.join(missing)}" if missing else "fold"
        of_seed = "" if seed is None else f" of seed {seed}"
        raise UserError(f"{run} holds no trained {which}{of_seed}; trained: {trained_names}")
    return sorted(chosen, key=natural)


def natural(path: Path) -> list[Any]:
    """Sorts fold2 before fold10."""
    return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)]


def best_device() -> torch.device:
    """Where a checkpoint is used: the GPU, where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@torch.inference_mode()
def outputs_of_clip(
    model: AdaptedModel, wav: Tensor, numerics: Numerics, clips: ClipKeys | None = None
) -> Tensor:
    """The head's outputs (outputs,) for one waveform (samples,) at 16 kHz, on the CPU.

    Each part is computed in the precision that it had in training; of a longer clip that is taken
    which ``clips`` says.
    """
    device = next(model.parameters()).device
    ways = spans(clips or ClipKeys(), len(wav) / SAMPLE_RATE)
    wavs = [span.of(wav) for span in ways[0]] if ways else [wav]
    pooled = model.head.pooled
    with numerics.freezing(device):
        items = [frozen_item(model.upstream, model.start, pooled, one.to(device)) for one in wavs]
    states = [s for s, _ in items]
    batch = Batch(
        torch.stack(states) if pooled else states,
        [start_input for _, start_input in items if start_input is not None],
        torch.zeros(1, 1, device=device),
        torch.zeros(len(wavs), dtype=torch.long, device=device) if len(wavs) > 1 else None,
    )
    with numerics.training(device):
        return model(batch)[0].float().cpu()
