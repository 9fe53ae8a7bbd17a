"""The progress of a trainer as tensors and plain data, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emopeft.downstream.training.selection import Selection

if TYPE_CHECKING:
    from emopeft.downstream.training.trainer import Trainer

FIELDS = ("step", "seconds", "loss_count")  # plain numbers


def snapshot(trainer: Trainer) -> dict[str, Any]:
    """All that a training needs to go on; its draws depend on the step alone."""
    scaler = trainer.accelerator.scaler
    return {
        **{name: getattr(trainer, name) for name in FIELDS},
        "selection": trainer.selection.state(),
        "loss_sum": trainer.loss_sum.cpu(),
        "best_state": trainer.best_state,
        "model": trainer.plain.trainable_state(),
        "methods": trainer.plain.method_progress(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else {},
    }


def put_back(trainer: Trainer, progress: dict[str, Any]) -> None:
    """Put back what `snapshot` gave; raises whatever torch does where it does not fit."""
    device = trainer.accelerator.device
    trainer.plain.load_trainable_state(progress["model"])
    trainer.plain.load_method_progress(progress["methods"])
    trainer.optimizer.load_state_dict(progress["optimizer"])
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(progress["scaler"])
    trainer.loss_sum = progress["loss_sum"].to(device)
    trainer.best_state = {k: v.to(device) for k, v in progress["best_state"].items()}
    trainer.selection = Selection(**progress["selection"])
    for name in FIELDS:
        setattr(trainer, name, progress[name])
