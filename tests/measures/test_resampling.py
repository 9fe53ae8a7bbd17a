"""Weighted measures against repeated rows and scikit-learn; intervals against plain draws."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score

from emopeft.downstream.measures.classes import emotion_metrics
from emopeft.downstream.measures.dimensions import dimension_metrics
from emopeft.downstream.measures.resampling import (
    Sample,
    over_folds,
    pooled,
    speaker_interval,
    speaker_intervals,
)
from emopeft.downstream.measures.weighted import accuracy, ccc, confusions, recalls, uar

RNG = np.random.default_rng(3)
TRUTH, SAID = RNG.integers(0, 4, 40), RNG.integers(0, 4, 40)
WEIGHTS = RNG.integers(0, 4, (5, 40))


def test_class_measures_are_those_of_repeated_rows_and_of_sample_weights() -> None:
    counts = confusions(TRUTH, SAID, 5)(np.concatenate([WEIGHTS, np.ones((1, 40))]))
    for weights, u, a, r in zip(
        WEIGHTS, uar(counts), accuracy(counts), recalls(counts), strict=False
    ):
        repeated = emotion_metrics(np.repeat(TRUTH, weights), np.repeat(SAID, weights), 5)
        assert u == pytest.approx(repeated["uar"], abs=1e-12)
        assert a == pytest.approx(repeated["accuracy"], abs=1e-12)
        assert u == pytest.approx(balanced_accuracy_score(TRUTH, SAID, sample_weight=weights))
        each = recall_score(TRUTH, SAID, labels=range(4), average=None, sample_weight=weights)
        assert r[:4] == pytest.approx(each) and np.isnan(r[4])
    assert uar(counts)[-1] == pytest.approx(emotion_metrics(TRUTH, SAID, 5)["uar"], abs=1e-12)
    assert (
        np.isnan(uar(np.zeros((1, 3, 3)))).all() and np.isnan(accuracy(np.zeros((1, 3, 3)))).all()
    )


def test_ccc_is_that_of_repeated_rows() -> None:
    truth, said = RNG.normal(50, 2, 40), RNG.normal(49, 1, 40)
    truth[[3, 7]] = np.nan
    for weights, ours in zip(WEIGHTS, ccc(truth, said)(WEIGHTS), strict=True):
        whole = dimension_metrics(np.repeat(truth, weights), np.repeat(said, weights))
        assert ours == pytest.approx(whole["ccc"], rel=1e-9)
    assert np.isnan(ccc([1.0, 1.0], [1.0, 1.0])(np.ones((1, 2)))).all()


def test_an_interval_is_that_of_plain_draws_also_within_groups() -> None:
    values = np.arange(12.0) ** 2
    groups = [range(8), range(8, 12)]

    def mean(times: np.ndarray) -> np.ndarray:
        return (times * values).sum(-1) / times.sum(-1)

    def apart(times: np.ndarray) -> np.ndarray:
        return mean(times[:, :8] @ np.eye(8, 12)) - mean(times[:, 8:] @ np.eye(4, 12, 8))

    rng = np.random.default_rng(9)
    plain = rng.choice(values, (20000, 12)).mean(-1)
    assert speaker_interval(mean, 12, 12) == pytest.approx(
        tuple(np.quantile(plain, [0.025, 0.975])), rel=0.05
    )
    one, other = (rng.choice(values[list(g)], (20000, len(g))).mean(-1) for g in groups)
    assert speaker_interval(apart, 12, 12, groups) == pytest.approx(
        tuple(np.quantile(one - other, [0.025, 0.975])), rel=0.05
    )
    assert speaker_interval(mean, 12, 12, groups) == speaker_interval(mean, 12, 12, groups)
    assert speaker_interval(mean, 12, 12, [range(11), [11]]) is None
    assert speaker_interval(mean, 1, 12) is None


def test_folds_are_averaged_or_pooled_and_seeds_averaged() -> None:
    sample = Sample.of("aabbab", "112212", [0, 0, 0, 0, 1, 1], "ab")
    value = np.array([1.0, 3.0, 5.0, 5.0, 7.0, 11.0])

    def measure(rows: np.ndarray):  # type: ignore[no-untyped-def]
        return lambda weights: (weights * value[rows]).sum(-1) / weights.sum(-1)

    once = np.ones((1, 2))
    # By hand: fold 1 (2 + 7) / 2, fold 2 (5 + 11) / 2; pooled: seeds 3.5 and 9.
    assert over_folds(sample, measure)(once) == pytest.approx([(4.5 + 8) / 2])
    assert pooled(sample, measure)(once) == pytest.approx([6.25])


def test_many_intervals_at_once_are_those_one_by_one() -> None:
    values = np.random.default_rng(1).normal(size=(10, 3))
    groups = [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]
    together = speaker_intervals(lambda times: (times @ values).T, 10, 10, groups)
    assert together is not None
    for i, interval in enumerate(together):
        one = speaker_interval(lambda t, i=i: t @ values[:, i], 10, 10, groups)
        assert interval == pytest.approx(one)
    unknown = speaker_intervals(lambda t: np.stack([t[:, 0], t[:, 0] * np.nan]), 10, 10)
    assert unknown is not None
    assert unknown[0][1] > 0 and np.isnan(unknown[1]).all()
    assert speaker_intervals(lambda t: t.T, 3, 3, [[0, 1], [2]]) is None
