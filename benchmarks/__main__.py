"""All benchmarks by one command: ``python -m benchmarks`` (``--quick`` for a first look).

Every case runs in a process of its own (for its peak memory), all in the same environment; the
repetitions of a comparison take turns, so that a busy moment of the machine hits all sides. The
results are medians, as JSON and as tables in ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.report import write_report

HERE = Path(__file__).resolve().parent
# name -> (the case's arguments by label, repetitions)
Group = dict[str, dict[str, Any]]
B_SIDES: Group = {
    "plain full": {"case": "plain", "method": "full"},
    "plain full, CNN frozen": {"case": "plain", "method": "full_frozen_cnn"},
    "plain partial:3": {"case": "plain", "method": "partial"},
    "partial:3, no cache": {"case": "ours", "method": "partial:3", "cache": False},
    "partial:3, no cache, bf16": {
        "case": "ours", "method": "partial:3", "cache": False, "precision": "bf16",
    },
    "partial:3, cache": {"case": "ours", "method": "partial:3"},
    "partial:3, cache, bf16": {"case": "ours", "method": "partial:3", "precision": "bf16"},
    "partial:3, fp16 cache, bf16": {
        "case": "ours", "method": "partial:3", "precision": "bf16", "dtype": "fp16",
    },
}  # fmt: skip
SUITES: dict[str, tuple[Group, int]] = {
    "A": (
        {
            "plain": {"case": "plain", "method": "lora"},
            "plain, bf16": {"case": "plain", "method": "lora", "precision": "bf16"},
            "ours, fp32": {"case": "ours", "method": "lora"},
            "ours, bf16": {"case": "ours", "method": "lora", "precision": "bf16"},
            "ours, bf16, checkpointing": {
                "case": "ours", "method": "lora", "precision": "bf16", "checkpointing": True,
            },
        },
        2,
    ),
    "B": (B_SIDES, 1),
    "C": (
        {
            "s3prl way": {"case": "s3prl_way"},
            "frozen part": {"case": "fill"},
            "all probes": {"case": "superb_probes"},
        },
        1,
    ),
    "D": (
        {
            **{f"{n} clips of 3 s": {"case": "growth", "count": n} for n in (8, 32, 128)},
            **{
                f"8 clips of {s:g} s": {"case": "growth", "count": 8, "seconds": s}
                for s in (1.5, 6.0, 24.0)
            },
        },
        1,
    ),
    "E": (
        {
            f"{method}, {precision}": {"case": "floor", "method": method, "precision": precision}
            for method, precision in (("lora", "fp32"), ("lora", "bf16"), ("partial:3", "bf16"))
        },
        1,
    ),
}  # fmt: skip


def run_case(arguments: dict[str, Any]) -> dict[str, Any]:
    """One case in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cases", json.dumps(arguments)],
        cwd=HERE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"error: {arguments} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every number; other values as first seen. All repetitions stay beside them."""
    merged = dict(results[0])
    for key, value in merged.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            merged[key] = statistics.median(r[key] for r in results)
    spread = [r["seconds_per_step"] for r in results if "seconds_per_step" in r]
    return merged | ({"all_seconds_per_step": spread} if len(spread) > 1 else {})


def run_suite(name: str, quick: bool) -> dict[str, Any]:
    """All sides of a comparison, taking turns."""
    group, repetitions = SUITES[name]
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in group}
    for turn in range(1 if quick else repetitions):
        for label, arguments in group.items():
            more = {}
            if quick:
                probes = arguments["case"] == "superb_probes"
                more = {"steps": 600, "clips": 200} if probes else {"steps": 1}
            started = time.perf_counter()
            runs[label].append(run_case(arguments | more))
            took = time.perf_counter() - started
            print(f"{name} {label} ({turn + 1}): {took:.0f} s", file=sys.stderr, flush=True)
    return {label: medians(results) for label, results in runs.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("suites", nargs="*", metavar="A..E", help="which (default: all)")
    parser.add_argument("--quick", action="store_true", help="one step, one repetition")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    flags = parser.parse_args()
    for name in flags.suites:
        if name not in SUITES:
            parser.error(f"unknown benchmark '{name}': known: {', '.join(SUITES)}")
    flags.out.mkdir(parents=True, exist_ok=True)
    for name in flags.suites or SUITES:
        write_report(flags.out, name, run_suite(name, flags.quick), flags.quick)
    print((flags.out / "README.md").read_text())


if __name__ == "__main__":
    main()
