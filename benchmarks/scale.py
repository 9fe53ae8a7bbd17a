"""How the way grows with the corpus: ``python -m benchmarks.scale`` (1,000 to 100,000 clips).

Synthetic clips of a quarter of a second in a manifest, 50 a speaker, four classes; the log-mel
baseline, so that the encoder costs next to nothing and what is left is the harness. Each command is
a process of its own: wall time, and the peak of its memory as the system counts it.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tabulate import tabulate

from benchmarks.driving import CLASSES, ROOT, SAMPLE_RATE
from benchmarks.report import machine
from emopeft.files import write_json, write_text
from emopeft.guard import ensure_torchaudio

SECONDS = 0.25
PER_SPEAKER = 50
PER_FOLDER = 1000
HERE = Path(__file__).resolve().parent


def make_corpus(folder: Path, count: int) -> Path:
    """A manifest of ``count`` clips, no two alike, always the same."""
    place = folder / "clips.csv"
    if place.exists():
        return place
    draw = np.random.default_rng(0)
    rows = []
    for i in range(count):
        path = folder / f"{i // PER_FOLDER:03d}" / f"{i:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wav = draw.standard_normal(int(SECONDS * SAMPLE_RATE)).astype(np.float32) * 0.1
        soundfile.write(path, wav, SAMPLE_RATE, subtype="PCM_16")
        label = CLASSES[i % len(CLASSES)]
        rows.append([f"{i:06d}", path.relative_to(folder), f"s{i // PER_SPEAKER:04d}", label])
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "path", "speaker", "label"], *rows])
    return place


def measured(command: list[str], cache: Path) -> dict[str, float]:
    """Wall seconds and peak memory (bytes) of a command; its output only where it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output,
            env={**os.environ, "EMOPEFT_CACHE": str(cache)},
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if code := os.waitstatus_to_exitcode(status):
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"error: {' '.join(command)} ended with {code}:\n{said}")
    return {"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024}


def commands(manifest: Path, out: Path) -> dict[str, list[str]]:
    """What is measured, in order."""
    emopeft = [sys.executable, "-m", "emopeft"]
    run = [
        *emopeft, "run", "-u", "fbank", "-d", "emotion", "-p", "none", "--corpus", "manifest",
        "--data", str(manifest), "--out", str(out), "-n", "probe", "-o", "train.epochs=3",
    ]  # fmt: skip
    return {
        "check": [*emopeft, "check", "manifest", str(manifest)],
        "start, folds (--dry-run)": [*run, "--dry-run"],
        "probe, five folds": run,
        "board": [*emopeft, "board", str(out), "--out", str(out / "board")],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument(
        "--place", type=Path, help="where clips and caches are kept (default: /tmp)"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results")
    flags = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for count in flags.counts:
            folder = (flags.place or Path(temporary)).resolve() / str(count)
            manifest = make_corpus(folder / "clips", count)
            for name, command in commands(manifest, folder / "runs").items():
                results.setdefault(name, {})[str(count)] = measured(command, folder / "cache")
                print(count, name, results[name][str(count)], file=sys.stderr, flush=True)
    ensure_torchaudio()  # `machine` asks transformers, which would stumble over a broken one
    where = machine()
    flags.out.mkdir(parents=True, exist_ok=True)
    write_json(flags.out / "scale.json", {"machine": where, "results": results})
    text = page(where, results, flags.counts)
    write_text(flags.out / "scale.md", text)
    print(text)


def page(where: dict[str, Any], results: dict[str, dict[str, Any]], counts: list[int]) -> str:
    """The table, with what was measured and on what."""
    return (
        "# How the way grows with the corpus\n\n"
        "Made by `python -m benchmarks.scale`: wall time and peak memory of each command, clips\n"
        f"of {SECONDS:g} s, the log-mel baseline, three epochs. {where['processor']},\n"
        f"{where['cores']} cores, {where['threads']} thread(s), "
        f"torch {where['packages']['torch']}, {where['date']}.\n\n{table(results, counts)}"
    )


def table(results: dict[str, dict[str, Any]], counts: list[int]) -> str:
    """Seconds and peak memory of each command at each size."""
    rows = [
        [name]
        + [
            f"{one[str(c)]['seconds']:.1f} s, {one[str(c)]['peak_bytes'] / 1e6:,.0f} MB"
            for c in counts
        ]
        for name, one in results.items()
    ]
    headers = ["command", *(f"{count:,} clips" for count in counts)]
    return tabulate(rows, headers, tablefmt="github") + "\n"


if __name__ == "__main__":
    main()
