"""The recipe's section ``transfer``: what is done with the two stages of a transfer plan.

A transfer plan (protocols/makers/transfer.py, or a protocol file) has the stages ``source`` and
``target`` and tests of the same names. All strategies use that one plan, so that they share its
hash and a table. Imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emopeft.downstream.data.fold import Fold
from emopeft.errors import UserError, unknown
from emopeft.values import Range, key, positive

if TYPE_CHECKING:
    from emopeft.downstream.data.recipe import Recipe

SOURCE, TARGET = "source", "target"  # the stages, and the tests
# The moments at which both tests are taken, beside the end.
BEFORE, BETWEEN = "before", "between"
# Where the target's stage starts from the end of the source's.
FOLLOWING = ("sequential", "average")
STRATEGIES = (*FOLLOWING, "source", "target", "joint", "addition")
# What may be frozen, by the pattern that chooses it (`AdaptedModel.freeze`).
PARTS = {"lora.A": "lora_A", "lora.B": "lora_B"} | {
    name: name for name in ("lora", "ba", "wg", "ws", "head")
}
PENALTIES = ("none", "l2sp", "ewc", "lwf")


@dataclasses.dataclass
class TransferKeys:
    strategy: str = key(
        "sequential",
        "source, then target (sequential); one of them alone; the training parts of both as one "
        "(joint); the mean of both ends (average); the sum of two adapters (addition)",
        STRATEGIES,
    )
    freeze: list[str] = key(
        [], "what does not train in the target's stage: lora.A, lora.B, lora, ba, wg, ws, head"
    )
    penalty: str = key("none", "what holds the target's stage near the source's end", PENALTIES)
    strength: float | None = key(None, "of the penalty (lambda)", range=positive(1e12))
    temperature: float = key(2.0, "of penalty=lwf", range=positive(1e6))
    rehearsal: int = key(
        0, "clips per class of the source that are trained on in the target's stage, too",
        range=Range(0, 10**6),
    )  # fmt: skip
    share: float = key(0.5, "of the target's end in strategy=average", range=Range(0, 1))
    source: dict[str, Any] = key({}, "keys of section train that are replaced in that stage")
    target: dict[str, Any] = key({}, "the same in the target's")
    init_from: str | None = key(
        None, "a finished run, whose checkpoints take the place of the source's stage"
    )


def check_transfer(recipe: Recipe) -> None:
    """Keys that must agree with each other; raises UserError naming them."""
    keys = recipe.transfer
    if keys.strategy not in FOLLOWING:
        for name, value in (
            ("freeze", keys.freeze), ("penalty", keys.penalty != "none"),
            ("rehearsal", keys.rehearsal), ("init_from", keys.init_from),
        ):  # fmt: skip
            if value:
                raise UserError(
                    f"transfer.{name} is for a stage that goes on from the source's, and "
                    f"transfer.strategy is {keys.strategy}: take sequential, or leave "
                    f"transfer.{name} out"
                )
    if (keys.strength is not None) != (keys.penalty != "none"):
        raise UserError(
            f"transfer.penalty={keys.penalty} and transfer.strength={keys.strength}: give both, a "
            "penalty and its strength, or neither"
        )
    for name, needs, value in (
        ("temperature", "penalty", "lwf"), ("share", "strategy", "average")
    ):  # fmt: skip
        default = TransferKeys.__dataclass_fields__[name].default
        if getattr(keys, name) != default and getattr(keys, needs) != value:
            raise UserError(
                f"transfer.{name} is for transfer.{needs}={value}, and that is "
                f"{getattr(keys, needs)}; leave it out"
            )
    if keys.init_from is not None and recipe.head.init == "probe":
        raise UserError(
            "transfer.init_from and head.init=probe both say what the head starts as; set "
            "head.init=random"
        )
    _check_parts(recipe)
    _check_stage_keys(recipe)


def _check_parts(recipe: Recipe) -> None:
    from emopeft.downstream.data.recipe import parse_method

    methods = {m.name for m in parse_method(recipe.method)} if recipe.transfer.freeze else set()
    for part in recipe.transfer.freeze:
        if part not in PARTS:
            raise unknown("part in transfer.freeze", part, PARTS)
        method = part.partition(".")[0]
        if part != "head" and method not in methods:
            raise UserError(
                f"transfer.freeze={part}: the method {recipe.method} has no {method}; add it with "
                f"-p {recipe.method}+{method}, or leave it out"
            )
    if len(set(recipe.transfer.freeze)) < len(recipe.transfer.freeze):
        raise UserError("transfer.freeze names a part twice; give it once")


def _check_stage_keys(recipe: Recipe) -> None:
    """The keys of each stage, and that there is such a stage."""
    from emopeft.downstream.data.resolve import stage_keys

    keys = recipe.transfer
    without = {
        SOURCE: keys.init_from is not None or keys.strategy in ("target", "joint"),
        TARGET: keys.strategy in ("source", "joint"),
    }
    for stage, replaced in ((SOURCE, keys.source), (TARGET, keys.target)):
        if replaced and without[stage]:
            raise UserError(
                f"transfer.{stage} is for the stage '{stage}', and with "
                f"{'transfer.init_from' if keys.init_from else f'strategy={keys.strategy}'} there "
                "is none of its own: set the keys of section train"
            )
        if replaced:
            later = stage == TARGET and keys.strategy in FOLLOWING
            stage_keys(recipe, replaced, f"transfer.{stage}", later)


def is_transfer(stages: Sequence[str], tests: Iterable[str]) -> bool:
    """Whether stages and tests of these names are those of a transfer plan."""
    return tuple(stages) == (SOURCE, TARGET) and {SOURCE, TARGET} <= set(tests)


def has_domains(folds: Iterable[Fold]) -> bool:
    """Whether these folds are those of a transfer plan."""
    return all(is_transfer([s.name for s in fold.stages], fold.tests) for fold in folds)


def check_folds(keys: TransferKeys, folds: Sequence[Fold], protocol: str) -> None:
    """That there are two stages where the section ``transfer`` says something of them.

    Raises UserError naming the key.
    """
    said = decisions(dataclasses.asdict(keys))
    if not said or has_domains(folds):
        return
    alone = [name for name in said if name != "freeze" or keys.init_from is None]
    if keys.init_from is not None and all(len(fold.stages) == 1 for fold in folds):
        alone = [n for n in alone if n not in ("init_from", "penalty", "strength", "temperature")]
    if alone:
        raise UserError(
            f"transfer.{alone[0]} is for a plan with the stages source and target, which protocol "
            f"{protocol} does not have: take --protocol transfer, or leave it out"
        )


def decisions(keys: Mapping[str, Any]) -> dict[str, Any]:
    """What of the section (or of the facts in a record) is not as it is by default; what decides
    nothing is left out.

    Args:
        keys: as `TransferKeys` has them, as data.
    """
    defaults = dataclasses.asdict(TransferKeys())
    return {n: keys[n] for n in defaults if n in keys and keys[n] != defaults[n]}
