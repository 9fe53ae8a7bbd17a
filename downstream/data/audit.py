"""Who and what stands on more than one side of a fold, computed from a plan's rows alone."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emopeft.downstream.data.rows import PARTS, UNSCORED, PlanRow
from emopeft.downstream.protocols.rules import some

PAIRS = (("test", "train"), ("test", "dev"), ("dev", "train"))
TESTED = ("test_train", "test_dev")


def audit_rows(
    folds: Mapping[str, Sequence[PlanRow]],
    *,
    declared: Sequence[str] = (),
    unknown_speakers: bool = False,
    duplicates: Iterable[Sequence[str]] = (),
) -> dict[str, Any]:
    """Audit folds over all their stages and tests.

    Test shares a speaker with train or dev only where that is declared of test; recordings may then
    be on any two sides, too. Dev shares speakers with train only where that is declared, and a
    recording where the corpus itself is known to hold it twice. No utterance stands on two sides,
    ever. A speaker who is not known may be anyone. An unscored test is a test.

    Args:
        folds: fold name -> its rows, as `Plan.rows` or `read_rows` give them.
        declared: the parts that may share speakers with train, "dev" and "test".
        unknown_speakers: whether utterances without a speaker are allowed.
        duplicates: groups of corpus/id that hold the same recording, as published.

    Returns:
        plain data for the record: ``declared``; ``unknown_allowed``; ``unknown``, how many
        utterances have no known speaker; ``leaks``, the findings that forbid a run, one sentence
        each; ``leaking``, only where "test" is declared: the speakers of a test who are trained on
        or chosen by, over all folds; ``clean``: whether there are neither, None where that cannot
        be known; and per fold
        ``speakers`` (how many, per part and set), ``unknown_speakers`` (utterances per part),
        ``shared_speakers`` and ``shared_audio`` (per pair of parts; audio as [id, id]),
        ``utterances`` that stand in two parts, and ``test_overlaps`` (utterances per pair of
        tests, which is no leak).
    """
    twins: dict[str, set[str]] = defaultdict(set)
    for group in duplicates:
        for uid in group:
            twins[uid] |= set(group)
    reports: dict[str, Any] = {}
    leaks: list[str] = []
    strangers: set[str] = set()
    for name, rows in folds.items():
        reports[name] = _report(rows)
        leaks += _leaks(name, reports[name], declared, unknown_speakers, twins)
        strangers |= {row.id for row in rows if not row.speaker}
    shared = [r["shared_speakers"][pair] for r in reports.values() for pair in TESTED]
    leaking = {"leaking": sorted(set().union(*shared))} if "test" in declared else {}
    found = bool(leaks or any(leaking.values()))
    clean = None if strangers and not found else not found
    return {
        "declared": list(declared),
        "unknown_allowed": unknown_speakers,
        "unknown": len(strangers),
        "clean": clean,
        "leaks": leaks,
        **leaking,
        "folds": reports,
    }


def _report(rows: Sequence[PlanRow]) -> dict[str, Any]:
    sets: dict[str, dict[str, set[str]]] = {part: {} for part in PARTS}
    members: dict[str, dict[str, PlanRow]] = {part: {} for part in PARTS}
    tested: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        part = "test" if row.part == UNSCORED else row.part
        names = sets[part].setdefault(row.set, set())
        if row.speaker:
            names.add(row.speaker)
        members[part].setdefault(row.id, row)
        if part == "test":
            tested[row.set].add(row.id)
    everyone = {part: set().union(*sets[part].values()) for part in PARTS}
    heard: dict[str, dict[str, list[str]]] = {part: defaultdict(list) for part in PARTS}
    for part in PARTS:
        for uid, row in members[part].items():
            if row.audio:
                heard[part][row.audio].append(uid)
    return {
        "speakers": {
            part: {name: len(speakers) for name, speakers in sets[part].items()} for part in PARTS
        },
        "unknown_speakers": {
            part: sum(not row.speaker for row in members[part].values()) for part in PARTS
        },
        "shared_speakers": {f"{a}_{b}": sorted(everyone[a] & everyone[b]) for a, b in PAIRS},
        "shared_audio": {
            f"{a}_{b}": sorted(
                [one, other]
                for audio in heard[a].keys() & heard[b].keys()
                for one, other in _pairs(heard[a][audio], heard[b][audio])
            )
            for a, b in PAIRS
        },
        "utterances": sorted(
            set().union(*(members[a].keys() & members[b].keys() for a, b in PAIRS))
        ),
        "test_overlaps": {
            f"{a}+{b}": len(tested[a] & tested[b])
            for a, b in itertools.combinations(tested, 2)
            if tested[a] & tested[b]
        },
    }


def _pairs(ones: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Different utterances of one recording: each once, not each with each (silent clips)."""
    pairs = {(ones[0], other) for other in others} | {(one, others[0]) for one in ones}
    return [(one, other) for one, other in pairs if one != other]


def _leaks(
    name: str,
    report: Mapping[str, Any],
    declared: Sequence[str],
    unknown_allowed: bool,
    twins: Mapping[str, set[str]],
) -> list[str]:
    leaks = []
    for a, b in PAIRS:
        speakers = report["shared_speakers"][f"{a}_{b}"]
        if speakers and a not in declared:
            leaks.append(f"fold {name}: speaker {some(speakers)} is in {a} and in {b}")
        audio = [
            f"{one} = {other}"
            for one, other in report["shared_audio"][f"{a}_{b}"]
            if a == "test" or other not in twins.get(one, ())
        ]
        if audio and "test" not in declared:
            leaks.append(f"fold {name}: the same audio is in {a} and in {b} ({some(audio)})")
    if report["utterances"]:
        leaks.append(f"fold {name}: {some(report['utterances'])} is on two sides")
    strangers = sum(report["unknown_speakers"].values())
    if strangers and not unknown_allowed:
        leaks.append(
            f"fold {name}: {strangers} utterances have no speaker, so that no one can tell whether "
            "they leak; name their speakers, or declare unknown_speakers in the protocol"
        )
    return leaks
