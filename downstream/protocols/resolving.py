"""From a protocol's lists to the utterances of a corpus, with everything that does not fit."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.rules import folds_by, some
from emopeft.downstream.protocols.schema import FoldSpec, HashRule, ProtocolData
from emopeft.errors import UserError

Sides = dict[str, tuple[Utterance, ...]]


@dataclasses.dataclass
class Found:
    """What resolving a protocol on a corpus gives; ``gaps`` are the ways it is incomplete."""

    classes: tuple[str, ...]
    labels: Mapping[str, str]
    dropped: dict[str, int]
    folds: list[tuple[str, Sides]] = dataclasses.field(default_factory=list)
    missing: tuple[str, ...] = ()
    gaps: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)


def resolve(protocol: ProtocolData, utterances: list[Utterance], allow_incomplete: bool) -> Found:
    """Resolve ``protocol``; see :meth:`downstream.protocols.protocol.Protocol.resolve`."""
    labels = protocol.labels or {u.emotion: u.emotion for u in utterances if u.emotion}
    classes = protocol.classes or tuple(sorted(labels))
    found = Found(classes, labels, {})
    members = _members(protocol, utterances, found)
    _check_counts(protocol, members, found)
    unit, specs = protocol.unit, protocol.folds
    if protocol.rule is not None:
        _stop(protocol, found, allow_incomplete)
        unit, specs = folds_by(protocol.rule, members)
    if unit in ("speaker", "session"):
        _check_groups(protocol, unit, specs, members, found)
    found.folds = [(spec.name, _sides(spec, unit, members)) for spec in specs]
    _stop(protocol, found, allow_incomplete)
    _check_sides(found)
    _stop(protocol, found, allow_incomplete)
    return found


def _members(protocol: ProtocolData, utterances: list[Utterance], found: Found) -> list[Utterance]:
    """The utterances that take part: as listed, or all of a known label sorted by id."""
    by_id = {u.id: u for u in utterances}
    if len(by_id) != len(utterances):
        twice = sorted(name for name, n in Counter(u.id for u in utterances).items() if n > 1)
        found.errors.append(f"{len(twice)} ids stand twice in the corpus ({some(twice)})")
    if protocol.utterances:
        found.missing = tuple(name for name in protocol.utterances if name not in by_id)
        if found.missing:
            found.gaps.append(
                f"{len(found.missing)} of {len(protocol.utterances)} utterances are not in the "
                f"corpus ({some(list(found.missing))})"
            )
        members = [by_id[name] for name in protocol.utterances if name in by_id]
        classes = protocol.utterances
        other = [u.id for u in members if found.labels.get(u.emotion or "") != classes[u.id]]
        if other:
            found.errors.append(
                f"{len(other)} utterances are labelled otherwise in the corpus ({some(other)})"
            )
    else:
        unit = protocol.rule.by if protocol.rule else protocol.unit
        members = [u for u in utterances if u.emotion in found.labels]
        members = [u for u in members if _key(u, unit) not in protocol.leave_out]
        members.sort(key=lambda u: u.id)  # not as the file system lists them
    listed = {u.id for u in members}
    found.dropped.update(Counter(u.emotion or "" for u in utterances if u.id not in listed))
    return members


def _check_counts(protocol: ProtocolData, members: list[Utterance], found: Found) -> None:
    if not members:
        found.errors.append(f"no utterance has one of its labels ({', '.join(found.labels)})")
        return
    if len(found.classes) < 2:
        found.errors.append(
            f"all utterances are labelled {found.classes[0]}; two labels are needed"
        )
    have = Counter(found.labels.get(u.emotion or "") for u in members)
    wrong = [
        f"{name} {have[name]} instead of {expected}"
        for name, expected in protocol.counts.items()
        if have[name] != expected
    ]
    if wrong and not found.missing:
        found.gaps.append(f"utterances differ from the published counts: {', '.join(wrong)}")


def _check_groups(
    protocol: ProtocolData,
    unit: str,
    specs: Sequence[FoldSpec],
    members: list[Utterance],
    found: Found,
) -> None:
    """Speakers or sessions on one side only: of the protocol, or of the corpus."""
    named = {
        name
        for spec in specs
        for side in (spec.test, spec.dev, spec.train or ())
        if not isinstance(side, HashRule)
        for name in side
    }
    present = {_key(u, unit) for u in members}
    if "" in present:
        lacking = [u.id for u in members if not _key(u, unit)]
        found.errors.append(f"{len(lacking)} utterances have no {unit} ({some(lacking)})")
    # Where everyone is tested once, a stranger is a mistake; else strangers are trained on.
    tested = {name for spec in specs for name in spec.test}
    strange = sorted(present - named - {""})
    if strange and named == tested:
        found.errors.append(f"{unit} {some(strange)} of the corpus is unknown to the protocol")
    if absent := sorted(named - present):
        found.missing += tuple(absent)
        found.gaps.append(f"{unit} {some(absent)} of the protocol is not in the corpus")


def _check_sides(found: Found) -> None:
    for name, sides in found.folds:
        empty = [side for side, part in sides.items() if not part]
        found.errors += [f"fold {name} has no {side} utterance" for side in empty]
        trained = {found.labels.get(u.emotion or "") for u in sides["train"]}
        if not empty and (untrained := [c for c in found.classes if c not in trained]):
            found.errors.append(f"fold {name} has no training utterance of {some(untrained)}")


def _stop(protocol: ProtocolData, found: Found, allow_incomplete: bool) -> None:
    problems = found.errors + ([] if allow_incomplete else found.gaps)
    if problems:
        raise UserError(
            f"the corpus does not fit protocol {protocol.name}: {'; '.join(problems)}; complete "
            "the corpus, check --data, choose another protocol, or run on what is there with "
            "-o corpus.allow_incomplete=true"
        )


def _key(utterance: Utterance, unit: str) -> str:
    """What ``unit`` calls the utterance by."""
    value = {"speaker": utterance.speaker, "session": utterance.session}.get(unit, utterance.id)
    return value or ""


def _sides(spec: FoldSpec, unit: str, members: list[Utterance]) -> Sides:
    """The three sides of a fold. Ids keep the order of their list, all else that of members."""
    groups: dict[str, list[Utterance]] = {}
    for utterance in members:
        groups.setdefault(_key(utterance, unit), []).append(utterance)

    def listed(names: Sequence[str]) -> list[Utterance]:
        if unit in ("speaker", "session"):
            wanted = set(names)
            return [u for u in members if _key(u, unit) in wanted]
        return [u for name in names for u in groups.get(name, ())]

    test = listed(spec.test)
    taken = {u.id for u in test}
    if isinstance(spec.dev, HashRule):
        rule = spec.dev
        dev = [u for u in members if u.id not in taken and rule.chooses(u.id)]
    else:
        dev = listed(spec.dev)
    taken |= {u.id for u in dev}
    if spec.train is not None:
        train = listed(spec.train)
    else:
        train = [u for u in members if u.id not in taken]
    return {"train": tuple(train), "dev": tuple(dev), "test": tuple(test)}
