"""A fold's folder with a small trained adapter, as a run writes it, and ways to change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.models.build import Blueprint
from emopeft.downstream.models.checkpoint import CONFIG, write_adapter
from emopeft.downstream.models.model import AdaptedModel
from emopeft.upstream.catalogue import load
from tests.peft_modules.cases import batch_of
from tests.peft_modules.test_battery import train
from tests.tiny import plain

HEAD = {
    "name": "superb", "width": 32, "states": 4, "outputs": 2, "layers": "weighted_sum",
    "hidden": 8, "dropout": 0.1, "standardise": False,
}  # fmt: skip


def blueprint(place: Path, method: str, **more: Any) -> Blueprint:
    """Models of a method on tiny HuBERT, loaded from a directory as `save_pretrained` writes it."""
    weights = place / "weights"
    if not weights.exists():
        plain("hubert_base_like").save_pretrained(weights)
    return Blueprint(load("hubert", weights), method, dict(HEAD), **more)


def config_of(made: Blueprint, model: AdaptedModel, place: Path, seed: int) -> dict[str, Any]:
    """Its adapter.json."""
    upstream = made.upstream
    return {
        "schema": 2,
        "upstream": {
            "name": "hubert", "path": str(place / "weights"), "revision": None, "window": "clip",
            "dropout": False, "weights": upstream.weights, "loader": upstream.loader,
            "options": upstream.options, "code": upstream.code,
        },
        "method": model.adaptation.recorded(),
        "head": made.head,
        "task": {"name": "emotion", "version": 1, "classes": ["calm", "angry"]},
        "corpora": [{"name": "mini", "licence": "CC0-1.0"}],
        "protocol": {"name": "mini-loso", "version": 1, "hash": "ab" * 32},
        "fold": "1",
        "seed": seed,
        "numerics": {"precision": "fp32", "frozen": "fp32", "tf32": False, "deterministic": False},
        "stages": [],
    }  # fmt: skip


def trained_fold(place: Path, method: str, seed: int = 3) -> tuple[Path, Tensor]:
    """The folder of a trained fold, and the model's outputs of two clips."""
    made = blueprint(place, method)
    model = made.model(seed)
    train(model, batch_of(model), steps=3)
    folder = place / f"fold1_seed{seed}"
    write_adapter(folder, model.kept_state(), config_of(made, model, place, seed))
    return folder, outputs(model)


def outputs(model: AdaptedModel) -> Tensor:
    """Of two clips, (2, classes)."""
    with torch.no_grad():
        return model.eval()(batch_of(model))


def edit(folder: Path, *keys: Any, value: Any) -> None:
    """Change one value of adapter.json."""
    path = folder / CONFIG
    data = json.loads(path.read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(data))
