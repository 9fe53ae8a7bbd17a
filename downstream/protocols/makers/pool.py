"""Several corpora as one: ``--corpus ravdess+emodb --protocol pool``, folds by speaker.

Speakers are grouped so that each fold tests about as much of every corpus, of each of its classes
and, where a corpus knows the sex of all its speakers, of each sex as every other fold does; the
next group is the dev part. The same clips give the same pool, however the corpora were ordered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance
from emopeft.downstream.protocols.makers.base import Maker, register
from emopeft.downstream.protocols.makers.shared import (
    canonical,
    data_set,
    of_corpus,
    own_labels,
    published_counts,
    taking_part,
)
from emopeft.downstream.protocols.rules import some, speaker_groups
from emopeft.downstream.protocols.tables import folds_of, following
from emopeft.errors import UserError, unknown

ALL = ("all",)
FOLDS = 5
LONGEST = 60  # characters of a protocol's name

Labels = dict[str, dict[str, str]]  # per corpus, its own label -> class


@dataclasses.dataclass(frozen=True)
class Options:
    """What stands after ``pool:``.

    Attributes:
        folds: how many groups of speakers; each is tested once.
        classes: such as ``angry+sad``, each of one of the corpora at least; ``all``: those that any
            corpus has; none: those that all have.
    """

    folds: int = FOLDS
    classes: tuple[str, ...] = ()


def make(
    options: Options, corpora: Sequence[Corpus], utterances: Sequence[Utterance]
) -> Mapping[str, Any]:
    """The corpora's classes, and folds of all their speakers."""
    corpora = sorted(corpora, key=lambda c: c.name)
    for one, other in itertools.combinations(corpora, 2):
        if data_set(one) == data_set(other):
            raise UserError(
                f"{one.name} and {other.name} are one data set under two names, and its clips "
                "would count twice; give one of them"
            )
    classes, labels = pool_labels(corpora, utterances, options.classes)
    of = {c.name: taking_part(c, utterances, labels[c.name]) for c in corpora}
    for corpus in corpora:
        _check_speakers(corpus, of[corpus.name])
    members = [u for found in of.values() for u in found]
    sizes = speaker_sizes(members, labels)
    if not 3 <= options.folds <= len(sizes):
        way_out = f"give 3 to {len(sizes)}" if len(sizes) > 2 else "add a corpus"
        raise UserError(
            f"pool:folds={options.folds} does not go with {len(sizes)} speakers, and train, dev "
            f"and test need one each at least; {way_out}"
        )
    labelled = {u.speaker_uid for u in utterances if u.emotion in labels.get(u.corpus, {})}
    names = [c.name for c in corpora]
    task = ["emotion"]
    if set.intersection(*(set(c.scales) for c in corpora)):
        task.append("dimensional")
    return {
        "name": name_of(corpora, utterances, classes, options.folds),
        "version": 1,
        "corpora": names,
        "task": task,
        "description": f"{'+'.join(names)} as one corpus: {len(classes)} classes "
        f"({', '.join(classes)}), {options.folds} folds by speaker",
        "source": "downstream/protocols/makers/pool.py",
        "classes": list(classes),
        "labels": labels,
        "counts": published_counts(corpora, members, labels),
        "unit": "speaker",
        "leave_out": sorted(labelled - sizes.keys() - {""}),
        "folds": folds_of(following(speaker_groups(sizes, options.folds))),
    }


def pool_labels(
    corpora: Sequence[Corpus], utterances: Sequence[Utterance], wanted: Sequence[str] = ()
) -> tuple[tuple[str, ...], Labels]:
    """The classes of a pool in canonical order, and per corpus its own label -> class.

    A label that is a class stays it; else it is what the corpus' own protocol merges it into
    (IEMOCAP's excited: happy), where that is one.

    Raises:
        UserError: fewer than two classes, one that no corpus has, or a corpus with none of them.
    """
    own = {c.name: own_labels(c, utterances) for c in corpora}
    present = {c.name: {u.emotion for u in of_corpus(c, utterances) if u.emotion} for c in corpora}
    names = "+".join(own)
    offered = [set(of.values()) for of in own.values()]
    if tuple(wanted) == ALL:
        classes = canonical(set().union(*offered))
    elif wanted:
        known = set().union(*offered, *present.values())
        for name in wanted:
            if name not in known:
                raise unknown(f"class of corpora {names}", name, known)
        classes = canonical(wanted)
    else:
        classes = canonical(set.intersection(*offered))
    if len(classes) < 2:
        have = f"only the class {classes[0]}" if classes else "no class"
        raise UserError(
            f"a pool needs two classes, and {names} come to {have}; name some as "
            "pool:classes=angry+sad, or take pool:classes=all"
        )
    labels = {corpus: _map(own[corpus], present[corpus], classes) for corpus in own}
    for corpus, of in labels.items():
        if not of:
            raise UserError(
                f"corpus {corpus} has none of the classes {', '.join(classes)}; leave it out of "
                "the pool, or name others in pool:classes"
            )
    return classes, labels


def _map(own: Mapping[str, str], present: set[str], classes: Collection[str]) -> dict[str, str]:
    found = {label: label if label in classes else own.get(label) for label in {*own, *present}}
    return {label: c for label, c in sorted(found.items()) if c in classes and c is not None}


def _check_speakers(corpus: Corpus, members: Sequence[Utterance]) -> None:
    lacking = [u.id for u in members if not u.speaker]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(members)} utterances of corpus {corpus.name} have no speaker "
            f"({some(lacking)}), and a pool keeps speakers apart; name their speakers, or leave "
            f"{corpus.name} out"
        )


def speaker_sizes(
    members: Sequence[Utterance], labels: Mapping[str, Mapping[str, str]]
) -> dict[str, Counter[str]]:
    """corpus/speaker -> utterances of each class of its corpus, and of its sex where the corpus
    knows that of all: what folds are balanced by."""
    untold = {u.corpus for u in members if not u.sex}
    sizes: dict[str, Counter[str]] = {}
    for u in members:
        cells = sizes.setdefault(u.speaker_uid, Counter())
        cells[f"{u.corpus}/{labels[u.corpus][u.emotion or '']}"] += 1
        if u.corpus not in untold:
            cells[f"{u.corpus} {u.sex}"] += 1
    return sizes


def name_of(
    corpora: Sequence[Corpus], utterances: Sequence[Utterance], classes: Sequence[str], folds: int
) -> str:
    """``pool-emodb-ravdess-4``; the classes by name where they are neither those that all corpora
    have nor (``all-8``) those that any has, and the number of folds where it is not 5. What is
    too long ends in a digest."""
    offered = [set(own_labels(c, utterances).values()) for c in corpora]
    what = "-".join(classes)
    if set(classes) == set.intersection(*offered):
        what = str(len(classes))
    elif set(classes) == set().union(*offered):
        what = f"all-{len(classes)}"
    tail = "" if folds == FOLDS else f"-{folds}fold"
    whole = f"pool-{'-'.join(c.name for c in corpora)}-{what}".lower()
    plain = re.sub(r"[^a-z0-9]+", "-", whole).strip("-")
    if len(plain) + len(tail) > LONGEST:
        short = hashlib.sha256(whole.encode()).hexdigest()[:8]
        plain = f"pool-of-{len(corpora)}-{len(classes)}-{short}"
    return plain + tail


register(Maker("pool", "several corpora as one, folds by speaker", Options, make))
