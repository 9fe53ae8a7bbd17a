"""This checkout beside another one, by turns, on one machine.

    python -m benchmarks.compare /path/to/other --suites A B C --rounds 3

Both are driven by their command lines, by the same cases (benchmarks/cases.py of this checkout), in
the same environment; the two take turns and change who is first. A ratio is this one's figure
divided by the other's, of each round; below 1 is better here. The plain loop, which is the same on
both sides, says how far ratios go astray by noise alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.driving import ROOT

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "A": {
        "plain (noise)": {"case": "plain", "method": "lora", "steps": 4},
        "lora, fp32": {"case": "ours", "method": "lora"},
        "lora, bf16": {"case": "ours", "method": "lora", "precision": "bf16"},
        "lora, bf16, checkpointing": {
            "case": "ours", "method": "lora", "precision": "bf16", "checkpointing": True,
        },
    },
    "B": {
        "partial:3, no cache": {"case": "ours", "method": "partial:3", "cache": False},
        "partial:3, no cache, bf16": {
            "case": "ours", "method": "partial:3", "cache": False, "precision": "bf16",
        },
        "partial:3, cache": {"case": "ours", "method": "partial:3"},
        "partial:3, cache, bf16": {"case": "ours", "method": "partial:3", "precision": "bf16"},
        "partial:3, fp16 cache, bf16": {
            "case": "ours", "method": "partial:3", "precision": "bf16", "dtype": "fp16",
        },
    },
    "C": {
        "frozen part": {"case": "fill", "clips_count": 32},
        "all probes": {"case": "superb_probes", "steps": 3000, "clips": 1500},
    },
}  # fmt: skip
# Those of the processor say something on a busy machine, too.
FIGURES = (
    "seconds_per_step", "processor_seconds_per_step", "frozen_seconds", "seconds_per_clip",
    "processor_seconds_per_clip", "seconds", "cpu_seconds", "peak_bytes",
)  # fmt: skip


def run_case(checkout: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """One case of this checkout in a new process that drives the given one."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cases", json.dumps(arguments)],
        cwd=ROOT, env=os.environ | {"EMOPEFT_BENCH_CHECKOUT": str(checkout)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"error: {arguments} in {checkout} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ratios(rounds: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Figure to the medians of both sides and the ratios of all rounds."""
    summary = {}
    for figure in FIGURES:
        pairs = [(a[figure], b[figure]) for a, b in rounds if a.get(figure) and b.get(figure)]
        if pairs:
            summary[figure] = {
                "this": statistics.median(a for a, _ in pairs),
                "other": statistics.median(b for _, b in pairs),
                "ratios": [a / b for a, b in pairs],
            }
    return summary


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """All ratios with their medians, lowest and highest."""
    rows = []
    for label, summary in results.items():
        for figure, numbers in summary.items():
            unit, scale = ("GB", 1e9) if figure.endswith("bytes") else ("s", 1.0)
            each = numbers["ratios"]
            rows.append(
                [label, figure, f"{numbers['this'] / scale:.3g} {unit}",
                 f"{numbers['other'] / scale:.3g} {unit}", f"{statistics.median(each):.2f}",
                 f"{min(each):.2f} to {max(each):.2f}"]
            )  # fmt: skip
    headers = ["", "figure", "this", "other", "ratio", "of the rounds"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("other", type=Path, help="the other checkout's folder")
    parser.add_argument("--suites", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose name holds this")
    parser.add_argument("--out", type=Path, help="a JSON file for all figures of all rounds")
    flags = parser.parse_args()
    other = flags.other.resolve()
    if not (other / "run_downstream.py").is_file():
        parser.error(f"{flags.other} is no checkout: it holds no run_downstream.py")
    if flags.rounds < 1:
        parser.error("--rounds must be at least 1")
    results, figures = {}, {}
    for suite in flags.suites:
        for label, arguments in CASES[suite].items():
            if flags.only not in label:
                continue
            rounds = []
            for turn in range(flags.rounds):
                started = time.perf_counter()
                order = (ROOT, other) if turn % 2 == 0 else (other, ROOT)
                by_place = {place: run_case(place, dict(arguments)) for place in order}
                rounds.append((by_place[ROOT], by_place[other]))
                took = time.perf_counter() - started
                print(f"{suite} {label} ({turn + 1}): {took:.0f} s", file=sys.stderr, flush=True)
            results[f"{suite} {label}"] = ratios(rounds)
            figures[f"{suite} {label}"] = rounds
    print(table(results))
    if flags.out is not None:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(json.dumps({"results": results, "rounds": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
