"""How often the intervals of groups are right, by how many speakers a group has: simulated.

``python -m benchmarks.group_intervals [TRIALS]``: speakers of two groups whose recall is spread by
0.1 around a mean, 60 clips each, in a probe and in an adapted model that keeps most of a speaker's
luck. Of 95 % intervals 95 % should hold the truth, and 5 % of verdicts be wrong where both models
have the same gap.
"""

from __future__ import annotations

import sys

import numpy as np
from tabulate import tabulate

from emopeft.downstream.measures import resampling
from emopeft.downstream.measures.by_group import (
    DIFFERENCE,
    GAP,
    UAR,
    Quantity,
    Tallies,
    class_tallies,
    numbers,
    strata,
    verdict,
)

SIZES = (3, 4, 5, 8, 12, 24)
GAPS = (0.0, 0.15)  # between the groups, of both models
CLIPS, CLASSES, SPREAD, OWN = 60, ("a", "b"), 0.1, 0.04


def tallies(recall: np.ndarray, rng: np.random.Generator) -> Tallies:
    """Clips of speakers with these recalls, (speakers,), the first half of them in one group."""
    who = np.repeat(np.arange(len(recall)), CLIPS)
    group = (who >= len(recall) // 2).astype(np.intp)
    truth = np.tile(np.arange(CLIPS) % 2, len(recall))
    right = rng.random(len(who)) < np.clip(recall, 0.02, 0.98)[who]
    said = np.where(right, truth, 1 - truth)
    return class_tallies(who, group, truth, said, CLASSES, (len(recall), 2))


def trial(size: int, gap: float, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether the interval of the difference holds the truth, and whether the verdict is wrong."""
    group = np.arange(2 * size) >= size
    luck = rng.normal(0, SPREAD, 2 * size)
    probe = tallies(0.65 + luck + gap * group, rng)
    adapted = tallies(0.68 + luck + gap * group + rng.normal(0, OWN, 2 * size), rng)
    parts = strata(np.arange(2 * size), group.astype(np.intp), 2 * size)
    found, more = numbers([adapted], [probe], parts)
    number, (best, _) = found[Quantity(f"{UAR} {DIFFERENCE}")], adapted.pairs[UAR]
    assert number.interval is not None
    truth = gap if best == 1 else -gap
    wrong = verdict(more[Quantity(f"{UAR} {GAP}")]) != "cannot be told"
    return number.interval[0] <= truth <= number.interval[1], wrong


def main(trials: int) -> None:
    """Print the table."""
    resampling.DRAWS = 999  # enough to count by, and ten times as fast
    rng, rows = np.random.default_rng(0), []
    for size in SIZES:
        row: list[str] = [str(size)]
        for gap in GAPS:
            done = np.array([trial(size, gap, rng) for _ in range(trials)])
            row += [f"{100 * done[:, 0].mean():.1f}", f"{100 * done[:, 1].mean():.1f}"]
        rows.append(row)
        print(f"{size} speakers a group done", file=sys.stderr)
    titles = [t for g in GAPS for t in (f"gap {g:g}: holds the truth, %", "wrong verdicts, %")]
    print(tabulate(rows, ["speakers a group", *titles], tablefmt="github"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
