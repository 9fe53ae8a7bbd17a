"""Delays with a clock that tests set: counts, turns, percentiles, spread."""

from __future__ import annotations

import itertools
import statistics

import pytest

from emopeft.downstream.measures.delays import Delay, in_turns


class Clock:
    """Stands still but when told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_call_has_its_turns_and_is_warmed_up() -> None:
    clock, seen = Clock(), []
    steps = itertools.count(1)

    def call(name: str) -> None:
        seen.append(name)
        clock.now += next(steps) / 1000

    calls = {n: (2.0, lambda n=n: call(n)) for n in ("a", "b")}
    delays = in_turns(calls, rounds=2, repeats=3, warm_up=1, clock=clock)
    assert "".join(seen) == "aaaabbbbaaaabbbb"
    assert delays["a"].rounds[0] == pytest.approx((0.002, 0.003, 0.004))  # the first is not timed
    assert delays["b"].rounds[1] == pytest.approx((0.014, 0.015, 0.016))
    assert {d.count for d in delays.values()} == {6} and delays["a"].audio == 2.0


def test_percentiles_are_those_of_all_repetitions() -> None:
    """Of 1 to 20 ms: the median by the statistics module, p95 between the 19th and 20th by hand."""
    delay = Delay(
        4.0, (tuple(t / 1000 for t in range(11, 21)), tuple(t / 1000 for t in range(1, 11)))
    )
    every = [t for times in delay.rounds for t in times]
    assert delay.p50 == pytest.approx(statistics.median(every)) == pytest.approx(0.0105)
    assert delay.p95 == pytest.approx(0.01905)  # place 0.95 * 19 = 18.05, counted from 0
    inclusive = statistics.quantiles(every, n=20, method="inclusive")[18]
    assert delay.p95 == pytest.approx(inclusive)
    assert delay.least == 0.001
    assert delay.real_time_factor == pytest.approx(0.0105 / 4)
    assert delay.audio_per_second == pytest.approx(4 / 0.0105)


def test_the_spread_is_that_of_the_rounds_medians() -> None:
    delay = Delay(1.0, ((0.010, 0.010, 0.9), (0.012, 0.012, 0.012), (0.011, 0.0, 0.011)))
    assert delay.spread == pytest.approx(0.002 / 0.011)
    assert Delay(1.0, ((0.01, 0.02),)).spread is None
    assert Delay(1.0, ((0.01,), (0.01,))).spread == 0
