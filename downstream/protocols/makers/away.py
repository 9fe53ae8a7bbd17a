"""One corpus' own folds, tested at home and on whole others: ``--protocol away:home=ravdess``.

Trained and chosen are as the home corpus' own protocol has it, restricted to the classes that all
corpora share. The first test is the home's; one more for each other corpus holds all its
utterances of these classes, none of which is ever trained on or chosen by (zero-shot).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance
from emopeft.downstream.protocols.fields import OVERLAPS
from emopeft.downstream.protocols.makers.base import Maker, register
from emopeft.downstream.protocols.makers.shared import (
    data_set,
    own_folds,
    own_labels,
    own_protocol,
    published_counts,
    shared_labels,
    taking_part,
)
from emopeft.errors import UserError, unknown

LONGEST = 100  # characters of a protocol's name


@dataclasses.dataclass(frozen=True)
class Options:
    """What stands after ``away:``.

    Attributes:
        home: the corpus that is trained on; None: the first of ``--corpus``.
        classes: such as ``angry+sad``; none: those that the own protocols of all corpora have.
        folds: a protocol of the home corpus in place of its own: ``iemocap-loso``.
    """

    home: str | None = None
    classes: tuple[str, ...] = ()
    folds: str | None = None


def make(
    options: Options, corpora: Sequence[Corpus], utterances: Sequence[Utterance]
) -> Mapping[str, Any]:
    """The home's folds, with a named test for each of the other corpora."""
    home, others = _sides(options, corpora)
    classes, labels = shared_labels(corpora, utterances, options.classes)
    folds = own_folds(home, utterances, labels[home.name], options.folds)
    away = {c.name: taking_part(c, utterances, labels[c.name]) for c in others}
    named = {u for f in folds for part in _parts(f) for u in part}
    at_home = [u for u in utterances if u.corpus == home.name and u.uid in named]
    members = [*sorted(at_home, key=lambda u: u.id), *(u for of in away.values() for u in of)]
    own = own_protocol(home, options.folds)
    strangers = any(own_protocol(c).unknown_speakers for c in others) or own.unknown_speakers
    order = [home, *others]
    usual = set.intersection(*(set(own_labels(c, utterances).values()) for c in corpora))
    chosen = set(classes) != usual
    return {
        "name": _name(home, others, classes, chosen, own.speaker_overlap),
        "version": 1,
        "corpora": [c.name for c in order],
        "task": "emotion",
        "description": f"Folds of {own.name}, {len(classes)} classes ({', '.join(classes)}); tested"
        f" on their own test part and on all of {', '.join(c.name for c in others)}.",
        "source": f"downstream/protocols/makers/away.py; {own.source}",
        "classes": list(classes),
        "labels": {c.name: dict(labels[c.name]) for c in order},
        "counts": published_counts(order, members, labels),
        "speaker_overlap": list(own.speaker_overlap),
        "unknown_speakers": strangers,
        "unit": "id",
        "utterances": {u.uid: labels[u.corpus][u.emotion or ""] for u in members},
        "folds": [
            {
                "name": fold.name,
                "tests": _tests(home, fold.tests)
                | {test_of(c): [u.uid for u in away[c.name]] for c in others},
                "dev": list(fold.stages[0].dev),
                "train": list(fold.stages[0].train or ()),
            }
            for fold in folds
        ],
    }


def test_of(corpus: Corpus) -> str:
    """What the test on a corpus is called: its name, with a dot for what no name may hold."""
    return re.sub(r"[^A-Za-z0-9._-]", ".", corpus.name)[:60]


def _sides(options: Options, corpora: Sequence[Corpus]) -> tuple[Corpus, list[Corpus]]:
    """The home corpus, and the others by name, however they were ordered."""
    by_name = {c.name: c for c in corpora}
    if options.home is not None and options.home not in by_name:
        raise unknown("home of protocol away among the corpora", options.home, by_name)
    home = corpora[0] if options.home is None else by_name[options.home]
    others = sorted((c for c in corpora if c is not home), key=lambda c: c.name)
    if not others:
        raise UserError(
            f"protocol away needs another corpus to go to: --corpus {home.name}+OTHER, each with "
            "its place"
        )
    for other in others:
        check_two(home, other)
    return home, others


def check_two(one: Corpus, other: Corpus) -> None:
    """That two names are not one data set (emobox:ravdess is RAVDESS); raises UserError."""
    if data_set(one) == data_set(other):
        raise UserError(
            f"{one.name} and {other.name} are one data set under two names: nothing would be away "
            "from home"
        )


def _tests(home: Corpus, tests: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The home's tests: the main one by the corpus' name, others with their own behind it."""
    first = next(iter(tests))
    name = test_of(home)
    return {name if t == first else f"{name[:29]}.{t[:30]}": list(u) for t, u in tests.items()}


def _parts(fold: Any) -> list[Sequence[str]]:
    return [*fold.tests.values(), fold.stages[0].dev, fold.stages[0].train]


def _name(
    home: Corpus,
    others: Sequence[Corpus],
    classes: Sequence[str],
    chosen: bool,
    overlap: Sequence[str],
) -> str:
    """``away-ravdess-on-emodb-4``; the classes by name where they are not all that are shared,
    and, as in every protocol's, what its parts share. What is too long ends in a digest."""
    what = "-".join(classes) if chosen else str(len(classes))
    words = [OVERLAPS[part][0] for part in ("dev", "test") if part in overlap]
    start = f"away-{home.name}-on-{'-'.join(c.name for c in others)}-{what}"
    plain = re.sub(r"[^a-z0-9]+", "-", start.lower()).strip("-")
    tail = "".join(f"-{word}" for word in words)
    if len(plain) + len(tail) > LONGEST:
        short = hashlib.sha256(plain.encode()).hexdigest()[:8]
        plain = f"{plain[: LONGEST - len(tail) - 9].rstrip('-')}-{short}"
    return plain + tail


register(Maker("away", "a corpus' own folds, tested at home and on whole others", Options, make))
