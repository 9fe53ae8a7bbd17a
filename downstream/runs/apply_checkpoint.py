"""Using what was trained, in a new process: evaluate a run again, or predict for any audio."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from emopeft.downstream.corpora.audio import AUDIO_SUFFIXES, decode
from emopeft.downstream.data.prepare import Data, prepare
from emopeft.downstream.data.recipe import Recipe, build, flatten, read_yaml
from emopeft.downstream.feature_cache.frozen import frozen_item
from emopeft.downstream.feature_cache.store import DTYPES
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.model import AdaptedModel, Batch
from emopeft.downstream.records.record import fold_folder, read_fold
from emopeft.downstream.tasks.emotion import TASKS
from emopeft.downstream.tasks.metrics import emotion_metrics
from emopeft.errors import UserError
from emopeft.files import write_text
from emopeft.upstream.base import SAMPLE_RATE


def fold_folders(run: Path, wanted: str = "all") -> list[Path]:
    """The finished folds of a run's folder, or the folder itself when it is one of a fold."""
    if (run / "adapter.json").is_file():
        return [run]
    if not run.is_dir():
        raise UserError(f"{run} does not exist; --run must name a run's folder, e.g. runs/NAME")
    found = {
        match[1]: path
        for path in sorted(run.glob("fold*_seed*"), key=_natural)
        if (path / "adapter.json").is_file()
        and (match := re.fullmatch(r"fold(.+)_seed(\d+)", path.name))
    }
    names = list(found) if wanted == "all" else [x.strip() for x in wanted.split(",")]
    missing = [n for n in names if n not in found]
    if missing or not names:
        raise UserError(
            f"{run} holds no finished fold {', '.join(missing)}".rstrip()
            + "; finished: "
            + (", ".join(found) or "none")
        )
    return [found[n] for n in names]


def _natural(path: Path) -> list[Any]:
    return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)]


@torch.inference_mode()
def logits_of(model: AdaptedModel, wav: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """The head's outputs (outputs,) for one waveform (samples,) at 16 kHz.

    ``precision``: as in training; the frozen part is always fp32, as it was when it was kept.
    """
    device = next(model.parameters()).device
    states, kept = frozen_item(model.upstream, model.start, model.head.pooled, wav.to(device))
    batch = Batch(
        states[None] if model.head.pooled else [states],
        [] if kept is None else [kept],
        torch.zeros(1, dtype=torch.long),
    )
    with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
        return model(batch)[0].float().cpu()


def predict(
    run: Path, audio: Path, fold: str | None = None, upstream_path: str | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Class probabilities of a file or of every audio file below a folder.

    With several folds (``fold`` None and a run's folder) the first finished one is used.

    Returns:
        rows (path, prediction, score per class) in path order, and the classes.
    """
    folder = fold_folders(run, "all" if fold is None else fold)[0]
    paths = _audio_files(audio)
    model, config = restore(folder, upstream_path)
    task, precision = TASKS[config["task"]](config["classes"]), config.get("precision", "fp32")
    rows = []
    for path in tqdm(paths, desc="predict", unit="clip", disable=None, leave=False):
        minimum = model.upstream.min_samples / SAMPLE_RATE
        wav = torch.from_numpy(decode(path, SAMPLE_RATE, minimum=minimum))
        scores = task.scores(logits_of(model, wav, precision)[None])[0].tolist()
        best = task.classes[max(range(len(scores)), key=scores.__getitem__)]
        by_class = {f"score_{c}": s for c, s in zip(task.classes, scores, strict=True)}
        rows.append({"path": str(path), "prediction": best, **by_class})
    return rows, list(task.classes)


def _audio_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"{place} does not exist; --audio takes a file or a folder")
    paths = sorted(p for p in place.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise UserError(f"no {' or '.join(AUDIO_SUFFIXES)} file in {place}")
    return paths


def write_rows(rows: Sequence[dict[str, Any]], output: Path | None) -> str:
    """Rows as CSV, or as JSON for an output that ends in .json; written when there is one."""
    if output is not None and output.suffix.lower() == ".json":
        text = json.dumps(list(rows), indent=2, ensure_ascii=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    if output is not None:
        write_text(output, text)
    return text


def evaluate(
    run: Path, fold: str = "all", upstream_path: str | None = None, data: str | None = None
) -> list[dict[str, Any]]:
    """Test each finished fold again from its checkpoint and compare with what was recorded.

    Returns:
        per fold: its name, seed, metrics, the number of clips, and ``difference``, the largest
        change of a class probability against predictions.csv.

    Raises:
        UserError: damaged files, or a corpus whose folds are not the ones of the run.
    """
    place = run.parent if (run / "adapter.json").is_file() else run
    recipe: Recipe = build(flatten(read_yaml(place / "recipe.yaml"), str(place / "recipe.yaml")))
    recipe.folds = "all"
    if data is not None:
        recipe.corpus.data = data
    loaded: Data = prepare(recipe)
    results = []
    for folder in fold_folders(run, fold):
        model, config = restore(folder, upstream_path)
        if config["protocol"]["hash"] != loaded.resolved.hash:
            raise UserError(
                f"{folder} was trained on other folds than {loaded.root} gives (the protocol's "
                "hash differs); give the corpus it was trained on with --data"
            )
        results.append(_evaluate_fold(folder, model, config, loaded))
    return results


def _evaluate_fold(
    folder: Path, model: AdaptedModel, config: dict[str, Any], data: Data
) -> dict[str, Any]:
    name, seed = config["fold"], config["seed"]
    recorded = read_fold(fold_folder(folder.parent, name, seed), config["classes"])
    before = {row.id: row.scores for row in recorded.rows} if recorded else {}
    task = TASKS[config["task"]](config["classes"])
    chosen = next(f for f in data.resolved.folds if f.name == name)
    truth, predicted, difference = [], [], 0.0
    for utterance in tqdm(chosen.test, desc=folder.name, unit="clip", disable=None, leave=False):
        wav = torch.from_numpy(decode(utterance.path, SAMPLE_RATE))
        logits = logits_of(model, wav, config.get("precision", "fp32"))
        scores = task.scores(logits[None])[0].tolist()
        truth.append(data.resolved.label(utterance))
        predicted.append(int(logits.argmax()))
        for label, score in zip(task.classes, scores, strict=True):
            recorded_score = before.get(utterance.id, {}).get(label, math.nan)
            difference = max(difference, abs(score - recorded_score))
    metrics = emotion_metrics(truth, predicted, task.outputs)
    return {
        "fold": name,
        "seed": seed,
        "metrics": metrics,
        "clips": len(truth),
        "difference": difference,
    }
