"""What makers share: the classes that corpora have in common, and a corpus' own folds of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from emopeft.downstream.corpora.base import CORPORA, Corpus, Utterance
from emopeft.downstream.protocols.parting import left_out, parted
from emopeft.downstream.protocols.protocol import (
    FoldSpec,
    Protocol,
    StageSpec,
    load_protocol,
    parse,
)
from emopeft.downstream.protocols.resolving import resolve
from emopeft.errors import UserError, unknown

# The order of logits that does not depend on which corpus is named first; others by name, after.
ORDER = (
    "neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised", "bored",
    "excited", "frustrated", "contemptuous",
)  # fmt: skip

LabelMap = Mapping[str, str]  # a corpus' own label -> class


def canonical(classes: Iterable[str]) -> tuple[str, ...]:
    """The classes in the one order that all makers use."""
    places = {name: place for place, name in enumerate(ORDER)}
    return tuple(sorted(set(classes), key=lambda c: (places.get(c, len(ORDER)), c)))


def data_set(corpus: Corpus) -> str:
    """What was published, whatever it is called here: emobox:ravdess is RAVDESS, too."""
    known = corpus.like in CORPORA and CORPORA[corpus.like].size
    return corpus.like if known else corpus.name


def own_protocol(corpus: Corpus, name: str | None = None) -> Protocol:
    """The protocol of one corpus alone, as ``--corpus NAME`` takes it; or another one of its own.

    Args:
        corpus: with what its options change, and its folds bound to where it lies (`prepare`).

    Raises:
        UserError: the protocol is not known, or is for other corpora.
    """
    name = name or corpus.protocol
    if corpus.folds is not None and f"{name}-".startswith(f"{corpus.protocol}-"):
        return parse(corpus.folds(name), f"protocol {name}")
    protocol = load_protocol(name)
    if corpus.like and not protocol.prefixed and protocol.corpora == (corpus.like,):
        protocol = protocol.on(corpus.name)
    if protocol.corpora != (corpus.name,) or protocol.prefixed:
        raise UserError(f"protocol {protocol.name} is for {protocol.corpus}, not {corpus.name}")
    return protocol


def of_corpus(corpus: Corpus, utterances: Iterable[Utterance]) -> list[Utterance]:
    """The corpus' utterances."""
    return [u for u in utterances if u.corpus == corpus.name]


def own_labels(corpus: Corpus, utterances: Iterable[Utterance]) -> dict[str, str]:
    """Label -> class as the corpus' own protocol merges them; without a map the labels present."""
    own = own_protocol(corpus).labels
    if own:
        return dict(own[corpus.name])
    return {u.emotion: u.emotion for u in of_corpus(corpus, utterances) if u.emotion}


def shared_labels(
    corpora: Sequence[Corpus], utterances: Sequence[Utterance], wanted: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """The classes that all corpora have, in canonical order, and per corpus its label -> class.

    Args:
        wanted: these classes only; one that a corpus' own protocol leaves out is taken from its
            label of that name.

    Raises:
        UserError: fewer than two classes are shared, or a corpus has none of a wanted one.
    """
    maps = {corpus.name: own_labels(corpus, utterances) for corpus in corpora}
    for corpus in corpora:
        present = {u.emotion for u in of_corpus(corpus, utterances) if u.emotion}
        for name in wanted:
            if name in maps[corpus.name].values():
                continue
            if name not in present or name in maps[corpus.name]:
                known = {*maps[corpus.name].values(), *(present - set(maps[corpus.name]))}
                raise unknown(f"class of corpus {corpus.name}", name, known)
            maps[corpus.name][name] = name
    classes = canonical(wanted or set.intersection(*(set(of.values()) for of in maps.values())))
    if len(classes) < 2:
        names = "+".join(corpus.name for corpus in corpora)
        raise UserError(
            f"corpora {names} share {f'only {classes[0]}' if classes else 'no class'}; two classes "
            "are needed"
        )
    return classes, {
        corpus: {label: c for label, c in of.items() if c in classes} for corpus, of in maps.items()
    }


def taking_part(
    corpus: Corpus, utterances: Sequence[Utterance], labels: LabelMap | None = None
) -> list[Utterance]:
    """All of the corpus' utterances of these labels (None: all), by id; without those that its own
    protocol leaves out, or has in a test without targets."""
    own = own_protocol(corpus)
    known = parted(own, of_corpus(corpus, utterances))[0]
    chosen = [u for u in known if labels is None or u.emotion in labels]
    return sorted((u for u in chosen if not left_out(own, u)), key=lambda u: u.id)


@dataclasses.dataclass(frozen=True)
class _Labels:
    """What `resolve` asks of a task: a label is a target."""

    labels: LabelMap
    classes: tuple[str, ...]
    every_class: bool = False

    def target(self, utterance: Utterance, /) -> tuple[float, ...] | None:
        return None if self.class_of(utterance) is None else ()

    def class_of(self, utterance: Utterance, /) -> str | None:
        return self.labels.get(utterance.emotion or "")


def own_folds(
    corpus: Corpus, utterances: Sequence[Utterance], labels: LabelMap, name: str | None = None
) -> list[FoldSpec]:
    """The folds of a corpus' own protocol, of one stage, restricted to some labels.

    Args:
        labels: label -> class of those that take part. name: another protocol of this corpus.

    Returns:
        per fold its tests and the explicit train and dev lists, of ``corpus/id``.

    Raises:
        UserError: the corpus does not fit, its folds have several stages, or they are lists of
            utterances that lack a class.
    """
    own = own_protocol(corpus, name)
    every = own_labels(corpus, utterances) | dict(labels)
    lacking = set(labels.values()) - set(own.classes) if own.classes else set()
    if lacking:
        if own.unit in ("id", "position"):
            raise UserError(
                f"protocol {own.name} lists its utterances, and none of class "
                f"{', '.join(sorted(lacking))}; leave it out, or name other folds"
            )
        own = dataclasses.replace(
            own, labels={corpus.name: every}, classes=canonical(every.values()),
            counts={}, total=None, utterances={},
        )  # fmt: skip
    task = _Labels(dict(own.labels.get(corpus.name, every)), canonical(every.values()))
    # What is missing is said of the whole made protocol, by its counts.
    resolved = resolve(own, of_corpus(corpus, utterances), task, allow_incomplete=True)

    def uids(part: Iterable[Utterance]) -> tuple[str, ...]:
        return tuple(u.uid for u in part if u.emotion in labels)

    folds = []
    for sides in resolved.folds:
        if len(sides.stages) > 1:
            raise UserError(f"the folds of protocol {own.name} have several stages; name others")
        _, train, dev = sides.stages[0]
        tests = {test: uids(part) for test, part in sides.tests.items()}
        folds.append(
            FoldSpec(sides.spec.name, tests, (StageSpec("train", uids(dev), uids(train)),))
        )
    return folds


def published_counts(
    corpora: Sequence[Corpus], members: Sequence[Utterance], labels: Mapping[str, LabelMap]
) -> dict[str, int]:
    """Utterances per class of all corpora: as their own protocols publish them, else as at hand."""
    counts: Counter[str] = Counter()
    for corpus in corpora:
        own, names = own_protocol(corpus), labels[corpus.name]
        have = Counter(names[u.emotion or ""] for u in of_corpus(corpus, members))
        merged = own.labels.get(corpus.name, {})
        for c in set(names.values()):
            alike = {n for n, to in names.items() if to == c} == {
                n for n, to in merged.items() if to == c
            }
            counts[c] += own.counts[c] if alike and c in own.counts else have[c]
    return dict(counts)
