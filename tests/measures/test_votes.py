"""Distributions of votes: by hand, and against scipy and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics

from emopeft.downstream.measures.votes import (
    consensus,
    distribution,
    jensen_shannon,
    multilabel_metrics,
    raters_ceiling,
    vote_metrics,
)


def test_consensus_is_a_plurality():
    assert consensus([2, 1, 1]) == 0
    assert consensus([1, 1, 0]) is None
    assert consensus([0.2, 0.5, 0.3]) == 1


def test_by_hand():
    """Votes 3:1 on two classes, scores 1/2 each; and 0:2 with scores 1/4 and 3/4."""
    measures = vote_metrics([[3, 1], [0, 2]], [[0.5, 0.5], [0.25, 0.75]], [0, 1])
    assert measures["nll"] == pytest.approx((math.log(2) - math.log(0.75)) / 2, abs=1e-15)
    assert measures["agreed"] == (0.75 + 1) / 2
    assert math.isinf(vote_metrics([[1, 1]], [[1.0, 0.0]], [0])["nll"])
    with pytest.raises(ValueError, match="no metric"):
        vote_metrics([], [], [])


@pytest.mark.parametrize("seed", range(10))
def test_scipy_agrees(seed):
    draw = np.random.default_rng(seed)
    votes = draw.integers(0, 4, (30, 5)) + np.eye(5)[draw.integers(0, 5, 30)]
    scores = draw.dirichlet(np.ones(5), 30)
    measures = vote_metrics(votes.tolist(), scores.tolist(), scores.argmax(1).tolist())
    shares = votes / votes.sum(1, keepdims=True)
    distances = scipy.spatial.distance.jensenshannon(shares, scores, base=2, axis=1)
    assert measures["js"] == pytest.approx(np.mean(distances**2), abs=1e-12)
    nll = scipy.stats.entropy(shares, axis=1) + scipy.stats.entropy(shares, scores, axis=1)
    assert measures["nll"] == pytest.approx(np.mean(nll), abs=1e-12)


def test_js_ends():
    assert jensen_shannon([1, 0], [1, 0]) == 0
    assert jensen_shannon([1, 0], [0, 1]) == 1


def test_ceiling_by_hand():
    """Three raters, 2:1: leaving one of the two out leaves a tie (half right), the third is wrong.

    Right: (2/3)(1/2) + (1/3) 0 = 1/3; one of three pairs agrees. Two that agree: all right. One
    vote: does not count.
    """
    ceiling = raters_ceiling([[2, 1], [0, 2], [1, 0]])
    assert ceiling is not None
    assert ceiling["right"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-15)
    assert ceiling["agreed"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-15)
    assert ceiling["best"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-15)
    assert ceiling["utterances"] == 2
    # Consensus class 0: 1/3 (a tie, right) and 1/3 (the third rater, wrong); class 1: 1/3 (the tie,
    # wrong) and 1 (right).
    assert ceiling["uar"] == pytest.approx(((1 / 3) / (2 / 3) + 1 / (4 / 3)) / 2, abs=1e-15)
    assert raters_ceiling([[0.5, 0.5]]) is None
    assert raters_ceiling([[1, 0]]) is None


def test_ceiling_equals_leaving_every_rater_out():
    """Against the definition, rater by rater, on drawn panels."""
    draw = np.random.default_rng(3)
    panels = [draw.integers(0, 4, int(draw.integers(2, 8))).tolist() for _ in range(60)]
    shares, pairs = [], []
    for panel in panels:
        right = 0.0
        pairs.append(np.mean([a == b for a, b in itertools.combinations(panel, 2)]))
        for i, own in enumerate(panel):
            rest = panel[:i] + panel[i + 1 :]
            counts = {c: rest.count(c) for c in rest}
            modes = [c for c, n in counts.items() if n == max(counts.values())]
            right += (own in modes) / len(modes)
        shares.append(right / len(panel))
    votes = [[panel.count(c) for c in range(4)] for panel in panels]
    ceiling = raters_ceiling(votes)
    assert ceiling is not None
    assert ceiling["right"] == pytest.approx(np.mean(shares), abs=1e-12)
    assert ceiling["agreed"] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_multilabel_agrees_with_scikit_learn():
    draw = np.random.default_rng(0)
    truth, guess = draw.integers(0, 2, (2, 80, 5))
    truth[:, 4] = guess[:, 4] = 0  # a class that is nowhere
    measures = multilabel_metrics(truth.tolist(), guess.tolist())
    for name, average in (("macro_f1", "macro"), ("micro_f1", "micro")):
        other = sklearn.metrics.f1_score(truth, guess, average=average, zero_division=0)
        assert measures[name] == pytest.approx(other, abs=1e-12)
    assert measures["exact"] == pytest.approx(sklearn.metrics.accuracy_score(truth, guess))
    assert multilabel_metrics([[0, 0]], [[0, 0]])["micro_f1"] == 0


def test_a_distribution_adds_up():
    for votes in itertools.product((1, 2, 7), repeat=3):
        assert math.fsum(distribution(votes)) == pytest.approx(1, abs=1e-15)
