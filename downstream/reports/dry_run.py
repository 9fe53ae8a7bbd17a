"""The dry run: what would be run, on whom, how large it is and what it will cost."""

from __future__ import annotations

import yaml
from tabulate import tabulate

from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.heads.base import Head
from emopeft.downstream.models.counting import describe_head, method_parts, parameter_counts
from emopeft.downstream.runs.estimate import estimate
from emopeft.downstream.runs.expected import Trial
from emopeft.peft_modules.apply import Adaptation
from emopeft.peft_modules.overview import describe
from emopeft.units import percent

SHOWN = 12  # speakers of a side that are named


def dry_run(recipe: Recipe) -> str:
    """The resolved recipe, folds, parameters and estimated cost; nothing is trained."""
    trial = Trial.of(recipe)
    plan = trial.plan
    text = ["Recipe", yaml.safe_dump(recipe.to_dict(), sort_keys=False).rstrip(), ""]
    text += [f"Folds of {plan.protocol.name} (hash {plan.hash[:12]})", _folds(recipe, plan), ""]
    if plan.warnings:
        text += [*(f"warning: {warning}" for warning in plan.warnings), ""]
    text += _sizes(trial.upstream.name, recipe.head.name, trial.adaptation, trial.model.head)
    text += estimate(recipe, plan, trial.cost(), trial.device)
    return "\n".join(text)


def _folds(recipe: Recipe, plan: Plan) -> str:
    rows = []
    several = len({e.utterance.corpus for e in plan.examples()}) > 1
    for fold in plan.choose(recipe.folds):
        for part, name, examples in fold.parts():
            known = (e.utterance for e in examples if e.utterance.speaker)
            speakers = sorted({u.speaker_uid if several else u.speaker for u in known})
            who = " ".join(speakers[:SHOWN]) + (" ..." if len(speakers) > SHOWN else "")
            rows.append(
                {
                    "fold": fold.name,
                    "side": part if name in (part, "train") else f"{part} {name}",
                    "clips": len(examples),
                    **plan.task.summary([plan.target(e) for e in examples]),
                    "speakers": len(speakers),
                    "who": who,
                }
            )
    return tabulate(rows, headers="keys", tablefmt="simple")


def _sizes(upstream: str, head_name: str, adaptation: Adaptation, head: Head) -> list[str]:
    """What trains: per part, and where in the encoder it sits."""
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
