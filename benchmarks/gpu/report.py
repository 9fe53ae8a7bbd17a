"""A part's JSON file, and the page of tables made of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabulate import tabulate

from emopeft.files import read_json, write_json, write_text

NONE = "None yet: no GPU could be had. `make gpu` fills this page (docs/gpu.md).\n"


def markdown(headers: list[str], rows: list[list[str]]) -> str:
    """A table in markdown."""
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def write_part(out: Path, name: str, result: dict[str, Any]) -> None:
    """Keep what a part gave: status, reason, seconds, device, results and its table."""
    write_json(out / f"{name}.json", result)


def write_page(out: Path, names: list[str]) -> Path:
    """Renew the page from all parts that are there."""
    parts = ["# On a GPU", ""]
    for name in names:
        path = out / f"{name}.json"
        if not path.is_file():
            continue
        result = read_json(path)
        parts += [f"## {name}", ""]
        if result.get("table"):
            parts += [result["table"], ""]
        if result["status"] != "done":
            parts += [f"**Failed**: {result['why']}", ""]
        small = "; small form, says nothing about speed" if result["small"] else ""
        where = _where(result["device"])
        parts += [f"{where}; {result['seconds']:.0f} s; {result['date']}{small}", ""]
    text = "\n".join(parts) if len(parts) > 2 else "\n".join([*parts, NONE])
    write_text(out / "README.md", text)
    return out / "README.md"


def _where(facts: dict[str, Any]) -> str:
    """The card, its driver and the packages, in a line."""
    words = [facts["name"]]
    if facts.get("driver"):
        words.append(f"driver {facts['driver']}")
    if facts.get("cuda"):
        words.append(f"CUDA {facts['cuda']}")
    words += [f"{k} {facts[k]}" for k in ("torch", "transformers", "peft") if k in facts]
    return ", ".join(words)
