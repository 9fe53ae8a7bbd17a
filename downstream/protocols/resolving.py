"""From a protocol's lists to the utterances of its corpora, with everything that does not fit."""

from __future__ import annotations

import dataclasses
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.fields import HashRule
from emopeft.downstream.protocols.parting import Sides, key_of, left_out, parted, sides_of
from emopeft.downstream.protocols.protocol import FoldSpec, Protocol
from emopeft.downstream.protocols.rules import folds_by, named_test, some
from emopeft.errors import UserError


class Targets(typing.Protocol):
    """What a task says of utterances (downstream.tasks.base.Task)."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def every_class(self) -> bool: ...
    def target(self, utterance: Utterance, /) -> Sequence[float] | None: ...
    def class_of(self, utterance: Utterance, /) -> str | None: ...


@dataclasses.dataclass
class Resolved:
    """What resolving a protocol on its corpora gives.

    ``gaps`` are the ways it is incomplete, ``notes`` what a reader should know.
    """

    classes: tuple[str, ...]
    class_of: Callable[[Utterance], str | None]
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    folds: list[Sides] = dataclasses.field(default_factory=list)
    missing: tuple[str, ...] = ()
    gaps: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def resolve(
    protocol: Protocol,
    utterances: Sequence[Utterance],
    task: Targets,
    allow_incomplete: bool = False,
) -> Resolved:
    """Find the utterances of every fold.

    Args:
        utterances: all of the corpora, in any order.
        task: says which utterances can take part, and of which class they are.
        allow_incomplete: go on with corpora that lack utterances or differ from the published
            counts.

    Raises:
        UserError: lists everything that does not fit: ids without a file, counts that differ from
            the published ones, speakers the protocol does not know, an empty side, a class
            without training utterances.
    """
    resolved = Resolved(task.classes, task.class_of)
    utterances, blind = parted(protocol, utterances)
    members = _members(protocol, utterances, task, resolved)
    _check_members(protocol, members, resolved)
    unit, specs = protocol.unit, protocol.folds
    if protocol.rule is not None:
        _stop(protocol, resolved, allow_incomplete)
        unit, specs = folds_by(
            protocol.rule, [*members, *blind], lambda u: task.class_of(u) or "", protocol.prefixed
        )
        resolved.notes += _silent_tests(protocol, utterances, members)
    if unit in ("speaker", "session"):
        _check_groups(protocol, unit, specs, [*members, *blind], resolved)
    resolved.folds = [sides_of(protocol, spec, unit, members, blind) for spec in specs]
    _check_unscored(protocol, resolved)
    _stop(protocol, resolved, allow_incomplete)
    _check_sides(resolved, task.every_class)
    _stop(protocol, resolved, allow_incomplete)
    return resolved


def label_of(protocol: Protocol, utterance: Utterance) -> str | None:
    """The class of an utterance in the protocol's map of labels, None where it has none."""
    return protocol.labels.get(utterance.corpus, {}).get(utterance.emotion or "")


def _members(
    protocol: Protocol, utterances: Sequence[Utterance], task: Targets, resolved: Resolved
) -> list[Utterance]:
    """The utterances that take part: as listed, or all of a known label sorted by id.

    Where the protocol says ``unlabelled``, the task alone decides: it knows votes, too.
    """
    by_id = {key_of(u, "id", protocol.prefixed): u for u in utterances}
    if len(by_id) != len(utterances):
        counts = Counter(key_of(u, "id", protocol.prefixed) for u in utterances)
        twice = sorted(name for name, n in counts.items() if n > 1)
        resolved.errors.append(f"{len(twice)} ids stand twice in the corpus ({some(twice)})")
    if protocol.utterances:
        members = _listed(protocol, by_id, task, resolved)
    else:
        chosen_by_task = protocol.unlabelled or not protocol.labels
        members = [
            u
            for u in utterances
            if (chosen_by_task or label_of(protocol, u) is not None)
            and not left_out(protocol, u)
            and task.target(u) is not None
        ]
        members.sort(key=lambda u: (u.corpus, u.id))  # not as the file system lists them
    taking_part = {u.uid for u in members}
    rest = [u for u in utterances if u.uid not in taking_part]
    prefix = (lambda u: f"{u.corpus}/") if protocol.prefixed else (lambda u: "")
    resolved.dropped.update(Counter(prefix(u) + u.emotion if u.emotion else "" for u in rest))
    return members


def _listed(
    protocol: Protocol, by_id: Mapping[str, Utterance], task: Targets, resolved: Resolved
) -> list[Utterance]:
    """The utterances of the protocol's own list."""
    resolved.missing = tuple(name for name in protocol.utterances if name not in by_id)
    if resolved.missing:
        resolved.gaps.append(
            f"{len(resolved.missing)} of {len(protocol.utterances)} utterances are not in the "
            f"corpus ({some(list(resolved.missing))})"
        )
    members = {name: by_id[name] for name in protocol.utterances if name in by_id}
    other, without = [], []
    for name, utterance in members.items():
        if protocol.labels and label_of(protocol, utterance) != protocol.utterances[name]:
            other.append(name)
        elif task.target(utterance) is None:
            without.append(name)
    if other:
        resolved.errors.append(
            f"{len(other)} utterances are labelled otherwise in the corpus ({some(other)})"
        )
    if without:
        resolved.errors.append(f"{len(without)} utterances have no target ({some(without)})")
    return list(members.values())


def _check_members(
    protocol: Protocol,
    members: Sequence[Utterance],
    resolved: Resolved,
) -> None:
    if not members:
        labels = dict.fromkeys(name for names in protocol.labels.values() for name in names)
        what = f"one of its labels ({', '.join(labels)})" if labels else "a target"
        resolved.errors.append(f"no utterance has {what}")
        return
    if len(resolved.classes) == 1:
        only = resolved.classes[0]
        resolved.errors.append(f"all utterances are labelled {only}; two labels are needed")
    have = Counter(label_of(protocol, u) for u in members)
    wrong = [
        f"{name} {have[name]} instead of {expected}"
        for name, expected in protocol.counts.items()
        if have[name] != expected
    ]
    if protocol.total is not None and len(members) != protocol.total:
        wrong.append(f"{len(members)} in all instead of {protocol.total}")
    if wrong and not resolved.missing:
        resolved.gaps.append(f"utterances differ from the published counts: {', '.join(wrong)}")


def _check_groups(
    protocol: Protocol,
    unit: str,
    specs: Sequence[FoldSpec],
    members: Sequence[Utterance],
    resolved: Resolved,
) -> None:
    """Speakers or sessions on one side only: of the protocol, or of the corpus."""
    # Where everyone is tested once, a stranger is a mistake; else strangers are trained on.
    tested = {name for spec in specs for names in spec.tests.values() for name in names}
    named = set(tested)
    for stage in (stage for spec in specs for stage in spec.stages):
        for names in (stage.dev, stage.train or ()):
            named |= set() if isinstance(names, HashRule) else set(names)
    present = {key_of(u, unit, protocol.prefixed) for u in members}
    if "" in present and not (unit == "speaker" and protocol.unknown_speakers):
        lacking = [u.id for u in members if not key_of(u, unit, protocol.prefixed)]
        resolved.errors.append(f"{len(lacking)} utterances have no {unit} ({some(lacking)})")
    strange = sorted(present - named - {""})
    if strange and named == tested:
        resolved.errors.append(f"{unit} {some(strange)} of the corpus is unknown to the protocol")
    if absent := sorted(named - present):
        resolved.missing += tuple(absent)
        resolved.gaps.append(f"{unit} {some(absent)} of the protocol is not in the corpus")


def _check_unscored(protocol: Protocol, resolved: Resolved) -> None:
    """Unscored tests that are not there, and folds that have no others."""
    for sides in resolved.folds:
        name = sides.spec.name
        if not sides.tests:
            resolved.errors.append(f"fold {name} has only unscored tests; a scored one is needed")
        for test in protocol.unscored:
            listed = sides.spec.tests.get(test, ())
            present = len(sides.unscored.get(test, ()))
            if not present and (listed or protocol.rule):
                resolved.gaps.append(
                    f"the unscored test '{test}' of fold {name} is not in the corpus"
                )
            elif protocol.unit == "id" and present < len(listed):
                resolved.gaps.append(
                    f"{len(listed) - present} of {len(listed)} utterances of the unscored test "
                    f"'{test}' of fold {name} are not in the corpus"
                )


def _silent_tests(
    protocol: Protocol, utterances: Sequence[Utterance], members: Sequence[Utterance]
) -> list[str]:
    """A split's tests that nobody has a target in: they would vanish without a word."""
    if protocol.rule is None or protocol.rule.by != "split":
        return []
    there = {named_test(u) for u in members}
    counts = Counter(test for u in utterances if (test := named_test(u)) and test not in there)
    return [
        f"no utterance of the test '{test}' has a target, and its {number} take no part: to have "
        "them predicted, name the test in the key 'unscored' of a protocol file"
        for test, number in sorted(counts.items())
    ]


def _check_sides(resolved: Resolved, every_class: bool) -> None:
    for sides in resolved.folds:
        name = sides.spec.name
        empty_sides = [_side("test", t, "test") for t, part in sides.tests.items() if not part]
        for stage, train, dev in sides.stages:
            empty_sides += [
                _side(kind, stage.name, "train")
                for kind, part in (("train", train), ("dev", dev))
                if not part
            ]
        resolved.errors += [f"fold {name} has no {side} utterance" for side in empty_sides]
        trained = {resolved.class_of(u) for _, train, _ in sides.stages for u in train}
        untrained = [c for c in resolved.classes if c not in trained]
        if every_class and untrained and not empty_sides:
            resolved.errors.append(f"fold {name} has no training utterance of {some(untrained)}")


def _side(kind: str, name: str, usual: str) -> str:
    return kind if name == usual else f"{kind} '{name}'"


def _stop(protocol: Protocol, resolved: Resolved, allow_incomplete: bool) -> None:
    problems = resolved.errors + ([] if allow_incomplete else resolved.gaps)
    if problems:
        raise UserError(
            f"the corpus does not fit protocol {protocol.name}: {'; '.join(problems[:20])}; "
            "complete the corpus, check --data, choose another protocol, or run on what is there "
            "with -o corpus.allow_incomplete=true"
        )
