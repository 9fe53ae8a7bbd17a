"""Predictions of a trained fold for any audio."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from emopeft.downstream.corpora.audio import AUDIO_SUFFIXES, AudioError, decode
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.models.build import restore
from emopeft.downstream.records.predictions import guarded
from emopeft.downstream.runs.checkpoints import best_device, fold_folders, outputs_of_clip
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.files import write_text
from emopeft.numerics import Numerics
from emopeft.upstream.base import SAMPLE_RATE

logger = logging.getLogger(__name__)

# Sound that is not read: said, not left out silently.
OTHER_SUFFIXES = (".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff", ".amr", ".webm")


def predict(
    run: Path,
    audio: Path,
    fold: str | None = None,
    upstream_path: str | None = None,
    seed: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Predictions of a file, or of every audio file below a folder, one by one.

    With several folds (``fold`` None and a run's folder) the first trained one is used.

    Yields:
        "path", the task's predictions and scores (empty for a clip that cannot be used), and
        "note": what must be known of this row, else empty. In path order.
    """
    folder = fold_folders(run, "all" if fold is None else fold, seed)[0]
    paths = audio_files(audio)
    model, config = restore(folder, upstream_path, best_device())
    task, numerics = task_of(config["task"]), Numerics.of(config["numerics"])
    numerics.apply()
    clips = ClipKeys(**config["clips"])
    upstream = model.upstream
    for path in tqdm(paths, desc="predict", unit="clip", disable=None, leave=False):
        row: dict[str, Any] = {"path": str(path)} | dict.fromkeys(columns(task), "")
        note = ""
        try:
            if path.suffix.lower() in OTHER_SUFFIXES:
                raise AudioError("unreadable", f"{path.suffix} is not read")
            wav = torch.from_numpy(
                decode(path, SAMPLE_RATE, minimum=upstream.min_samples / SAMPLE_RATE)
            )
            outputs = outputs_of_clip(model, wav, numerics, clips)[None]
            table = task.table(outputs, torch.zeros(1, len(task.target_names)))
            row |= {name: table[name][0] for name in columns(task)}
            used = len(wav) / SAMPLE_RATE
            if clips.mode == "crop" and clips.seconds is not None:
                used = min(used, clips.seconds)
            if upstream.max_samples is not None and clips.mode != "segments":
                used = min(used, upstream.max_samples / SAMPLE_RATE)
            if used < len(wav) / SAMPLE_RATE:
                note = f"only the first {used:g} s of {len(wav) / SAMPLE_RATE:.1f} s were used"
        except AudioError as error:
            if audio == path:
                raise
            note = error.problem
        if note:
            logger.warning("%s: %s", path, note)
        yield row | {"note": note}


def columns(task: Task) -> list[str]:
    """The task's columns but the truths."""
    return [c.name for c in task.columns if c.role != "truth"]


def audio_files(place: Path) -> list[Path]:
    """A file, or all sound below a folder, sorted; UserError where there is none."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(f"{place} does not exist; --audio takes a file or a folder")
    known = (*AUDIO_SUFFIXES, *OTHER_SUFFIXES)
    paths = sorted(p for p in place.rglob("*") if p.suffix.lower() in known)
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
        for row in rows:
            writer.writerow({k: guarded(v) if isinstance(v, str) else v for k, v in row.items()})
        text = buffer.getvalue()
    if output is not None:
        write_text(output, text)
    return text
