"""What a person sees on the terminal: the table of results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tabulate import tabulate

from emopeft.units import duration, percent, size


def result(record: dict[str, Any], out: Path) -> str:
    """The table of a finished run."""
    rows = []
    for fold in record["folds"]:
        m = fold["metrics"]
        scores = [f"{100 * m[k]:.2f}" for k in ("accuracy", "uar", "macro_f1")]
        rows.append(
            [fold["fold"], fold["seed"], *scores, f"{fold['lr']:g}",
             f"{fold['best_step']}/{fold['steps']}", duration(fold["seconds"]["train"])]
        )  # fmt: skip
    summary = []
    for k in ("accuracy", "uar", "macro_f1"):
        s = record["summary"][k]
        spread = f" ± {100 * s['std']:.2f}" if s["std"] is not None else ""
        summary.append(f"{100 * s['mean']:.2f}{spread}")
    complete = record["status"] == "finished"
    rows.append(["mean" if complete else "incomplete", "", *summary, "", "", ""])
    headers = ["fold", "seed", "accuracy", "UAR", "macro-F1", "lr", "best/steps", "training"]
    protocol, upstream, cost = record["protocol"], record["upstream"], record["cost"]
    parameters, seconds = record["parameters"], record["cost"]["seconds"]
    note = f" ({upstream['note']})" if upstream["note"] else ""
    chance = 1 / len(protocol["classes"])
    lines = [
        f"{upstream['name']}{note} + {record['method']['spec']} on {record['corpus']['name']}, "
        f"{protocol['name']} (hash {protocol['hash'][:12]}), {len(protocol['classes'])} classes "
        f"(chance UAR {100 * chance:.1f})",
        tabulate(rows, headers, tablefmt="simple", disable_numparse=True),
        f"trained {parameters['trainable']:,} of {parameters['total']:,} parameters "
        f"({percent(parameters['share'])}); frozen part {duration(seconds['features'])}, training "
        f"{duration(seconds['train'])}; peak memory {size(cost['peak_memory_bytes'])}, "
        f"kept on disk {size(cost['cache_bytes'])}",
        f"record: {out / record['name'] / 'result.json'}",
    ]
    return "\n".join(lines)


def evaluation(results: list[dict[str, Any]]) -> str:
    """The table of ``-m evaluate``."""
    rows = []
    for r in results:
        scores = [f"{100 * r['metrics'][k]:.2f}" for k in ("accuracy", "uar", "macro_f1")]
        difference = "not recorded" if math.isnan(r["difference"]) else f"{r['difference']:.1e}"
        rows.append([r["fold"], r["seed"], r["clips"], *scores, difference])
    headers = ["fold", "seed", "clips", "accuracy", "UAR", "macro-F1", "largest change"]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
