"""What trains, and how large it is: of the methods, in the head, and in all."""

from __future__ import annotations

from typing import Any

from emopeft.downstream.heads.base import Head
from emopeft.peft_modules.apply import Adaptation


def parameter_counts(adaptation: Adaptation, head: Head) -> dict[str, Any]:
    """Trainable and total parameters, with the head's apart.

    The weighted sum's count as the method's where the method names it (``lora+ws``).
    """
    patched = sum(patched_sizes(head).values())
    method = sum(p.parameters for p in adaptation.parts) + patched
    in_head = sum(p.numel() for p in head.parameters() if p.requires_grad) - patched
    if adaptation.weighted_sum and head.featurizer.weights is not None:
        method += head.featurizer.weights.numel()
        in_head -= head.featurizer.weights.numel()
    total = sum(p.numel() for p in adaptation.upstream.parameters())
    total += sum(p.numel() for p in head.parameters())
    return {
        "trainable": method + in_head,
        "method": method,
        "head": in_head,
        "total": total,
        "share": (method + in_head) / total,
    }


def patched_sizes(head: Head) -> dict[str, int]:
    """How many of the head's parameters each method put there."""
    sizes = {name: p.numel() for name, p in head.named_parameters()}
    return {method: sum(sizes[n] for n in names) for method, names in head.patched.items()}


def method_parts(adaptation: Adaptation, head: Head) -> list[dict[str, Any]]:
    """The methods of a sum as they stand in a record."""
    parts = []
    for part in adaptation.parts:
        size = part.parameters + patched_sizes(head).get(part.method.name, 0)
        if part.method.name == "ws" and head.featurizer.weights is not None:
            size = head.featurizer.weights.numel()
        parts.append(
            {"name": part.method.name, "options": part.method.options(), "parameters": size}
        )
    return parts


def describe_head(adaptation: Adaptation, head: Head) -> list[dict[str, Any]]:
    """What methods train in the head, as `peft_modules.apply.describe` says it of the blocks."""
    sizes = {name: p.numel() for name, p in head.named_parameters()}
    rows = []
    for method, names in head.patched.items():
        places = dict.fromkeys(_place(name) for name in names)
        for place in places:
            rows.append((method, place, sum(sizes[n] for n in names if _place(n) == place)))
    if adaptation.weighted_sum and head.featurizer.weights is not None:
        rows.append(("ws", "featurizer", head.featurizer.weights.numel()))
    return [
        {"method": m, "blocks": "head", "module": place, "count": 1, "each": n, "parameters": n}
        for m, place, n in rows
    ]


def _place(name: str) -> str:
    """The part of a head that a parameter is of: "classifier", or "heads.1.classifier"."""
    before, _, _ = name.partition("classifier.")
    return before + "classifier" if before != name else name.split(".")[0]
