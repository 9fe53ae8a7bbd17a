"""Freezing some of what trains, for a later stage of a training."""

from __future__ import annotations

from collections.abc import Sequence

from emopeft.errors import UserError
from emopeft.peft_modules.apply import Adaptation
from emopeft.peft_modules.liveness import prove_live


def freeze(adaptation: Adaptation, patterns: Sequence[str]) -> list[str]:
    """Stop training some of what trains, for a later stage; its values stay as they are.

    What still trains is proven to be live again, so what an earlier stage trained is put in first
    (`Adaptation.carry`): behind a LoRA-B that is still zero, a LoRA-A is dead. ``start`` stays
    where it is: what is kept below it was kept for it.

    Args:
        patterns: a method of the sum by its name ("lora"), or a part of parameter names ("lora_A").

    Returns:
        the names of the parameters that were frozen.

    Raises:
        UserError: a pattern that chooses nothing (with what trains), or a dead tensor.
    """
    frozen: list[str] = []
    for pattern in patterns:
        named = [part for part in adaptation.parts if part.method.name == pattern]
        names = [n for part in named or adaptation.parts for n in part.sizes]
        chosen = names if named else [n for n in names if pattern and pattern in n]
        if not chosen:
            raise UserError(
                f"freeze: '{pattern}' chooses nothing that trains in {adaptation.upstream.name}; "
                f"what does: {_what_trains(adaptation)}"
            )
        for name in chosen:
            adaptation.upstream.get_parameter(name).requires_grad_(False)
        frozen += [n for n in chosen if n not in frozen]
    for part in adaptation.parts:
        part.sizes = {n: size for n, size in part.sizes.items() if n not in frozen}
    prove_live(adaptation.upstream)
    return frozen


def _what_trains(adaptation: Adaptation) -> str:
    """For messages: each method with one of its parameters."""
    shown = [
        f"{part.method.name} ({len(part.sizes)} tensors, e.g. {next(iter(part.sizes))})"
        for part in adaptation.parts
        if part.sizes
    ]
    return ", ".join(shown) or "nothing (the upstream is frozen)"
