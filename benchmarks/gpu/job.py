"""The main job on real speech: RAVDESS (eight actors, four emotions), Whisper base, one fold."""

from __future__ import annotations

import shutil
from typing import Any

from benchmarks.driving import Run, keys, run
from benchmarks.gpu.report import markdown
from benchmarks.gpu.setting import Setting

METHODS = ("none", "lora", "partial:2", "full")
EPOCHS = 6
KEPT = ("result.json", "recipe.yaml", "fold.json", "predictions.csv", "dev.csv")


def measure(setting: Setting) -> dict[str, Any]:
    """Method to what its record says; the records are kept beside the results."""
    data, encoder = setting.manifest(), setting.encoder()
    results: dict[str, Any] = {}
    for method in METHODS:
        epochs: dict[str, Any] = {} if method == "none" else {"train_epochs": EPOCHS}
        if setting.small:
            epochs = {"train_epochs": 1}
        name = method.replace(":", "")
        done = run(setting.work / "runs", name, data, encoder, "-p", method, *keys(**epochs))
        keep(done, setting)
        facts = done.folds()[0]
        results[method] = {
            "uar": facts["metrics"]["test"]["uar"],
            "trainable": facts["parameters"]["trainable"],
            "seconds": facts["seconds"] | {"whole command": done.seconds},
            "peak_memory_bytes": facts["peak_memory_bytes"]["device"],
            "device": facts["device"]["name"],
        }
    return results


def keep(done: Run, setting: Setting) -> None:
    """Copy what is a record of a run, without its weights."""
    place = setting.out / "records" / done.folder.name
    for path in sorted(done.folder.rglob("*")):
        if path.name in KEPT:
            target = place / path.relative_to(done.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def table(results: dict[str, Any]) -> str:
    """Quality and cost of each method."""
    rows = []
    for method, figures in results.items():
        seconds, peak = figures["seconds"], figures["peak_memory_bytes"]
        rows.append(
            [method, f"{100 * figures['uar']:.1f}", f"{figures['trainable'] / 1e6:.2f} M",
             *(f"{seconds[k]:.1f} s" for k in ("load", "features", "train", "whole command")),
             "" if peak is None else f"{peak / 1e9:.2f} GB"]
        )  # fmt: skip
    headers = ["method", "UAR", "trainable", "loading", "frozen part", "training",
               "whole command", "peak memory"]  # fmt: skip
    return markdown(headers, rows)
