"""Metrics against a hand calculation and against scikit-learn."""

import math
import random
import subprocess
import sys

import pytest
from sklearn import metrics as sklearn_metrics

from emopeft.downstream.measures.classes import emotion_metrics, mean_std
from tests.shared import ROOT


def test_by_hand():
    # class 0: 3 of 4 found; class 1: 1 of 2; class 2: none of 2
    truth = [0, 0, 0, 0, 1, 1, 2, 2]
    prediction = [0, 0, 0, 1, 1, 0, 0, 1]
    found = emotion_metrics(truth, prediction, 3)
    assert found["accuracy"] == pytest.approx(4 / 8)
    assert found["uar"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    # F1 = 2 tp / (2 tp + fp + fn): 6 / (6 + 2 + 1), 2 / (2 + 2 + 1), 0
    assert found["macro_f1"] == pytest.approx((6 / 9 + 2 / 5 + 0) / 3)
    assert found["confusion"] == [[3, 1, 0], [1, 1, 0], [1, 1, 0]]


def test_classes_that_are_absent():
    """REVIEW A19: what macro-F1 averages over does not depend on the predictions."""
    # class 2 is only predicted, class 3 appears nowhere
    found = emotion_metrics([0, 0, 1, 1], [0, 2, 1, 1], 4)
    assert found["uar"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    # a wrong guess costs the same, whether its class is in truth or not
    assert emotion_metrics([0, 0, 0], [0, 0, 1], 3)["macro_f1"] == pytest.approx(4 / 5)
    assert found["confusion"] == [[1, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("seed", range(20))
def test_equal_to_scikit_learn(seed):
    dice = random.Random(seed)
    classes = dice.randint(2, 8)
    truth = [dice.randrange(classes) for _ in range(dice.randint(1, 60))]
    prediction = [t if dice.random() < 0.5 else dice.randrange(classes) for t in truth]
    found = emotion_metrics(truth, prediction, classes)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, prediction))
    assert found["uar"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(truth, prediction))
    assert found["macro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(truth, prediction, average="macro", labels=sorted(set(truth)))
    )
    expected = sklearn_metrics.confusion_matrix(truth, prediction, labels=range(classes))
    assert found["confusion"] == expected.tolist()
    assert all(type(n) is int for row in found["confusion"] for n in row)
    assert all(type(found[name]) is float for name in ("accuracy", "uar", "macro_f1"))


@pytest.mark.parametrize(
    ("truth", "prediction"), [([], []), ([0, 1], [0]), ([0, 3], [0, 1]), ([0, 1], [0, -1])]
)
def test_no_metric_of_nonsense(truth, prediction):
    with pytest.raises(ValueError):
        emotion_metrics(truth, prediction, 3)


def test_mean_and_sample_deviation():
    assert mean_std([1.0, 2.0, 4.0]) == {
        "mean": pytest.approx(7 / 3),
        "std": pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2)),
        "n": 3,
    }
    assert mean_std([0.25]) == {"mean": 0.25, "std": None, "n": 1}
    with pytest.raises(ValueError):
        mean_std([])


def test_a_nan_is_never_left_out_or_turned_into_a_number():
    """REVIEW A12, C5: what is not known stays unknown; sums beyond a float are no crash."""
    for values in ([0.5, math.nan], [math.nan], [math.inf, -math.inf], [1.7e308] * 9):
        found = mean_std(values)
        assert not math.isfinite(found["mean"]), values
        assert found["std"] is None or math.isnan(found["std"])


def test_starts_without_torch():
    code = (
        "import sys, emopeft.downstream.measures.classes, emopeft.downstream.records.record; "
        "import emopeft.leaderboard.__main__; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
