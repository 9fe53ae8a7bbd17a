"""Protocols of open corpora in other languages, as Python data: folds of speakers, or by rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emopeft.downstream.protocols.tables import (
    FOUR,
    FOUR_TEXT,
    RATED,
    VOTED,
    both,
    following,
    protocol_of,
)

SEVEN = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
OURS = "folds: fixed here"
BY_RULE = {"by": "speaker", "one_each_up_to": 10, "folds": 5}
RULE_TEXT = (
    "Five groups of speakers, balanced by number of speakers, classes and clips; each is tested "
    "once, the next is the dev part. The rule makes the same groups of the same clips."
)


def more_tables() -> Iterator[dict[str, Any]]:
    """All of them."""
    yield from _emovo()
    yield from _jl()
    yield from _cafe()
    yield from _subesco()
    yield _aesdd()
    yield from _shemo()
    yield _by_rule("urdu-5fold", "urdu", FOUR, dict.fromkeys(FOUR, 100), FOUR_TEXT, "emotion")
    yield from _emozionalmente()


def _emovo() -> Iterator[dict[str, Any]]:
    yield from both(
        "emovo-loso",
        "emovo",
        dict.fromkeys(SEVEN, 84),
        "Leave one speaker out in the order f1 m1 f2 m2 f3 m3; dev: the next speaker, of the other "
        "sex; the other four are trained on. All say the same 14 sentences.",
        "All 7 classes",
        f"speakers: Costantini et al. 2014; {OURS}",
        following([[s] for s in ("f1", "m1", "f2", "m2", "f3", "m3")]),
    )


def _jl() -> Iterator[dict[str, Any]]:
    names = (
        "neutral", "happy", "sad", "angry", "excited",
        "anxious", "apologetic", "assertive", "concerned", "encouraging",
    )  # fmt: skip
    yield from both(
        "jl-loso",
        "jl",
        dict.fromkeys(names, 240),
        "Leave one speaker out in the order female1 male1 female2 male2; dev: the next speaker, of "
        "the other sex; the other two are trained on. All say the same sentences.",
        "All 10 classes",
        f"speakers: James et al. 2018; {OURS}",
        following([["female1"], ["male1"], ["female2"], ["male2"]]),
    )


def _cafe() -> Iterator[dict[str, Any]]:
    counts = dict.fromkeys(SEVEN, 144)
    counts["neutral"] = 72
    yield from both(
        "cafe-6fold",
        "cafe",
        counts,
        "Six folds of a man (odd) and a woman (even), 01 02 to 11 12; dev: the next pair; the "
        "other eight actors are trained on. All say the same 6 sentences.",
        "All 7 classes",
        f"actors: Gournay et al. 2018; {OURS}",
        following([[f"{n:02d}", f"{n + 1:02d}"] for n in range(1, 12, 2)]),
        task=RATED,
    )


def _subesco() -> Iterator[dict[str, Any]]:
    groups = [
        [f"{sex}_{n:02d}" for sex in "FM" for n in (first, first + 1)] for first in range(1, 10, 2)
    ]
    yield from both(
        "subesco-5fold",
        "subesco",
        dict.fromkeys(SEVEN, 1000),
        "Five folds of two women and two men, 01 02 to 09 10 of each; dev: the next four; the "
        "other twelve are trained on. All say the same 10 sentences.",
        "All 7 classes",
        f"speakers: Sultana et al. 2021; {OURS}",
        following(groups),
    )


def _aesdd() -> dict[str, Any]:
    counts = {"happy": 119, "sad": 122, "angry": 121, "fearful": 120, "disgusted": 122}
    return protocol_of(
        "aesdd-loso",
        "aesdd",
        tuple(counts),
        counts,
        "Leave one speaker out, 1 to 6; dev: the next speaker; the other four are trained on. All "
        "say the same sentences. 5 classes: there is no neutral.",
        f"speakers and counts: EmoBox's metadata (Ma et al. 2024); {OURS}",
        following([[str(n)] for n in range(1, 7)]),
    )


def _shemo() -> Iterator[dict[str, Any]]:
    names = tuple(name for name in SEVEN if name != "disgusted")
    yield _by_rule("shemo-5fold", "shemo", names, {}, "All 6 classes", "emotion", total=3000)
    yield _by_rule("shemo-5fold-4class", "shemo", FOUR, {}, FOUR_TEXT, "emotion")


def _emozionalmente() -> Iterator[dict[str, Any]]:
    counts = dict.fromkeys(SEVEN, 986)
    name, tasks = "emozionalmente-5fold", ["emotion", *VOTED]
    yield _by_rule(name, "emozionalmente", SEVEN, counts, "All 7 classes", tasks)
    yield _by_rule(f"{name}-4class", "emozionalmente", FOUR, counts, FOUR_TEXT, "emotion")


def _by_rule(
    name: str,
    corpus: str,
    classes: Sequence[str],
    counts: dict[str, int],
    text: str,
    task: Any,
    **more: Any,
) -> dict[str, Any]:
    protocol = {
        "name": name,
        "version": 1,
        "corpus": corpus,
        "task": task,
        "description": f"{RULE_TEXT} {text}.",
        "source": f"a rule of EmoPEFT; {OURS}",
        "classes": list(classes),
        "labels": {label: label for label in classes},
        "unit": "rule",
        "rule": BY_RULE,
        **more,
    }
    if counts:
        protocol["counts"] = {label: counts[label] for label in classes}
    return protocol
