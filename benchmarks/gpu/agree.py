"""The device against the CPU, with TF32 off and on: states, kept features, probes, LoRA's losses.

Each side computes in a process of its own, which sees one device and leaves a file (in the small
form all in this one).
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.driving import ROOT, keys, noise, run, steady
from benchmarks.gpu.report import markdown
from benchmarks.gpu.setting import Setting, environment

STEPS = 10  # of LoRA
LENGTHS = (0.5, 1.3, 2.0, 3.7)  # seconds of the clips whose states are compared, as one batch
# How far the device may lie off the CPU in fp32 with TF32 off, of the largest value on the CPU.
# The order of sums is all that differs; a step of training makes small differences larger.
LIMITS = {"states": 1e-4, "features": 1e-4, "scores": 1e-3, "losses": 1e-2}


def measure(setting: Setting) -> dict[str, Any]:
    """Largest relative differences by TF32 off and on, and by figure.

    "beyond" names those that, with TF32 off, are larger than their limit.
    """
    reference = side(setting, "reference", "cpu", False)
    results: dict[str, Any] = {}
    for word in ("off", "on"):
        values = side(setting, f"tf32-{word}", setting.device, word == "on")
        results[f"tf32 {word}"] = {
            name: difference(reference[name], value) for name, value in values.items()
        }
    exact = results["tf32 off"]
    results["beyond"] = [
        f"{name}: {value:.2g} is more than {LIMITS[name.partition(',')[0]]:g}"
        for name, value in exact.items()
        if not value <= LIMITS[name.partition(",")[0]]  # NaN is beyond, too
    ]
    return results


def side(setting: Setting, name: str, device: str, tf32: bool) -> dict[str, Any]:
    """What one side computes: name to tensor."""
    from safetensors.torch import load_file

    work = setting.work / f"agree-{name}"
    work.mkdir()
    encoders = [str(setting.encoder())]
    if not setting.small:
        encoders.append(str(setting.random_encoder("base")))
    task = {
        "device": device, "tf32": tf32, "work": str(work), "manifest": str(setting.manifest()),
        "encoders": encoders, "steps": 2 if setting.small else STEPS,
    }  # fmt: skip
    if setting.small:
        main([json.dumps(task)])
    else:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu.agree", json.dumps(task)],
            cwd=ROOT, env=environment(device), check=True, stdout=sys.stderr,
        )  # fmt: skip
    return load_file(work / "side.safetensors")


def difference(reference: Any, other: Any) -> float:
    """The largest difference, relative to the largest value of the reference."""
    if reference.shape != other.shape:
        return float("nan")
    return float((reference - other).abs().max() / reference.abs().max())


def compute(task: dict[str, Any]) -> dict[str, Any]:
    """One side, in its own process: see `side`."""
    import torch

    work, manifest = Path(task["work"]), Path(task["manifest"])
    values = {f"states, {Path(e).name}": states(Path(e), task) for e in task["encoders"]}
    encoder = Path(task["encoders"][0])
    tf32 = keys(train_tf32=task["tf32"])
    probe = run(work, "probe", manifest, encoder, "-p", "none",
                *keys(train_epochs=10), *tf32)  # fmt: skip
    values["features"] = features(work / "cache")
    values["scores"] = scores(probe.folder)
    trained = run(
        work, "lora", manifest, encoder, "-p", "lora", *steady(task["steps"], 8, 60),
        *keys(train_eval_every=1, train_lr=1e-3), *tf32,
    )  # fmt: skip
    values["losses"] = torch.tensor([entry["loss"] for entry in trained.history()])
    return values


def states(encoder: Path, task: dict[str, Any]) -> Any:
    """All hidden states of a padded batch (states, clips, frames, width), padding left out."""
    import torch

    from emopeft.numerics import Numerics
    from emopeft.upstream.catalogue import load

    Numerics(tf32=task["tf32"]).apply()
    family = json.loads((encoder / "config.json").read_text(encoding="utf-8"))["model_type"]
    upstream = load({"whisper": "whisper_base"}.get(family, family), encoder).to(task["device"])
    wavs = [noise(1, seconds, seed)[0] for seed, seconds in enumerate(LENGTHS)]
    with torch.no_grad():
        out = upstream([w.to(task["device"]) for w in wavs])
    parts = [
        layer[i, :n].float().cpu().flatten()
        for layer in out.layers
        for i, n in enumerate(out.lengths.tolist())
    ]
    return torch.cat(parts)


def features(cache: Path) -> Any:
    """All that is kept on disk, in the order of its names."""
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in cache.rglob("*.safetensors"):
        tensors |= load_file(path)
    return torch.cat([tensors[name].float().flatten() for name in sorted(tensors)])


def scores(folder: Path) -> Any:
    """The scores of a run's predictions, in the order of their ids."""
    import torch

    (path,) = folder.glob("*/predictions.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    names = [c for c in rows[0] if c.startswith("score_")]
    return torch.tensor([[float(row[c]) for c in names] for row in rows])


def table(results: dict[str, Any]) -> str:
    """The largest differences."""
    exact, tf32 = results["tf32 off"], results["tf32 on"]
    rows = [
        [name, f"{exact[name]:.1e}", f"{tf32[name]:.1e}", f"{LIMITS[name.partition(',')[0]]:g}"]
        for name in exact
    ]
    return markdown(["largest difference from the CPU", "TF32 off", "TF32 on", "limit"], rows)


def main(arguments: list[str]) -> None:
    """One side, into its file."""
    from safetensors.torch import save_file

    task = json.loads(arguments[0])
    values = {name: value.contiguous() for name, value in compute(task).items()}
    save_file(values, Path(task["work"]) / "side.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
