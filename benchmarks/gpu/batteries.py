"""The contract batteries of upstreams and methods, on the device (tests/upstream, peft_modules)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

from benchmarks.driving import ROOT
from benchmarks.gpu.report import markdown
from benchmarks.gpu.setting import Setting

FOLDERS = ("tests/upstream", "tests/peft_modules")
WORKERS = 6  # processes that share a GPU
SMALL = "moonshine"  # one family of the upstreams' battery


def measure(setting: Setting) -> dict[str, Any]:
    """Run pytest on the cases of the device; "failures" names what must hold and does not."""
    report = setting.work / "batteries.xml"
    # Only this device's cases: the others run everywhere, with the rest of the tests.
    small = [f"{FOLDERS[0]}/test_{name}.py" for name in ("contract", "parity")]
    which = small if setting.small else list(FOLDERS)
    chosen = f"{setting.device} and {SMALL}" if setting.small else setting.device
    command = [
        sys.executable, "-m", "pytest", "-q", "-k", chosen, f"--junitxml={report}",
        "-p", "no:cacheprovider", *which,
    ]  # fmt: skip
    if not setting.small and importlib.util.find_spec("xdist"):
        command += ["-n", str(WORKERS)]
    # The tests choose their devices themselves, and compare them.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:], done.stderr[-1000:], file=sys.stderr)
    if done.returncode == 5:
        raise RuntimeError(f"no test of {', '.join(which)} has a case for '{chosen}'")
    if not report.is_file():
        raise RuntimeError(f"pytest ended with status {done.returncode}: {done.stderr[-500:]}")
    return counts(report.read_text(encoding="utf-8"))


def counts(text: str) -> dict[str, Any]:
    """Of pytest's report in JUnit's format, per folder of tests."""
    folders: dict[str, dict[str, int]] = {}
    failures = []
    for case in ElementTree.fromstring(text).iter("testcase"):
        folder = "/".join(case.get("classname", "").split(".")[:2])
        kinds = {child.tag for child in case}
        outcome = (
            "failed" if kinds & {"failure", "error"}
            else "skipped" if "skipped" in kinds
            else "passed"
        )  # fmt: skip
        folders.setdefault(folder, {"passed": 0, "failed": 0, "skipped": 0})[outcome] += 1
        if outcome == "failed":
            broken = next(child for child in case if child.tag in ("failure", "error"))
            failures.append(
                f"{case.get('classname')}::{case.get('name')}: {broken.get('message', '')[:300]}"
            )
    return {"folders": folders, "failures": failures}


def table(results: dict[str, Any]) -> str:
    """Passed, failed and skipped cases."""
    rows = [[name, *map(str, counts.values())] for name, counts in results["folders"].items()]
    return markdown(["batteries", "passed", "failed", "skipped"], rows)
