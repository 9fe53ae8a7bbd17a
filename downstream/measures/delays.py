"""How long something takes: rounds in turns, percentiles, and how far the rounds differ."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")
Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Delay:
    """How long one clip took.

    Attributes:
        audio: seconds of the clip.
        rounds: per round the time of each repetition, in seconds.
    """

    audio: float
    rounds: tuple[tuple[float, ...], ...]

    @property
    def count(self) -> int:
        """How often it was timed."""
        return sum(len(times) for times in self.rounds)

    def percentile(self, share: float) -> float:
        """Over all repetitions, interpolated linearly between the two nearest, in seconds.

        Args:
            share: in percent.
        """
        return float(np.percentile([t for times in self.rounds for t in times], share))

    @property
    def least(self) -> float:
        """The fastest repetition, in seconds: what is least disturbed on a busy machine."""
        return min(t for times in self.rounds for t in times)

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def p95(self) -> float:
        return self.percentile(95)

    @property
    def real_time_factor(self) -> float:
        """The median time per second of audio: below 1 is faster than speech."""
        return self.p50 / self.audio

    @property
    def audio_per_second(self) -> float:
        """Seconds of audio that are worked off in a second, one clip after the other."""
        return self.audio / self.p50

    @property
    def spread(self) -> float | None:
        """How far the medians of the rounds lie apart, as a share of their median; None of one.

        What is measured is the same each time, so this is the machine's unrest.
        """
        if len(self.rounds) < 2:
            return None
        medians = [statistics.median(times) for times in self.rounds]
        return (max(medians) - min(medians)) / statistics.median(medians)


def in_turns(
    calls: Mapping[Key, tuple[float, Callable[[], object]]],
    *,
    rounds: int,
    repeats: int,
    warm_up: int = 2,
    clock: Clock = time.perf_counter,
) -> dict[Key, Delay]:
    """Time calls in turns, so that a machine that grows busy meanwhile is so for all of them.

    Args:
        calls: of each call the seconds of audio it works on, and the function.
        rounds: how often all have their turn. repeats: timed calls of each in a turn.
        warm_up: calls before that, at each turn, that are not timed.
        clock: monotonic, in seconds.
    """
    times: dict[Key, list[tuple[float, ...]]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, (_, function) in calls.items():
            for _ in range(warm_up):
                function()
            turn = []
            for _ in range(repeats):
                start = clock()
                function()
                turn.append(clock() - start)
            times[key].append(tuple(turn))
    return {key: Delay(calls[key][0], tuple(turns)) for key, turns in times.items()}
