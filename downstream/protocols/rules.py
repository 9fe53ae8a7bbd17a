"""Folds for a user's own data, made from its speakers, its sessions or its split column."""

from __future__ import annotations

from collections import Counter

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.schema import FoldSpec, GroupRule
from emopeft.errors import UserError, unknown

# What the sides of a split are called. "evaluation" is the test part where nothing else is
# ("train, dev, evaluation") and the dev part beside one called "test" (as ESD has it).
SIDES = {
    "train": "train", "training": "train",
    "dev": "dev", "development": "dev", "valid": "dev", "val": "dev", "validation": "dev",
    "test": "test", "eval": "evaluation", "evaluation": "evaluation",
}  # fmt: skip


def folds_by(rule: GroupRule, utterances: list[Utterance]) -> tuple[str, tuple[FoldSpec, ...]]:
    """The unit and the folds that ``rule`` gives for these utterances, in their order.

    The same utterances always give the same folds, whatever order they come in.

    Raises:
        UserError: an utterance lacks what the rule goes by, or there are too few groups.
    """
    if rule.by == "split":
        return "id", (_own_split(utterances),)
    sizes = Counter(_key(u, rule.by) for u in utterances)
    if lacking := [u.id for u in utterances if not _key(u, rule.by)]:
        raise UserError(
            f"{len(lacking)} of {len(utterances)} utterances have no {rule.by} "
            f"({some(lacking)}); fill the column '{rule.by}' or choose another protocol"
        )
    if len(sizes) < 3:
        raise UserError(
            f"folds by {rule.by} need at least three of them (train, dev, test); the data have "
            f"{len(sizes)}: {some(sorted(sizes))}; label more or use the protocol manifest-split"
        )
    return rule.by, _rotate(_groups(sizes, rule))


def some(names: list[str], most: int = 5) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _key(utterance: Utterance, by: str) -> str:
    return (utterance.speaker if by == "speaker" else utterance.session) or ""


def _groups(sizes: Counter[str], rule: GroupRule) -> list[list[str]]:
    """One group each, or the largest first, each to the smallest group so far."""
    if len(sizes) <= rule.one_each_up_to:
        return [[name] for name in sorted(sizes)]
    groups: list[list[str]] = [[] for _ in range(rule.folds)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(groups, key=lambda group: sum(sizes[n] for n in group)).append(name)
    return [sorted(group) for group in groups]


def _rotate(groups: list[list[str]]) -> tuple[FoldSpec, ...]:
    """Each group is tested once; the next one is its dev part."""
    return tuple(
        FoldSpec(str(i + 1), test=tuple(group), dev=tuple(groups[(i + 1) % len(groups)]))
        for i, group in enumerate(groups)
    )


def _own_split(utterances: list[Utterance]) -> FoldSpec:
    sides: dict[str, list[str]] = {"train": [], "dev": [], "test": [], "evaluation": []}
    for utterance in utterances:
        name = (utterance.split or "").strip().lower()
        if not name:
            raise UserError(
                f"utterance '{utterance.id}' has no split; fill the column 'split' with train, "
                "dev or test, or use the protocol manifest-speakers"
            )
        if name not in SIDES:
            raise unknown(f"split of utterance '{utterance.id}'", name, SIDES)
        sides[SIDES[name]].append(utterance.id)
    evaluation = sides.pop("evaluation")
    if evaluation and sides["dev"] and sides["test"]:
        raise UserError(
            "the column 'split' has a dev, a test and an evaluation part, and evaluation may mean "
            "either; call it dev or test"
        )
    sides["dev" if sides["test"] else "test"] += evaluation
    for side, ids in sides.items():
        if not ids:
            raise UserError(
                f"no labelled utterance has the split '{side}'; train, dev and test are all needed"
            )
    return FoldSpec("1", tuple(sides["test"]), tuple(sides["dev"]), tuple(sides["train"]))
