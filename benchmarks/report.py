"""From measured cases to JSON files and a page of tables. Ratios are worked out here, from them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.driving import processor
from emopeft.files import read_json, write_json, write_text

Results = dict[str, dict[str, Any]]
SUPERB_STEPS = 5 * 5 * 30000  # folds, learning rates, optimiser steps
IEMOCAP_CLIPS = 5531


def machine() -> dict[str, Any]:
    """What it was measured on."""
    import peft
    import transformers

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "load_before": round(os.getloadavg()[0], 1),
        "packages": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "date": datetime.date.today().isoformat(),
    }


def write_report(out: Path, name: str, results: Results, quick: bool) -> None:
    """Keep a comparison's results and renew the page with all that are there."""
    from benchmarks.speech import speech_files

    facts = {"machine": machine(), "speech": speech_files()[0], "quick": quick}
    write_json(out / f"{name}.json", {**facts, "results": results})
    parts = ["# Benchmarks", "", "Made by `python -m benchmarks`; the numbers are in `*.json`.", ""]
    for letter, (title, render) in PAGES.items():
        path = out / f"{letter}.json"
        if not path.is_file():
            continue
        data = read_json(path)
        m = data["machine"]
        parts += [f"## {letter}. {title}", "", render(data["results"]), ""]
        parts += [
            f"{data['speech']}; {m['processor']}, {m['cores']} cores, {m['threads']} threads, "
            f"torch {m['packages']['torch']}, {m['date']}; load before: {m['load_before']}"
            + ("; **quick look: one step each**" if data["quick"] else ""),
            "",
        ]
    write_text(out / "README.md", "\n".join(parts))


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _steps(results: Results, reference: str) -> str:
    rows = []
    base = results[reference]
    for label, r in results.items():
        seconds, peak = r["seconds_per_step"], r["peak_bytes"]
        rows.append(
            [label, f"{seconds:.2f} s", f"{4 * seconds:.1f} s",
             f"{base['seconds_per_step'] / seconds:.2f}x", f"{peak / 1e9:.2f} GB",
             f"{peak / base['peak_bytes']:.2f}", f"{r['trainable'] / 1e6:.2f} M",
             f"{r['cache_bytes_per_hour'] / 1e6:.0f} MB" if r.get("cache_bytes_per_hour") else "",
             f"{r['frozen_seconds']:.1f} s" if r.get("frozen_seconds") else ""]
        )  # fmt: skip
    headers = ["", "step (8 x 3 s)", "epoch (32 clips)", f"against {reference}", "peak memory",
               "of it", "trainable", "cache per hour", "frozen part, once"]  # fmt: skip
    return _table(rows, headers)


def _probe(results: Results) -> str:
    way, fill, probes = (results[k] for k in ("s3prl way", "frozen part", "all probes"))
    theirs = way["seconds_per_step"] * SUPERB_STEPS
    frozen = fill["seconds_per_clip"] * IEMOCAP_CLIPS
    trained = probes["seconds"] * 30000 / probes["steps"]
    rows = [
        ["s3prl's way: upstream in every step", f"{way['seconds_per_step']:.2f} s per step "
         f"x {SUPERB_STEPS:,} steps (multiplied out)", f"{theirs / 86400:.0f} days", "1x"],
        ["ours: frozen part", f"{fill['seconds_per_clip']:.2f} s per clip x {IEMOCAP_CLIPS:,} "
         "(multiplied out)", f"{frozen / 60:.1f} min", ""],
        ["ours: all 25 probes of 30,000 steps", "measured" if probes["steps"] == 30000 else
         f"{probes['steps']} steps measured, multiplied out", f"{trained / 60:.1f} min", ""],
        ["ours: both", "", f"{(frozen + trained) / 60:.1f} min",
         f"{theirs / (frozen + trained):,.0f}x"],
        ["ours: found in the cache", "", f"{trained / 60:.1f} min", f"{theirs / trained:,.0f}x"],
    ]  # fmt: skip
    return _table(rows, ["", "how", "time", ""])


def _growth(results: Results) -> str:
    rows = []
    for label, r in results.items():
        audio = r["audio_hours"] * 3600  # seconds
        rows.append(
            [label, f"{r['frozen_seconds']:.1f} s", f"{r['epoch_seconds']:.1f} s",
             f"{r['frozen_seconds'] / audio:.3f}", f"{r['epoch_seconds'] / audio:.3f}",
             f"{r['peak_bytes'] / 1e9:.2f} GB"]
        )  # fmt: skip
    headers = ["", "frozen part", "epoch", "frozen s per s of audio", "epoch s per s of audio",
               "peak memory"]  # fmt: skip
    return _table(rows, headers)


def _floor(results: Results) -> str:
    rows = []
    for label, r in results.items():
        top = ", ".join(f"{k.removeprefix('aten::')} {100 * v:.0f} %"
                        for k, v in list(r["profile"].items())[:5])  # fmt: skip
        rows.append(
            [label, f"{r['seconds_per_step']:.2f} s", f"{r['operations'] / 1e9:.0f} G",
             f"{r['matrix_product_per_second'] / 1e9:.0f} G/s", f"{r['floor_seconds']:.2f} s",
             f"{100 * r['share_of_floor']:.0f} %", top]
        )  # fmt: skip
    headers = ["", "step", "operations", "large matrix product", "floor", "reached", "where"]
    return _table(rows, headers)


PAGES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "A": ("LoRA on all blocks, HuBERT base", lambda r: _steps(r, "plain")),
    "B": ("The last three blocks, HuBERT base", lambda r: _steps(r, "plain full")),
    "C": ("SUPERB's frozen probe: 5 folds, 5 learning rates, 30,000 steps", _probe),
    "D": ("Growth: LoRA on HuBERT base, bf16", _growth),
    "E": ("Where the time goes, with the cache", _floor),
}
