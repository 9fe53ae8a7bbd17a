"""Which utterances a fold's lists name: its sides, and who stands in an unscored test, and so has
no target, whatever the corpus says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.protocols.fields import HashRule
from emopeft.downstream.protocols.protocol import FoldSpec, Protocol, StageSpec
from emopeft.downstream.protocols.rules import named_test

Utterances = tuple[Utterance, ...]


@dataclasses.dataclass(frozen=True)
class Sides:
    """A fold's utterances: per stage its spec, train and dev; per test, and per unscored test,
    its utterances."""

    spec: FoldSpec
    stages: tuple[tuple[StageSpec, Utterances, Utterances], ...]
    tests: Mapping[str, Utterances]
    unscored: Mapping[str, Utterances]


def key_of(utterance: Utterance, unit: str, prefixed: bool) -> str:
    """What ``unit`` calls the utterance by; "" where that is not known."""
    name = {"speaker": utterance.speaker, "session": utterance.session}.get(unit, utterance.id)
    return f"{utterance.corpus}/{name}" if prefixed and name else name or ""


def left_out(protocol: Protocol, utterance: Utterance) -> bool:
    """Whether it is of a speaker or session that takes no part."""
    unit = protocol.rule.by if protocol.rule else protocol.unit
    return key_of(utterance, unit, protocol.prefixed) in protocol.leave_out


def parted(
    protocol: Protocol, utterances: Sequence[Utterance]
) -> tuple[list[Utterance], list[Utterance]]:
    """Those that may have targets, and those of the unscored tests, sorted by id."""
    if not protocol.unscored:
        return list(utterances), []
    named = {
        name
        for fold in protocol.folds
        for test in protocol.unscored
        for name in fold.tests.get(test, ())
    }
    scored: list[Utterance] = []
    blind: list[Utterance] = []
    for utterance in utterances:
        if protocol.rule is not None:
            is_blind = named_test(utterance) in protocol.unscored
        else:
            is_blind = key_of(utterance, protocol.unit, protocol.prefixed) in named
        (blind if is_blind else scored).append(utterance)
    blind = [u for u in blind if not left_out(protocol, u)]
    return scored, sorted(blind, key=lambda u: (u.corpus, u.id))


def sides_of(
    protocol: Protocol,
    spec: FoldSpec,
    unit: str,
    members: Sequence[Utterance],
    blind: Sequence[Utterance],
) -> Sides:
    """All sides of a fold. Ids keep the order of their list, all else that of members."""
    listed, of_blind = _lister(protocol, unit, members), _lister(protocol, unit, blind)
    tests, unscored = {}, {}
    for name, names in spec.tests.items():
        if name not in protocol.unscored:
            tests[name] = listed(names)
        elif found := of_blind(names):
            unscored[name] = found
    tested = {u.uid for part in tests.values() for u in part}
    devs: list[Utterances] = []
    for stage in spec.stages:
        rule = stage.dev
        if isinstance(rule, HashRule):
            devs.append(tuple(u for u in members if u.uid not in tested and rule.chooses(u.id)))
        else:
            devs.append(listed(rule))
    uids = tested | {u.uid for dev in devs for u in dev}
    others = tuple(u for u in members if u.uid not in uids)
    stages = tuple(
        (stage, others if stage.train is None else listed(stage.train), dev)
        for stage, dev in zip(spec.stages, devs, strict=True)
    )
    return Sides(spec, stages, tests, unscored)


def _lister(
    protocol: Protocol, unit: str, members: Sequence[Utterance]
) -> Callable[[Sequence[str]], Utterances]:
    """Gives the utterances of a list of ids, in its order, or of speakers or sessions."""
    keys = [key_of(u, unit, protocol.prefixed) for u in members]
    groups: dict[str, list[Utterance]] = {}
    for key, utterance in zip(keys, members, strict=True):
        groups.setdefault(key, []).append(utterance)

    def listed(names: Sequence[str]) -> Utterances:
        if unit in ("speaker", "session"):
            units = set(names)
            return tuple(u for key, u in zip(keys, members, strict=True) if key in units)
        return tuple(u for name in names for u in groups.get(name, ()))

    return listed
