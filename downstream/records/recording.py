"""The record of a run, put together from its finished folds."""

from __future__ import annotations

import dataclasses
import datetime
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from emopeft.downstream.models.build import method_parts, parameter_counts
from emopeft.downstream.records.record import (
    fold_folder,
    package_versions,
    read_fold,
    status,
    summarise,
)
from emopeft.downstream.runs.session import Session
from emopeft.errors import UserError
from emopeft.files import digest, read_json


def make_record(this: Session) -> dict[str, Any]:
    """The record over all finished folds of the folder, those of earlier calls included."""
    protocol = this.data.resolved.protocol
    head = this.blueprint.model(this.recipe.seeds[0], this.adaptation).head
    seeds = sorted(
        {int(p.name.rpartition("_seed")[2]) for p in this.folder.glob("fold*_seed*/fold.json")
         for p in [p.parent] if p.name.rpartition("_seed")[2].isdigit()}
        | set(this.recipe.seeds)
    )  # fmt: skip
    names = [f.name for f in this.data.resolved.folds]
    folds = [
        found.result
        for seed in seeds
        for name in names
        if (found := read_fold(fold_folder(this.folder, name, seed), this.task.classes))
    ]
    train = sum(f["seconds"]["train"] + f["seconds"]["tune"] for f in folds)
    hours = sum(f["hours"] * f["steps"] * this.recipe.train.batch_size / f["utterances"]["train"]
                for f in folds)  # fmt: skip
    audio_hours = sum(this.examples.seconds) / 3600
    stored = this.examples.stored_bytes()
    return {
        "schema": 1,
        "status": status(names, folds, seeds),
        "name": this.folder.name,
        "identity": digest(this.identity),
        "task": this.recipe.task,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": this.command,
        "corpus": {
            "name": this.data.corpus.name,
            "title": this.data.corpus.title,
            "licence": this.data.corpus.licence,
            "utterances": len(this.examples),
            "hours": audio_hours,
        },
        "protocol": {
            "name": protocol.name,
            "version": protocol.version,
            "hash": this.data.resolved.hash,
            "classes": list(this.task.classes),
            "folds": names,
            "speaker_overlap": list(protocol.speaker_overlap),
            "audit": this.data.resolved.audit(),
        },
        "upstream": {
            "name": this.recipe.upstream.name,
            "loader": this.upstream.loader,
            "source": this.upstream.source,
            "revision": this.upstream.revision,
            "weights": this.upstream.weights,
            "licence": this.upstream.licence,
            "parameters": this.upstream.parameter_count,
            "note": this.upstream.note,
        },
        "method": {"spec": this.adaptation.spec, "parts": method_parts(this.adaptation, head)},
        "head": {"name": this.recipe.head.name, "layers": this.blueprint.head["layers"]},
        "training": dataclasses.asdict(this.recipe.train),
        "folds": folds,
        "summary": summarise(folds),
        "parameters": parameter_counts(this.adaptation, head),
        "cost": {
            "seconds": {
                **_kept_seconds(this),
                "train": train,
                "test": sum(f["seconds"]["test"] for f in folds),
            },
            "audio_hours_per_second": hours / train if train else None,
            "peak_memory_bytes": peak_memory(),
            "cache_bytes": stored,
            "cache_bytes_per_hour": stored / audio_hours,
            "cache": this.examples.facts(),
        },
        "device": {
            "name": device_name(this.accelerator),
            "precision": this.recipe.train.precision,
            "processes": this.accelerator.num_processes,
        },
        "packages": package_versions(),
    }


def _kept_seconds(this: Session) -> dict[str, float]:
    """Loading and frozen part: the call that computed them counts, not one that found them done."""
    path = this.folder / "result.json"
    if path.exists():
        try:
            earlier = read_json(path)["cost"]["seconds"]
            return {k: max(v, float(earlier[k])) for k, v in this.seconds.items()}
        except (UserError, KeyError, TypeError, ValueError):
            pass  # a damaged record of an earlier call is about to be replaced
    return this.seconds


def peak_memory() -> int:
    """Bytes: the GPU's peak where there is one, else the process' peak resident size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_name(accelerator: Accelerator) -> str:
    """The GPU's or the processor's name, with the number of threads."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "CPU"
