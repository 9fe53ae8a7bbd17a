"""Which run of several is the frozen probe that another one is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FROZEN = "none"  # the method that trains a head alone
ENCODER = ("weights", "loader", "options", "code")  # what makes two encoders one
ALIKE = ("head", "train", "loss", "clips", "augment")  # what a probe should share with the run


def is_frozen(record: Mapping[str, Any]) -> bool:
    """Whether a run trained a head alone."""
    return bool(record["method"]["spec"] == FROZEN)


def probe_of(records: Sequence[Mapping[str, Any]], place: int) -> int | None:
    """The place of the frozen run of the same encoder that shares most with the run at ``place``,
    the first of equal ones; None where there is none."""
    own = records[place]["identity"]

    def shared(other: int) -> int:
        theirs = records[other]["identity"]
        return sum(own.get(key) == theirs.get(key) for key in ALIKE)

    probes = [
        i for i, record in enumerate(records)
        if is_frozen(record)
        and all(
            record["identity"]["upstream"].get(n) == own["upstream"].get(n) for n in ENCODER
        )
    ]  # fmt: skip
    return max(probes, key=shared, default=None)
