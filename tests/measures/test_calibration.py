"""Calibration by hand, by loops written another way, scikit-learn, a grid, and all orders."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss

from emopeft.downstream.measures.calibration import (
    LEAST,
    Counts,
    Ranked,
    brier_scores,
    calibrated_error,
    entropies,
    fit_temperature,
    log_losses,
    log_probabilities,
    lost,
    reliability,
    tempered,
)

RNG = np.random.default_rng(11)
SCORES = softmax(3 * RNG.normal(size=(200, 5)), -1)
TRUTH = np.where(RNG.random(200) < 0.5, SCORES.argmax(-1), RNG.integers(0, 5, 200))
TARGETS = np.eye(5)[TRUTH]
LOGS = log_probabilities(SCORES)


def measured(confidence, right, weights=None, bins=15):  # type: ignore[no-untyped-def]
    """ECE and AURC of each draw."""
    weights = np.ones((1, len(confidence))) if weights is None else weights
    counts = Ranked(confidence, right).counts(weights)
    return counts.calibration_error(bins), counts.risk_coverage_area()


def looped_error(confidence, right, bins):  # type: ignore[no-untyped-def]
    """ECE in fractions, value by value: its rows' bin is that of the middle one of them."""
    pairs = [(float(c), bool(r)) for c, r in zip(confidence, right, strict=True)]
    values = [c for c, _ in pairs]
    gaps = [Fraction(0)] * bins
    for value in set(values):
        middle = sum(c < value for c in values) + Fraction(values.count(value), 2)
        hits = sum(r for c, r in pairs if c == value)
        place = min(bins - 1, math.floor(bins * middle / len(pairs)))
        gaps[place] += hits - values.count(value) * Fraction(value)
    return float(sum(map(abs, gaps)) / len(pairs))


# ---- ECE ------------------------------------------------------------------------------------


def test_ece_by_hand() -> None:
    """Two bins of two: |1/2 - 0.35| and |1 - 0.8|, half of the rows each."""
    error, _ = measured([0.9, 0.3, 0.4, 0.7], [1, 0, 1, 1], bins=2)
    assert error == pytest.approx([0.5 * 0.15 + 0.5 * 0.2])
    assert measured([0.9, 0.3], [1, 0], bins=1)[0] == pytest.approx([0.1])
    assert measured([1.0, 1.0], [1, 1])[0] == pytest.approx([0.0])
    assert measured([1.0], [0])[0] == pytest.approx([1.0])


@pytest.mark.parametrize("digits", [1, 2, 17])
@pytest.mark.parametrize("bins", [1, 4, 15, 300])
def test_ece_is_that_of_a_loop_and_of_no_order(digits: int, bins: int) -> None:
    confidence = SCORES.max(-1).round(digits)
    right = SCORES.argmax(-1) == TRUTH
    error, area = measured(confidence, right, bins=bins)
    assert error == pytest.approx([looped_error(confidence, right, bins)], abs=1e-12)
    for _ in range(5):
        order = RNG.permutation(200)
        again = measured(confidence[order], right[order], bins=bins)
        assert again[0] == pytest.approx(error, abs=1e-12)
        assert again[1] == pytest.approx(area, abs=1e-12)


def test_bins_are_of_equal_mass_and_split_no_tie() -> None:
    def sizes(rows: list[float], bins: int) -> list[int]:
        counts = Counts(np.arange(len(rows)) / 100, np.array([rows]), np.zeros((1, len(rows))))
        edges = counts.edges(bins)[0].tolist()
        return [int(sum(rows[a:b])) for a, b in itertools.pairwise(edges)]

    assert sizes([1.0] * 60, 15) == [4] * 15
    assert sum(sizes([1.0] * 61, 15)) == 61 and set(sizes([1.0] * 61, 15)) == {4, 5}
    # 10 rows in groups of 1, 6, 3: middles at 0.5, 4 and 8.5 of 10.
    assert sizes([1.0, 6.0, 3.0], 5) == [1, 0, 6, 0, 3]
    assert sizes([2.0], 3) == [0, 2, 0]
    bins = reliability([0.5] * 7 + [0.9], [1, 0, 0, 0, 0, 0, 0, 1], 4)
    assert [(b.rows, b.confidence) for b in bins] == [(7, 0.5), (1, 0.9)]
    assert [b.right for b in bins] == [pytest.approx(1 / 7), 1.0]


def test_weights_are_repeated_rows() -> None:
    confidence, right = SCORES.max(-1), SCORES.argmax(-1) == TRUTH
    weights = RNG.integers(0, 4, (2, 200))
    errors, areas = measured(confidence, right, weights)
    for error, area, weight in zip(errors, areas, weights, strict=True):
        once = measured(np.repeat(confidence, weight), np.repeat(right, weight))
        assert [error, area] == pytest.approx([once[0][0], once[1][0]], abs=1e-12)
        assert error == pytest.approx(
            looped_error(np.repeat(confidence, weight), np.repeat(right, weight), 15), abs=1e-12
        )
    nothing = measured(confidence, right, np.zeros((1, 200)))
    assert np.isnan(nothing[0]).all() and np.isnan(nothing[1]).all()


def test_what_chance_leaves_of_ece() -> None:
    """Two bins of n rows at confidence 1/2: the mean of |binomial/n - 1/2|, by its formula."""
    n = 40
    mean = sum(math.comb(n, k) * abs(k / n - 0.5) for k in range(n + 1)) / 2**n
    assert calibrated_error([0.5] * n, 1) == pytest.approx(mean, rel=0.06)
    assert calibrated_error([1.0] * 5) == 0.0


# ---- NLL, Brier, zeros ------------------------------------------------------------------------


def test_nll_and_brier_are_scikit_learns() -> None:
    assert log_losses(LOGS, TARGETS).mean() == pytest.approx(log_loss(TRUTH, SCORES), rel=1e-9)
    theirs = brier_score_loss(TRUTH, SCORES, labels=range(5), scale_by_half=False)
    assert brier_scores(LOGS, TARGETS).mean() == pytest.approx(theirs, rel=1e-9)
    hand = log_probabilities(np.array([[0.7, 0.2, 0.1]]))
    assert brier_scores(hand, np.eye(3)[[1]]) == pytest.approx([0.49 + 0.64 + 0.01])
    votes = np.array([[0.5, 0.5, 0.0]])
    assert log_losses(hand, votes) == pytest.approx([-0.5 * math.log(0.14)])
    assert entropies(votes) == pytest.approx([math.log(2)])


def test_a_score_of_zero_costs_much_and_is_counted() -> None:
    scores = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    targets = np.eye(2)[[1, 0, 0]]
    logs = log_probabilities(scores)
    assert log_losses(logs, targets) == pytest.approx([-LEAST, math.log(2), 0.0])
    assert pytest.approx(744.44, abs=0.01) == -LEAST
    assert lost(scores, targets) == 1
    assert np.isfinite(log_losses(tempered(logs, 0.01), targets)).all()
    assert 1 < fit_temperature(logs, targets).value <= 100
    assert log_probabilities(np.array([[0.5, 0.5005]])) == pytest.approx(
        np.log([[0.5 / 1.0005, 0.5005 / 1.0005]])
    )


# ---- temperature ------------------------------------------------------------------------------


@pytest.mark.parametrize("sharper", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("soft", [False, True])
def test_the_temperature_is_the_best_of_a_grid(sharper: float, soft: bool) -> None:
    outputs = sharper * LOGS + 5.0  # a constant changes nothing
    scores = softmax(outputs, -1)
    targets = (TARGETS + SCORES) / 2 if soft else TARGETS
    found = fit_temperature(log_probabilities(scores), targets)
    assert found.note == ""
    grid = np.geomspace(0.1, 40, 1201)
    losses = [-(targets * log_softmax(outputs / t, -1)).sum(-1).mean() for t in grid]
    assert found.value == pytest.approx(grid[int(np.argmin(losses))], rel=0.005)
    if sharper != 1.0:
        plain = fit_temperature(LOGS, targets).value
        assert found.value == pytest.approx(sharper * plain, rel=1e-6)


def test_a_temperature_does_not_change_what_is_said() -> None:
    again = tempered(LOGS, 1.7)
    assert (again.argsort(-1) == LOGS.argsort(-1)).all()
    assert np.exp(again).sum(-1) == pytest.approx(np.ones(200))
    assert tempered(LOGS, 1.0) == pytest.approx(LOGS, abs=1e-12)


def test_where_dev_cannot_tell_a_temperature() -> None:
    sure = log_probabilities(np.array([[0.6, 0.4], [0.3, 0.7]]))
    all_right = fit_temperature(sure, np.eye(2)[[0, 1]])
    assert all_right.value == 1.0 and all_right.note == "all right: not fitted"
    flat = fit_temperature(np.log(np.full((3, 4), 0.25)), np.eye(4)[[0, 1, 1]])
    assert flat.value == 1.0 and "do not tell classes apart" in flat.note
    all_wrong = fit_temperature(sure, np.eye(2)[[1, 0]])
    assert all_wrong.value == 100.0 and "upper bound" in all_wrong.note
    # Wrong only by a hair: the best T lies below the bound.
    hair = log_probabilities(np.array([[0.5, 0.5 + 1e-9], [0.501, 0.499]]))
    cold = fit_temperature(hair, np.eye(2)[[0, 0]])
    assert cold.value == 0.01 and "lower bound" in cold.note
    with pytest.raises(ValueError, match="no row"):
        fit_temperature(np.zeros((0, 2)), np.zeros((0, 2)))


# ---- coverage ---------------------------------------------------------------------------------


def test_aurc_is_the_mean_over_all_orders_of_ties() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.2])
    right = np.array([True, False, True, True, False, True])
    areas = []
    for order in itertools.permutations(range(6)):
        if (np.diff(confidence[list(order)]) <= 0).all():
            wrong = ~right[list(order)]
            areas.append(np.mean(np.cumsum(wrong) / np.arange(1, 7)))
    assert len(areas) == 12
    assert measured(confidence, right)[1] == pytest.approx([np.mean(areas)], abs=1e-12)
    # By hand, no ties: right, wrong, right: risks 0, 1/2, 1/3.
    assert measured([0.9, 0.8, 0.7], [1, 0, 1])[1] == pytest.approx([(0 + 1 / 2 + 1 / 3) / 3])
    # All alike: order says nothing, and each share is the error rate.
    assert measured([0.4] * 5, [1, 0, 0, 1, 1])[1] == pytest.approx([0.4])


def test_what_is_right_of_the_surest() -> None:
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 0, 0, 0]])
    counts = Ranked([0.9, 0.5, 0.5, 0.2], [1, 1, 0, 0]).counts(weights)
    for share, wanted in (
        (0.25, [1, 1]),
        (0.5, [0.75, 1]),
        (0.75, [2 / 3, 2 / 3]),
        (1, [0.5, 0.5]),
    ):
        found = counts.right_of_surest(share)
        assert found[:2] == pytest.approx(wanted) and np.isnan(found[2])
    assert counts.accuracy()[:2] == pytest.approx([0.5, 0.5])
    assert counts.confidence()[:2] == pytest.approx([2.1 / 4, 2.5 / 4])
    by_speaker = Ranked([0.9, 0.5, 0.2], [1, 0, 1]).counts(
        np.array([[3, 2]]), np.array([1, 0, 1])
    )  # fmt: skip
    assert by_speaker.rows.tolist() == [[2, 3, 2]] and by_speaker.right.tolist() == [[2, 0, 2]]
