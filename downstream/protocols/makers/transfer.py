"""Two stages, source then target: ``--corpus ravdess+emodb --protocol transfer``.

The first corpus of ``--corpus`` is the source, the second the target. Within one corpus the two are
styles: ``--corpus iemocap --protocol transfer:source=acted,target=natural``.

Folds are those of the target's own protocol, restricted to the classes that both have. Of two
corpora, stage ``source`` is that of the source's own first fold in all of them: they share no
speaker, and it is trained once. Within one corpus it is the other half of the same fold, so that no
speaker of the tests is in either stage. Test ``target`` (the main one) is the target's, test
``source`` the test part that goes with stage ``source``. What is done with the two stages (both,
one of them, the two as one) is the recipe's affair, section ``transfer``: all of it is one plan.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance
from emopeft.downstream.protocols.fields import OVERLAPS, HashRule
from emopeft.downstream.protocols.makers.base import Maker, register
from emopeft.downstream.protocols.makers.shared import (
    own_folds,
    own_protocol,
    published_counts,
    shared_labels,
)
from emopeft.downstream.protocols.protocol import FoldSpec
from emopeft.errors import UserError, unknown

FOUR = ("neutral", "happy", "sad", "angry")
LONGEST = 100  # characters of a protocol's name
SOURCE, TARGET = "source", "target"  # the stages, and the tests

Lists = dict[str, list[str]]  # train, dev and test: ids


@dataclasses.dataclass(frozen=True)
class Options:
    """What stands after ``transfer:``.

    Attributes:
        classes: such as ``angry+sad``; none: those that the own protocols of both have.
        source, target: styles of one corpus (acted, natural); none: there are two corpora.
        folds: a protocol of the target in place of its own: ``iemocap-loso``.
        source_folds: the same of the source, where it is another corpus.
    """

    classes: tuple[str, ...] = ()
    source: str | None = None
    target: str | None = None
    folds: str | None = None
    source_folds: str | None = None


def make(
    options: Options, corpora: Sequence[Corpus], utterances: Sequence[Utterance]
) -> Mapping[str, Any]:
    """The target's folds with a stage and a test of the source before and beside them."""
    _check(options, corpora)
    source, target = corpora[0], corpora[-1]
    order = list(dict.fromkeys((source.name, target.name)))
    by_name = {c.name: c for c in corpora}
    classes, labels = shared_labels([by_name[n] for n in order], utterances, options.classes)
    own = [own_protocol(target, options.folds)]
    from_folds = own_folds(target, utterances, labels[target.name], options.folds)
    pairs = [(fold, fold) for fold in from_folds]
    if source is not target:
        own.append(own_protocol(source, options.source_folds))
        first = own_folds(source, utterances, labels[source.name], options.source_folds)[0]
        pairs = [(first, fold) for fold in from_folds]
    by_uid = {u.uid: u for u in utterances}
    folds = []
    for before, fold in pairs:
        parts = (
            _restricted(before, by_uid, options.source),
            _restricted(fold, by_uid, options.target),
        )
        _check_filled(fold.name, *parts)
        folds.append(_fold(fold.name, *parts))
    members = {u: None for f in folds for part in _members(f) for u in part}
    left_out = {
        u for both in pairs for fold in both for part in _lists(fold).values() for u in part
    } - members.keys()
    counts = Counter(
        published_counts(
            [by_name[n] for n in order], [by_uid[u] for u in {*members, *left_out}], labels
        )
    )
    counts -= Counter(labels[by_uid[u].corpus][by_uid[u].emotion or ""] for u in left_out)
    overlap = [part for part in OVERLAPS if any(part in p.speaker_overlap for p in own)]
    who = _who(options, source, target)
    return {
        "name": _name(who, classes, bool(options.classes), overlap),
        "version": 1,
        "corpora": order,
        "task": "emotion",
        "description": f"Two stages, {who[0]} then {who[1]}, {len(classes)} classes "
        f"({', '.join(classes)}): folds of {own[0].name}; {_how(own[-1].name, source, target)}.",
        "source": f"downstream/protocols/makers/transfer.py; {'; '.join(p.source for p in own)}",
        "classes": list(classes),
        "labels": {name: dict(labels[name]) for name in order},
        "counts": {c: counts[c] for c in classes},
        "speaker_overlap": overlap,
        "unknown_speakers": any(p.unknown_speakers for p in own),
        "unit": "id",
        "utterances": {u: labels[by_uid[u].corpus][by_uid[u].emotion or ""] for u in members},
        "folds": folds,
    }


def _check(options: Options, corpora: Sequence[Corpus]) -> None:
    """That two domains are named; raises UserError."""
    styles = (options.source, options.target)
    names = "+".join(c.name for c in corpora)
    if len(corpora) > 2:
        raise UserError(f"protocol transfer takes two corpora, source+target, not {names}")
    if len(corpora) == 2:
        if any(styles):
            raise UserError(
                f"transfer:source and target are styles of one corpus, and {names} are two: leave "
                "them out, the first corpus is the source"
            )
        return
    if not all(styles) or styles[0] == styles[1]:
        raise UserError(
            f"protocol transfer needs a source and a target: two corpora (--corpus {names}+OTHER, "
            "the source first), or two styles of one "
            "(--protocol transfer:source=acted,target=natural)"
        )
    if options.source_folds:
        raise UserError("transfer:source_folds is for two corpora; within one give folds")


def _restricted(fold: FoldSpec, by_uid: Mapping[str, Utterance], style: str | None) -> Lists:
    """The fold's train, dev and main test, of one style."""
    if style is not None:
        known = {by_uid[u].style for part in _lists(fold).values() for u in part} - {None}
        if style not in known:
            raise unknown("style of the corpus", style, sorted(filter(None, known)))
    return {
        name: [u for u in part if style is None or by_uid[u].style == style]
        for name, part in _lists(fold).items()
    }


def _lists(fold: FoldSpec) -> Lists:
    """Train, dev and main test of a fold of one stage."""
    stage = fold.stages[0]
    assert not isinstance(stage.dev, HashRule) and stage.train is not None
    main = next(iter(fold.tests.values()))
    return {"train": list(stage.train), "dev": list(stage.dev), "test": list(main)}


def _check_filled(name: str, source: Lists, target: Lists) -> None:
    for domain, lists in ((SOURCE, source), (TARGET, target)):
        if empty := [side for side, members in lists.items() if not members]:
            raise UserError(
                f"fold {name} has no {empty[0]} utterance of the {domain}'s for protocol transfer; "
                "choose other classes, or other folds (transfer:folds=NAME)"
            )


def _fold(name: str, source: Lists, target: Lists) -> dict[str, Any]:
    return {
        "name": name,
        "tests": {TARGET: target["test"], SOURCE: source["test"]},
        "stages": [
            {"name": SOURCE, "train": source["train"], "dev": source["dev"]},
            {"name": TARGET, "train": target["train"], "dev": target["dev"]},
        ],
    }


def _members(fold: Mapping[str, Any]) -> list[list[str]]:
    """All lists of a fold."""
    return [*(s[k] for s in fold["stages"] for k in ("train", "dev")), *fold["tests"].values()]


def _who(options: Options, source: Corpus, target: Corpus) -> tuple[str, str]:
    """What source and target are called."""
    if source is target:
        return f"{source.name} {options.source}", str(options.target)
    return source.name, target.name


def _how(folds: str, source: Corpus, target: Corpus) -> str:
    if source is target:
        return "stage and test of the source are of the same fold"
    return f"stage and test of the source are fold 1 of {folds} throughout"


def _name(
    who: tuple[str, str], classes: Sequence[str], chosen: bool, overlap: Sequence[str]
) -> str:
    """``transfer-ravdess-to-emodb-6``; where they were chosen, the classes by name (4class: the
    four of most corpora), and, as every protocol's must, what it shares between its parts. What is
    too long ends in a digest."""
    what = "-".join(classes) if chosen else str(len(classes))
    what = "4class" if tuple(classes) == FOUR else what
    plain = re.sub(r"[^a-z0-9]+", "-", f"transfer-{who[0]}-to-{who[1]}-{what}".lower()).strip("-")
    tail = "".join(f"-{word}" for word in dict.fromkeys(OVERLAPS[part][0] for part in overlap))
    if len(plain) + len(tail) > LONGEST:
        short = hashlib.sha256(plain.encode()).hexdigest()[:8]
        plain = f"{plain[: LONGEST - len(tail) - 9].rstrip('-')}-{short}"
    return plain + tail


register(Maker("transfer", "two stages, source then target: corpora or styles", Options, make))
