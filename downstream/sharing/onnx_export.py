"""A trained fold as a folder with an ONNX graph, checked against torch before it is there.

model.onnx        waveform -> scores; adapters merged into the weights where the method can
model.int8.onnx   where asked: linear layers in eight bits
onnx.json         what a caller must know, and how both were checked (`OnnxFacts`)
labels.json       id2label, label2id, where the task predicts classes
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.merged import merged_of
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.models.onnx_files import FACTS, GRAPHS, OnnxFacts, OnnxModel
from emopeft.downstream.runs.checkpoints import fold_folders, outputs_of_clip
from emopeft.downstream.runs.evaluate import check_plan, plan_of_run
from emopeft.downstream.sharing import card
from emopeft.downstream.sharing.hub import write_labels
from emopeft.downstream.sharing.onnx_graph import most_samples, score_names, write_graph
from emopeft.downstream.sharing.onnx_int8 import loss_of_int8, write_int8
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.files import write_json, writing_folder
from emopeft.numerics import Numerics
from emopeft.upstream.base import SAMPLE_RATE

# Outputs may differ by this, relative to the largest of a clip (or to 1, where all are smaller).
TOLERANCE = 1e-4
SECONDS = (0.5, 1.0, 3.17, 10.0)  # beside the shortest clip that the encoder takes
PACKAGES = ("emopeft", "torch", "transformers", "onnx", "onnxscript", "onnxruntime")
LONGEST_TRIED = 60.0  # seconds; a cut that comes later is not tried


def export_onnx(
    place: Path,
    out: Path,
    fold: str | None = None,
    upstream_path: str | None = None,
    seed: int | None = None,
    int8: bool = False,
    data: Sequence[str] | None = None,
) -> OnnxFacts:
    """Write a fold as an ONNX graph, with all that a caller must know.

    Args:
        place: a run's folder (its first trained fold, or ``fold``) or a fold's.
        int8: a graph with eight-bit weights, too, measured on the fold's test clips.
        data: where the corpora lie for that, as ``--data`` takes it; None: where they did.

    Raises:
        UserError: no such fold; no graph can be made of it, or it gives other outputs than torch;
            ``out`` holds something already; onnx or onnxruntime is not installed.
    """
    folder = fold_folders(place, "all" if fold is None else fold, seed)[0]
    if data is not None and not int8:
        raise UserError("--data goes with --int8, whose loss is measured on the fold's test clips")
    with writing_folder(out) as into:
        # On the CPU in fp32: what is compared there is not a GPU's rounding.
        reference, config = restore(folder, upstream_path)
        task, clips = task_of(config["task"]), ClipKeys(**config["clips"])
        plan = plan_of_run(folder, data) if int8 else None
        if plan is not None:
            check_plan(folder, config, plan)
        merged, why = merged_of(lambda: restore(folder, upstream_path)[0])
        model = merged or restore(folder, upstream_path)[0]
        opset = write_graph(into / GRAPHS["fp32"], model, task, clips)
        graphs = {"fp32": OnnxModel.open(into / GRAPHS["fp32"], clips)}
        check = checked(reference, graphs["fp32"], task, clips)
        cost = None
        if plan is not None:
            count = write_int8(into / GRAPHS["fp32"], into / GRAPHS["int8"])
            graphs["int8"] = OnnxModel.open(into / GRAPHS["int8"], clips)
            cost = {"products": count, "tests": loss_of_int8(folder, config["fold"], plan, graphs)}
        write_labels(into, task)
        facts = _facts(reference, config, task, clips) | {
            "merged": merged is not None,
            "not_merged": why,
            "opset": opset,
            "files": {p.name: p.stat().st_size for p in sorted(into.iterdir())},
            "check": check,
            "int8": cost,
        }
        write_json(into / FACTS, facts)
    return OnnxFacts.model_validate(facts)


def checked(model: AdaptedModel, graph: OnnxModel, task: Task, clips: ClipKeys) -> dict[str, Any]:
    """How far a graph's outputs are from the model's, over lengths; noise, and silence once.

    Raises:
        UserError: farther than TOLERANCE, or its scores are not those of the task.
    """
    least, most = model.upstream.min_samples, most_samples(model.upstream.max_samples, clips)
    samples = [least, *(n for s in SECONDS if (n := round(s * SAMPLE_RATE)) > least)]
    if most is not None and most <= LONGEST_TRIED * SAMPLE_RATE:
        samples.append(most + SAMPLE_RATE // 2)  # of which the graph takes the beginning
    wavs = [*(noise(n) for n in samples), torch.zeros(max(SAMPLE_RATE, least))]
    rows, worst = [], 0.0
    for wav in wavs:
        expected = outputs_of_clip(model, wav[:most], Numerics(), clips)
        error = float((graph.outputs(wav) - expected).abs().max())
        error /= max(1.0, float(expected.abs().max()))
        # A NaN is no agreement, and compares with nothing.
        if not error <= TOLERANCE:
            raise UserError(
                f"the graph's outputs of {len(wav) / SAMPLE_RATE:.3f} s differ from torch's by "
                f"{error:.1e}, more than {TOLERANCE:g} of the largest; use emopeft export"
            )
        worst = max(worst, error)
        what = "noise" if bool(wav.any()) else "silence"
        rows.append({"samples": len(wav), "clip": what, "difference": error})
    return {
        "tolerance": TOLERANCE, "largest": worst, "relative_to": "the clip's largest output or 1",
        "clips": rows, "scores": _scores_differ(graph, task, wavs[1]),
    }  # fmt: skip


def _scores_differ(graph: OnnxModel, task: Task, wav: Tensor) -> float | None:
    """How far the graph's scores are from those that the task makes of its outputs."""
    scores, names = graph.scores(wav), score_names(task)
    if scores is None or names is None:
        return None
    table = task.table(graph.outputs(wav)[None], torch.zeros(1, len(task.target_names)))
    error = max(abs(float(s) - table[n][0]) for s, n in zip(scores, names, strict=True))
    if not error <= TOLERANCE:
        raise UserError(f"the graph's scores differ from those of task {task.name} by {error:.1e}")
    return error


def noise(samples: int) -> Tensor:
    """As loud as speech, louder and softer in turns; the same each time."""
    loudness = 0.05 * (1 + torch.sin(torch.arange(samples) / SAMPLE_RATE * 8))
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * loudness


def _facts(
    model: AdaptedModel, config: Mapping[str, Any], task: Task, clips: ClipKeys
) -> dict[str, Any]:
    upstream = model.upstream
    return {
        "schema": 1,
        "task": config["task"],
        "classes": list(task.classes),
        "scores": score_names(task) or [],
        "sample_rate": SAMPLE_RATE,
        "min_samples": upstream.min_samples,
        "max_samples": most_samples(upstream.max_samples, clips),
        "clips": config["clips"],
        "preprocessing": _preprocessing(upstream.min_samples, clips),
        "upstream": {
            "name": card.Base.of(upstream, config["upstream"]).name,
            "weights": upstream.weights,
            "licence": upstream.licence,
        },  # fmt: skip
        "method": model.adaptation.spec,
        "protocol": config["protocol"],
        "fold": config["fold"],
        "seed": config["seed"],
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _preprocessing(least: int, clips: ClipKeys) -> str:
    text = (
        f"float32 samples (samples,) at {SAMPLE_RATE} Hz between -1 and 1, channels averaged, at "
        f"least {least} of them; nothing else is to be done, normalisation and spectrum are in the "
        "graph"
    )
    if clips.mode == "segments" and clips.seconds is not None:
        text += (
            f"; of clips longer than {clips.seconds:g} s take segments of that length, spaced "
            "evenly, as few as cover the clip, and average their outputs"
        )
    return text
