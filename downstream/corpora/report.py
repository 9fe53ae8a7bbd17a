"""What the checker found out about a tree, as text and as data."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from emopeft.downstream.corpora.base import Utterance, printable

LEVELS = ("error", "warning", "information")
SHOWN = 10  # items written out per finding; the JSON file has all


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of trouble (or information) with all its cases.

    Attributes:
        level: "error" | "warning" | "information".
        check: the name of the check, as listed in `downstream.corpora.check`.
        message: what it means; items: every case.
    """

    level: str
    check: str
    message: str
    items: tuple[str, ...]


@dataclasses.dataclass
class Report:
    """The result of `downstream.corpora.check.check`.

    Attributes:
        published: emotion -> published number (empty: not known).
        emotion_counts: emotion -> number in the tree.
        hours: of readable audio.
    """

    corpus: str
    title: str
    root: str
    published: Mapping[str, int]
    emotion_counts: Counter[str] = dataclasses.field(default_factory=Counter)
    utterances: int = 0
    speakers: int = 0
    hours: float = 0.0
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def add(self, level: str, check: str, message: str, items: Sequence[str]) -> None:
        """Note a finding; nothing happens when it has no items."""
        if items:
            self.findings.append(Finding(level, check, message, tuple(items)))

    def count(self, utterances: Sequence[Utterance], seconds: Mapping[str, float]) -> None:
        """Note how much there is."""
        self.emotion_counts = Counter(u.emotion or "(none)" for u in utterances)
        self.utterances = len(utterances)
        self.speakers = len({u.speaker for u in utterances if u.speaker})
        self.hours = sum(seconds.values()) / 3600

    def of(self, level: str) -> list[Finding]:
        """The findings of one level, in the order of the checks."""
        return [f for f in self.findings if f.level == level]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.of("error")

    def text(self) -> str:
        """The report for the screen."""
        parts = [
            f"{self.title} in {self.root}\n{self.utterances} utterances, {self.speakers} speakers, "
            f"{self.hours:.2f} hours"
        ]
        rows = [
            [emotion, self.emotion_counts[emotion], self.published.get(emotion, "-")]
            for emotion in dict.fromkeys([*self.published, *sorted(self.emotion_counts)])
        ]
        if rows:
            parts.append(tabulate(rows, headers=["emotion", "found", "published"]))
        findings = [
            [f.level, f.check, len(f.items), f.message + "\n" + _shown(f.items)]
            for level in LEVELS
            for f in self.of(level)
        ]
        if findings:
            parts.append(tabulate(findings, headers=["level", "check", "cases", "what"]))
        counts = [
            f"{(n := sum(len(f.items) for f in self.of(level)))} {level}{'s' * (n != 1)}"
            for level in LEVELS[:2]
        ]
        verdict = "in order" if self.ok else "not in order"
        parts.append(f"{self.corpus}: {', '.join(counts)}: the tree is {verdict}")
        return "\n\n".join(parts)

    def data(self) -> dict[str, Any]:
        """The report for a JSON file."""
        return {
            "schema": 1,
            "corpus": self.corpus,
            "root": self.root,
            "ok": self.ok,
            "utterances": self.utterances,
            "speakers": self.speakers,
            "hours": round(self.hours, 4),
            "found": dict(sorted(self.emotion_counts.items())),
            "published": dict(self.published),
            "findings": [dataclasses.asdict(f) for f in self.findings],
        }


def _shown(items: Sequence[str]) -> str:
    lines = [printable(item) for item in items[:SHOWN]]
    if len(items) > SHOWN:
        lines.append(f"... and {len(items) - SHOWN} more (--json FILE lists all)")
    return "\n".join(lines)
