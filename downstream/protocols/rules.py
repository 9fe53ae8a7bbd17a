"""Folds that are made from the data: their speakers, sessions, ids, or a split column."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.fields import PLAIN, GroupRule
from emopeft.downstream.protocols.protocol import FoldSpec, StageSpec
from emopeft.errors import UserError, unknown

# What the sides of a split are called. "evaluation" is the test part where nothing else is
# ("train, dev, evaluation") and the dev part beside one called "test" (as ESD has it).
SIDES = {
    "train": "train", "training": "train",
    "dev": "dev", "development": "dev", "valid": "dev", "val": "dev", "validation": "dev",
    "test": "test", "eval": "evaluation", "evaluation": "evaluation",
}  # fmt: skip
# What a test of its own is called, in small letters: test1, test-phone, test_clean.
NAMED_TEST = re.compile(r"test([0-9]|[-_.][a-z0-9]).*")
ORDERED = 7  # groups whose every order is tried
EXCHANGES = 200_000  # pairs that are tried to bring a class into every group

Sizes = Counter[str]  # utterances per class


def folds_by(
    rule: GroupRule,
    utterances: Sequence[Utterance],
    class_of: Callable[[Utterance], str],
    prefixed: bool = False,
) -> tuple[str, tuple[FoldSpec, ...]]:
    """The unit and the folds that ``rule`` gives for these utterances, in their order.

    The same utterances always give the same folds, whatever order they come in.

    Args:
        class_of: the class of an utterance ("" where targets are no classes).
        prefixed: whether speakers and sessions are called corpus/name.

    Raises:
        UserError: an utterance lacks what the rule goes by, or there are too few groups.
    """
    if rule.by == "split":
        return "id", (_own_split(utterances, prefixed),)
    if rule.by == "id":
        return "id", _rotate(_by_id(utterances, rule.folds, prefixed))

    def key(utterance: Utterance) -> str:
        name = utterance.speaker if rule.by == "speaker" else utterance.session
        return f"{utterance.corpus}/{name}" if prefixed and name else name or ""

    if lacking := [u.id for u in utterances if not key(u)]:
        raise UserError(
            f"{len(lacking)} of {len(utterances)} utterances have no {rule.by} "
            f"({some(lacking)}); fill the column '{rule.by}' or choose another protocol"
        )
    sizes: dict[str, Sizes] = {}
    for utterance in utterances:
        sizes.setdefault(key(utterance), Counter())[class_of(utterance)] += 1
    if len(sizes) < 3:
        raise UserError(
            f"folds by {rule.by} need at least three of them (train, dev, test); the data have "
            f"{len(sizes)}: {some(sorted(sizes))}; label more or use the protocol manifest-split"
        )
    if len(sizes) <= rule.one_each_up_to:
        return rule.by, _rotate([[name] for name in sorted(sizes)])
    return rule.by, _rotate(speaker_groups(sizes, min(rule.folds, len(sizes))))


def speaker_groups(sizes: dict[str, Sizes], count: int) -> list[list[str]]:
    """``count`` groups, `balanced`, in the order in which each is tested and the next one is dev.

    Args:
        sizes: speaker (or session) -> utterances of each class, or of whatever else is to be even.
    """
    return _ordered(balanced(sizes, count), sizes)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def balanced(sizes: dict[str, Sizes], count: int) -> list[list[str]]:
    """``count`` groups of names, with about equal numbers of names, of each class and of clips.

    The largest name first, each to the group whose counts it brings nearest to an equal share;
    no group gets more than its share of names, so that none is one name that talks the most.
    Then names change places where that brings a class into a group that had none of it.

    Args:
        sizes: name -> utterances per class.
    """
    total: Sizes = sum(sizes.values(), Counter())
    share = {c: n / count for c, n in total.items()}
    room = [len(sizes) // count + (i < len(sizes) % count) for i in range(count)]
    groups: list[list[str]] = [[] for _ in range(count)]
    group_sizes: list[Sizes] = [Counter() for _ in range(count)]
    for name in sorted(sizes, key=lambda n: (-sizes[n].total(), n)):
        free = [i for i in range(count) if len(groups[i]) < room[i]]
        # What a group is from its share, each class by itself: rare ones count as much.
        best = min(
            free, key=lambda i: (_gain(group_sizes[i], sizes[name], share), len(groups[i]), i)
        )
        groups[best].append(name)
        group_sizes[best] += sizes[name]
    _exchange(groups, group_sizes, sizes, list(total))
    return sorted(sorted(group) for group in groups)


def _gain(sizes: Sizes, more: Sizes, share: dict[str, float]) -> float:
    """By how much the squared distance from an equal share changes with ``more``."""
    change = 0.0
    for c, n in more.items():
        before, after = sizes[c] / share[c] - 1, (sizes[c] + n) / share[c] - 1
        change += after * after - before * before
    return round(change, 9)  # not by the last bit


def _exchange(
    groups: list[list[str]],
    group_sizes: list[Sizes],
    sizes: dict[str, Sizes],
    classes: Sequence[str],
) -> None:
    """Change names between groups as long as fewer (group, class) are without an utterance."""
    tries = 0
    lacking = [(i, c) for i in range(len(groups)) for c in classes if not group_sizes[i][c]]
    while lacking:
        i, c = lacking.pop()
        for j in range(len(groups)):
            if group_sizes[i][c] or j == i or not group_sizes[j][c]:
                continue
            for mine, theirs in itertools.product(sorted(groups[i]), sorted(groups[j])):
                tries += 1
                if tries > EXCHANGES:
                    return
                if not sizes[theirs][c]:
                    continue
                one = group_sizes[i] - sizes[mine] + sizes[theirs]
                other = group_sizes[j] - sizes[theirs] + sizes[mine]
                before = sum(not group_sizes[g][k] for g in (i, j) for k in classes)
                if sum(not g[k] for g in (one, other) for k in classes) < before:
                    groups[i][groups[i].index(mine)] = theirs
                    groups[j][groups[j].index(theirs)] = mine
                    group_sizes[i], group_sizes[j] = one, other
                    break


def _ordered(groups: list[list[str]], sizes: dict[str, Sizes]) -> list[list[str]]:
    """The groups in an order in which no class is only in a test part and its dev part.

    A class that two groups have is not trained on in the fold that tests one and chooses by the
    other; they must not follow each other.
    """
    if len(groups) > ORDERED:
        return groups
    classes = [{c for name in group for c in sizes[name]} for group in groups]
    every = set().union(*classes)

    def untrained(order: Sequence[int]) -> int:
        return sum(
            len(every - set().union(*(classes[k] for k in order if k not in pair)))
            for pair in zip(order, (*order[1:], order[0]), strict=True)
        )

    orders = ((0, *rest) for rest in itertools.permutations(range(1, len(groups))))
    return [groups[k] for k in min(orders, key=untrained)]


def _by_id(utterances: Sequence[Utterance], count: int, prefixed: bool) -> list[list[str]]:
    """``count`` groups of ids, see `GroupRule`; raises UserError where one stays empty."""
    groups: list[list[str]] = [[] for _ in range(count)]
    for utterance in sorted(utterances, key=lambda u: u.uid):
        digest = hashlib.sha256(utterance.uid.encode("utf-8")).digest()
        name = utterance.uid if prefixed else utterance.id
        groups[int.from_bytes(digest, "big") % count].append(name)
    if not all(groups):
        raise UserError(
            f"{len(utterances)} utterances are too few for {count} folds by id; label more, or "
            "take another protocol"
        )
    return groups


def _rotate(groups: list[list[str]]) -> tuple[FoldSpec, ...]:
    """Each group is tested once; the next one is its dev part."""
    return tuple(
        FoldSpec.plain(str(i + 1), group, groups[(i + 1) % len(groups)])
        for i, group in enumerate(groups)
    )


def _own_split(utterances: Sequence[Utterance], prefixed: bool) -> FoldSpec:
    """The fold of a split that came with the data.

    Each of its tests keeps its name, in small letters, and they come in the order of their names
    (test2 before test10): nobody takes the first of them, the main one, for another.
    """
    sides: dict[str, list[str]] = {"train": [], "dev": [], "evaluation": []}
    tests: dict[str, list[str]] = {}
    for utterance in utterances:
        side = _side_of(utterance)
        of = sides if side in sides else tests
        of.setdefault(side, []).append(utterance.uid if prefixed else utterance.id)
    evaluation = sides.pop("evaluation")
    if evaluation and sides["dev"] and tests:
        raise UserError(
            "the column 'split' has a dev, a test and an evaluation part, and evaluation may mean "
            "either; call it dev or test"
        )
    if evaluation and tests:
        sides["dev"] = evaluation
    elif evaluation:
        tests["test"] = evaluation
    for side, found in (*sides.items(), ("test", tests)):
        if not found:
            raise UserError(
                f"no labelled utterance has the split '{side}'; train, dev and test are all needed"
            )
    stage = StageSpec("train", tuple(sides["dev"]), tuple(sides["train"]))
    return FoldSpec("1", {n: tuple(tests[n]) for n in sorted(tests, key=_natural)}, (stage,))


def _side_of(utterance: Utterance) -> str:
    """The side of a split that an utterance is on: one of `SIDES`, or a test by its name."""
    name = (utterance.split or "").strip().lower()
    if not name:
        raise UserError(
            f"utterance '{utterance.id}' has no split; fill the column 'split' with train, dev or "
            "test, or use the protocol manifest-speakers"
        )
    if name in SIDES:
        return SIDES[name]
    if not name.startswith("test"):
        raise unknown(f"split of utterance '{utterance.id}'", name, SIDES)
    if not (NAMED_TEST.fullmatch(name) and re.fullmatch(PLAIN, name)):
        raise UserError(
            f"the split '{name[:60]}' of utterance '{utterance.id}' names no test: call it test, "
            "test1 or test-NAME, up to 60 letters, digits, '.', '_' or '-'"
        )
    return name


def named_test(utterance: Utterance) -> str | None:
    """The test of a split that an utterance stands in, None for all other sides and none."""
    name = (utterance.split or "").strip().lower()
    return name if name == "test" or NAMED_TEST.fullmatch(name) else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts test2 before test10."""
    return [(int(x) if x.isdigit() else -1, x) for x in re.split(r"(\d+)", name)]
