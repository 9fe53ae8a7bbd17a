"""What a person sees on the terminal: the dry run, the table of results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from emopeft.downstream.data.recipe import Recipe
from emopeft.units import duration, percent, size

if TYPE_CHECKING:  # these load torch, which tables do without
    from emopeft.downstream.models.heads import Head
    from emopeft.peft_modules.apply import Adaptation


# ---- dry run --------------------------------------------------------------------------------


def dry_run(recipe: Recipe) -> str:
    """The resolved recipe, folds, parameters and estimated cost; nothing is trained."""
    import yaml

    from emopeft.downstream.corpora.check import scan
    from emopeft.downstream.data.prepare import prepare
    from emopeft.downstream.models.build import Blueprint, upstream_of
    from emopeft.downstream.runs.estimate import estimate
    from emopeft.downstream.tasks.emotion import TASKS

    data = prepare(recipe)
    task = TASKS[recipe.task].of(data.resolved)
    upstream = upstream_of(recipe.upstream)
    blueprint = Blueprint.of(upstream, recipe, task.outputs)
    adaptation = blueprint.adapt(recipe.seeds[0])
    model = blueprint.model(recipe.seeds[0], adaptation)
    scanned = scan(data.utterances())
    scanned.raise_if_broken()

    text = ["Recipe", yaml.safe_dump(recipe.to_dict(), sort_keys=False).rstrip(), ""]
    text += [f"Folds of {data.resolved.protocol.name} (hash {data.resolved.hash[:12]})"]
    rows = []
    for fold in data.folds:
        for side in ("train", "dev", "test"):
            utterances = getattr(fold, side)
            counts = dict.fromkeys(task.classes, 0)
            for u in utterances:
                counts[task.classes[data.resolved.label(u)]] += 1
            speakers = sorted({u.speaker for u in utterances})
            shown = " ".join(speakers[:12]) + (" ..." if len(speakers) > 12 else "")
            rows.append([fold.name, side, len(utterances), *counts.values(), len(speakers), shown])
    headers = ["fold", "side", "clips", *task.classes, "speakers", "who"]
    text += [tabulate(rows, headers, tablefmt="simple"), ""]

    text += _sizes(upstream.name, recipe.head.name, adaptation, model.head)
    text += estimate(recipe, data, model, scanned)
    return "\n".join(text)


def _sizes(upstream: str, head_name: str, adaptation: Adaptation, head: Head) -> list[str]:
    """What trains: per part, and where in the encoder it sits."""
    from emopeft.downstream.models.build import describe_head, method_parts, parameter_counts
    from emopeft.peft_modules.apply import describe

    counts = parameter_counts(adaptation, head)
    rows = [(p["name"], p["parameters"]) for p in method_parts(adaptation, head)]
    rows += [(n, counts[n]) for n in ("head", "trainable", "total")]
    parts = [[n, f"{size:,}", percent(size / counts["total"])] for n, size in rows]
    places = describe(adaptation) + describe_head(adaptation, head)
    placed = [
        [r["method"], r["blocks"], r["module"], f"{r['each']:,}", f"{r['parameters']:,}",
         percent(r["parameters"] / counts["total"])]
        for r in places
    ]  # fmt: skip
    right = ("left", "right", "right")
    text = [
        f"Parameters: {upstream} + {adaptation.spec} + {head_name} head",
        tabulate(parts, ["part", "parameters", "share"], tablefmt="simple", colalign=right),
        "",
    ]
    if placed:
        headers = ["method", "blocks", "module", "each", "parameters", "share"]
        align = ("left", "left", *right, "right")
        text += [tabulate(placed, headers, disable_numparse=True, colalign=align), ""]
    return text


# ---- results --------------------------------------------------------------------------------


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
