"""All that only a GPU can show, on one card.

    python -m benchmarks.gpu                     every part
    python -m benchmarks.gpu job agree           some of them
    python -m benchmarks.gpu pack gpu_data       fill the data folder, on a machine that has it
    python -m benchmarks.gpu --device cpu --small --out DIR     the same in seconds, as a test

Every part has a process of its own and at most eight minutes; one that fails says why, and the
others go on. The exit status is 1 then. docs/gpu.md says what the parts are and what they need.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.driving import ROOT
from benchmarks.gpu.report import write_page, write_part
from benchmarks.gpu.setting import Setting, environment, lacking, pack
from emopeft.errors import UserError

# name -> module of this package, further arguments of its `measure`
PARTS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "batteries": ("batteries", ()),
    "job": ("job", ()),
    "agree": ("agree", ()),
    "throughput": ("throughput", ("base",)),
    "throughput-large": ("throughput", ("large",)),
}
LIMIT = 480.0  # seconds a part may take
RESULTS = ROOT / "benchmarks" / "results" / "gpu"


def measured(name: str, setting: Setting) -> dict[str, Any]:
    """Run a part here; whatever it raises becomes its reason."""
    from benchmarks.gpu import card

    module, more = PARTS[name]
    result: dict[str, Any] = {"status": "done", "why": None, "results": None, "table": None}
    try:
        if not card.available(setting.device):
            raise UserError(f"torch finds no {setting.device} here")
        part = importlib.import_module(f"benchmarks.gpu.{module}")
        result["results"] = part.measure(setting, *more)
        result["table"] = part.table(result["results"])
        wrong = [w for k in ("failures", "beyond") for w in result["results"].get(k, [])]
        if wrong:
            result |= {"status": "failed", "why": "; ".join(wrong)[:2000]}
    except Exception as error:
        traceback.print_exc()
        result |= {"status": "failed", "why": f"{type(error).__name__}: {error}"[:2000]}
    try:
        result["device"] = card.facts(setting.device)
    except Exception:  # a card that no longer answers
        result["device"] = {"device": setting.device, "name": "unknown"}
    return result


def in_process(name: str, setting: Setting) -> dict[str, Any]:
    """Run a part in a process of its own, within the limit."""
    answer = setting.work / "answer.json"
    command = [
        sys.executable, "-m", "benchmarks.gpu", name, "--device", setting.device,
        "--data", str(setting.data), "--out", str(setting.out), "--inside", str(setting.work),
        *(["--small"] if setting.small else []),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(setting.device), start_new_session=True
    )
    why = None
    try:
        status = process.wait(LIMIT)
        why = f"its process ended with status {status}" if status else None
    except subprocess.TimeoutExpired:
        why = f"it took longer than {LIMIT:.0f} s"
    finally:
        if process.poll() is None:  # it and all that it started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if why is None and answer.is_file():
        return json.loads(answer.read_text(encoding="utf-8"))
    device = {"device": setting.device, "name": "unknown"}
    return {"status": "failed", "why": why or "it left no answer", "results": None, "table": None,
            "device": device}  # fmt: skip


def run_parts(names: list[str], setting: Setting) -> list[str]:
    """Run parts one after the other, keep what they give; returns those that failed."""
    failed = []
    for name in names:
        print(f"== {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="emopeft-gpu-", dir=setting.work) as work:
            scratch_setting = Setting(
                setting.device, setting.small, setting.data, Path(work), setting.out
            )
            result = in_process(name, scratch_setting)
        result |= {
            "part": name, "small": setting.small, "seconds": time.monotonic() - started,
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        write_part(setting.out, name, result)
        if result["status"] != "done":
            failed.append(name)
            print(f"== {name} failed: {result['why']}", file=sys.stderr, flush=True)
    return failed


def default_device() -> str:
    """The GPU that torch finds; raises UserError where there is none."""
    from benchmarks.gpu import card

    for device in ("cuda", "mps"):
        if card.available(device):
            return device
    raise UserError(
        "torch finds no GPU here; --device cpu --small --out DIR runs the same in a small form"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; or: pack DIR"
    )
    parser.add_argument(
        "--device", choices=("cuda", "mps", "cpu"), help="default: the GPU there is"
    )
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes, a test")
    parser.add_argument("--data", type=Path, help="what pack filled (default: $EMOPEFT_GPU_DATA "
                        "or gpu_data)")  # fmt: skip
    parser.add_argument("--out", type=Path, help="where results go (default: results/gpu)")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    data = flags.data or Path(os.environ.get("EMOPEFT_GPU_DATA") or ROOT / "gpu_data")
    try:
        if flags.parts[:1] == ["pack"]:
            if len(flags.parts) > 2:
                parser.error("pack takes one folder")
            print(pack(Path(flags.parts[1]) if flags.parts[1:] else data))
            return 0
        for name in flags.parts:
            if name not in PARTS:
                parser.error(f"unknown part '{name}': known: {', '.join(PARTS)}")
        if missing := lacking():
            raise UserError(
                f"{', '.join(missing)} cannot be imported; install, or carry as wheels: "
                f"{' '.join(missing.values())}"
            )
        if flags.small and flags.out is None:
            parser.error("--small needs --out DIR: its numbers say nothing about speed")
        device = flags.device or default_device()
        out = (flags.out or RESULTS).resolve()
        out.mkdir(parents=True, exist_ok=True)
        if flags.inside is not None:
            setting = Setting(device, flags.small, data.resolve(), flags.inside, out)
            answer = measured(flags.parts[0], setting)
            (flags.inside / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
            return 0
        with tempfile.TemporaryDirectory(prefix="emopeft-gpu-") as work:
            setting = Setting(device, flags.small, data.resolve(), Path(work), out)
            failed = run_parts(flags.parts or list(PARTS), setting)
        print(write_page(out, list(PARTS)).read_text(encoding="utf-8"))
        if failed:
            print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1 if failed else 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
