"""EER, F1, top-2 and confusions against scikit-learn, audmetric and hand values."""

from __future__ import annotations

import warnings

import audmetric
import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.special import softmax
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    precision_score,
    roc_curve,
    top_k_accuracy_score,
)

from emopeft.downstream.measures.classes import emotion_metrics
from emopeft.downstream.measures.detection import (
    equal_error_rates,
    f_means,
    f_scores,
    macro,
    precisions,
    shares_of_truth,
    top_right,
)
from emopeft.downstream.measures.weighted import confusions

RNG = np.random.default_rng(5)
TRUTH = RNG.integers(0, 4, 120)
SCORES = softmax(RNG.normal(size=(120, 5)) + 1.2 * np.eye(5)[TRUTH], -1)  # class 4 is never true
SAID = SCORES.argmax(-1)
WEIGHTS = RNG.integers(0, 4, (5, 120))


def rates(truth, scores, weights=None):  # type: ignore[no-untyped-def]
    weights = np.ones((1, len(truth))) if weights is None else weights
    return equal_error_rates(truth, np.asarray(scores))(weights)


def of_roc(own: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The usual recipe: where scikit-learn's ROC, joined by lines, meets 1 - x."""
    false, hits, _ = roc_curve(own, scores, sample_weight=weights, drop_intermediate=False)
    gap = interp1d(
        np.arange(len(false)), false - (1 - hits)
    )  # along the curve, also where it rises
    at = brentq(gap, 0, len(false) - 1, xtol=1e-13)
    return float(interp1d(np.arange(len(false)), false)(at))


# ---- EER --------------------------------------------------------------------------------------


def test_eer_by_hand() -> None:
    """Of two and two: one own clip lies below one other's, so 1/2 is missed, or 1/2 is taken."""
    scores = np.array([0.9, 0.4, 0.6, 0.1])
    assert rates([1, 1, 0, 0], np.stack([1 - scores, scores], -1))[0] == pytest.approx([0.5, 0.5])
    apart = np.array([0.9, 0.8, 0.2, 0.1])
    assert rates([1, 1, 0, 0], np.stack([1 - apart, apart], -1))[0] == pytest.approx([0.0, 0.0])
    # All tied: the ROC is the diagonal.
    assert rates([1, 0, 0, 0], np.full((4, 2), 0.5))[0] == pytest.approx([0.5, 0.5])
    # The wrong way round: all others before all own ones.
    wrong = [[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]
    assert rates([0, 0, 1], wrong)[0] == pytest.approx([1.0, 1.0])
    # One own and two others, tied with one: from (0, 0) to (1/2, 1), where 1/3 meets 1 - 2/3.
    tied = [[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]]
    assert rates([1, 0, 0], tied)[0, 1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("digits", [17, 2, 1])
def test_eer_is_that_of_scikit_learns_roc_also_with_ties_and_weights(digits: int) -> None:
    scores = SCORES.round(digits)
    found = rates(TRUTH, scores, np.concatenate([np.ones((1, 120), int), WEIGHTS]))
    for weights, of in zip([np.ones(120), *WEIGHTS], found, strict=True):
        kept = weights > 0
        theirs = [of_roc(TRUTH[kept] == c, scores[kept, c], weights[kept]) for c in range(4)]
        assert of[:4] == pytest.approx(theirs, abs=1e-9)
        repeated = rates(np.repeat(TRUTH, weights.astype(int)),
                         np.repeat(scores, weights.astype(int), 0))[0]  # fmt: skip
        assert of == pytest.approx(repeated, abs=1e-12, nan_ok=True)
        assert np.isnan(of[4])
    assert macro(found)[0] == pytest.approx(found[0, :4].mean())


def test_eer_is_audmetrics_within_a_step() -> None:
    """audmetric gives the middle of the two error rates at one threshold; the line between two
    thresholds leaves that by no more than a clip of the rarer side."""
    for c in range(4):
        own = (c == TRUTH).astype(int)
        theirs, _ = audmetric.equal_error_rate(own, SCORES[:, c])
        assert rates(TRUTH, SCORES)[0, c] == pytest.approx(theirs, abs=1 / own.sum())
    own = np.tile([1, 0], 30)  # as many of each: there are thresholds where both rates are equal
    scores = RNG.random(60) + 0.4 * own
    theirs, _ = audmetric.equal_error_rate(own, scores)
    assert rates(own, np.stack([-scores, scores], -1))[0, 1] == pytest.approx(theirs, abs=1e-12)


def test_a_class_that_all_or_none_are_of_has_no_eer() -> None:
    found = rates([1, 1], [[0.3, 0.7, 0.0], [0.2, 0.8, 0.0]])
    assert np.isnan(found).all() and np.isnan(macro(found)).all()
    found = rates([0, 1, 1], np.eye(3)[[0, 1, 1]], np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]]))
    assert found[0, :2] == pytest.approx([0.0, 0.0]) and np.isnan(found[1:]).all()


# ---- F1, precision, top-2, confusions -----------------------------------------------------------


def test_f1_and_precision_are_scikit_learns() -> None:
    counts = confusions(TRUTH, SAID, 5)(np.concatenate([np.ones((1, 120)), WEIGHTS]))
    means, per_class, precise = f_means(counts), f_scores(counts), precisions(counts)
    for i, weights in enumerate([np.ones(120), *WEIGHTS]):
        for name in ("micro", "macro", "weighted"):
            theirs = f1_score(
                TRUTH, SAID, labels=range(4), average=name, sample_weight=weights, zero_division=0
            )
            if name == "micro":  # over all that is said, also of the class that is never true
                theirs = f1_score(TRUTH, SAID, average=name, sample_weight=weights)
            assert means[f"{name}_f1"][i] == pytest.approx(theirs), name
        keys = {"average": None, "labels": range(5), "sample_weight": weights, "zero_division": 0}
        assert per_class[i, :4] == pytest.approx(f1_score(TRUTH, SAID, **keys)[:4])
        assert precise[i] == pytest.approx(precision_score(TRUTH, SAID, **keys))
        assert np.isnan(per_class[i, 4])
    assert means["macro_f1"][0] == pytest.approx(emotion_metrics(TRUTH, SAID, 5)["macro_f1"])
    never = precisions(confusions([0, 1], [0, 0], 2)(np.ones((1, 2))))
    assert never[0, 0] == 0.5 and np.isnan(never[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(np.isnan(v).all() for v in f_means(np.zeros((1, 3, 3))).values())


def test_top_2_is_scikit_learns_and_ties_have_no_order() -> None:
    theirs = top_k_accuracy_score(TRUTH, SCORES, k=2, labels=range(5))
    assert top_right(TRUTH, SCORES).mean() == pytest.approx(theirs)
    assert top_right(TRUTH, SCORES, 1).mean() == pytest.approx(np.mean(TRUTH == SAID))
    tied = np.array([[0.4, 0.2, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25], [0.4, 0.4, 0.1, 0.1]])
    assert top_right([1, 1, 1], tied) == pytest.approx([1 / 3, 1 / 2, 1.0])
    assert top_right([0, 0, 2], tied) == pytest.approx([1.0, 1 / 2, 0.0])


def test_a_confusion_in_shares_has_no_row_of_an_absent_class() -> None:
    counts = confusions(TRUTH, SAID, 5)(np.ones((1, 120)))[0]
    shares = shares_of_truth(counts)
    theirs = confusion_matrix(TRUTH, SAID, labels=range(5), normalize="true")
    assert shares[:4] == pytest.approx(theirs[:4])
    assert np.isnan(shares[4]).all() and shares[:4].sum(-1) == pytest.approx(np.ones(4))
