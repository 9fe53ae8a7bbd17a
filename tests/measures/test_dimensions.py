"""CCC and its parts: by hand, against audmetric, scipy, scikit-learn, and where there is none."""

import math

import audmetric
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from emopeft.downstream.measures.dimensions import PARTS, dimension_metrics


def test_by_hand():
    """Ratings 1 2 3 4, predictions 2 2 4 4: means 2.5 and 3, variances 1.25 and 1, covariance 1."""
    measures = dimension_metrics([1, 2, 3, 4], [2, 2, 4, 4])
    assert measures["ccc"] == pytest.approx(2 * 1 / (1.25 + 1 + 0.25), abs=1e-15)
    assert measures["pearson"] == pytest.approx(1 / math.sqrt(1.25), abs=1e-15)
    assert measures["rmse"] == pytest.approx(math.sqrt(0.5), abs=1e-15)
    assert measures["mae"] == 0.5
    assert measures["scale"] == pytest.approx(math.sqrt(1 / 1.25), abs=1e-15)
    assert measures["bias"] == pytest.approx(0.5 / math.sqrt(1.25), abs=1e-15)
    assert measures["rated"] == 4


@pytest.mark.parametrize("seed", range(20))
def test_other_libraries_agree(seed):
    draw = np.random.default_rng(seed)
    size = int(draw.integers(2, 400))
    truth = draw.normal(3, draw.uniform(0.01, 2), size)
    prediction = draw.uniform(-1, 1) * truth + draw.normal(draw.normal(), draw.uniform(0, 1), size)
    measures = dimension_metrics(truth, prediction)
    assert measures["ccc"] == pytest.approx(audmetric.concordance_cc(truth, prediction), abs=1e-12)
    pearson = scipy.stats.pearsonr(truth, prediction).statistic
    assert measures["pearson"] == pytest.approx(pearson, abs=1e-12)
    rmse = sklearn.metrics.root_mean_squared_error(truth, prediction)
    assert measures["rmse"] == pytest.approx(rmse, abs=1e-12)
    mae = sklearn.metrics.mean_absolute_error(truth, prediction)
    assert measures["mae"] == pytest.approx(mae, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ccc_is_correlation_times_what_scale_and_bias_leave_of_it(seed):
    """Lin 1989: CCC = r * 2 / (v + 1/v + u^2)."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(0, 1, 50)
    prediction = 0.5 * truth + draw.normal(1, 0.3, 50)
    m = dimension_metrics(truth, prediction)
    u = m["bias"] / math.sqrt(m["scale"])  # ours is in deviations of the ratings
    accuracy = 2 / (m["scale"] + 1 / m["scale"] + u**2)
    assert m["ccc"] == pytest.approx(m["pearson"] * accuracy, abs=1e-12)


def test_what_has_no_value_is_nan_and_nothing_else():
    nan = math.nan
    cases = [
        # truth, prediction, which parts have a value
        ([nan, nan], [1, 2], {}),
        ([3, nan], [1, 2], {"rmse": 2.0, "mae": 2.0}),
        (
            [1, 2],
            [5, 5],
            {"ccc": 0.0, "rmse": math.sqrt(12.5), "mae": 3.5, "scale": 0.0, "bias": 7},
        ),
        ([5, 5], [1, 2], {"ccc": 0.0, "rmse": math.sqrt(12.5), "mae": 3.5}),
        ([5, 5], [4, 4], {"ccc": 0.0, "rmse": 1.0, "mae": 1.0}),
        ([5, 5], [5, 5], {"rmse": 0.0, "mae": 0.0}),
    ]
    for truth, prediction, known in cases:
        measures = dimension_metrics(truth, prediction)
        for part in PARTS:
            if part in known:
                assert measures[part] == pytest.approx(known[part]), (truth, part)
            else:
                assert math.isnan(measures[part]), (truth, part)
    # Of a constant like 0.1 the computed mean is another number, and a variance would be left.
    assert math.isnan(dimension_metrics([0.1] * 3, [0.1] * 3)["ccc"])
    assert dimension_metrics([0.1] * 3, [0.7] * 3)["ccc"] == 0
    with pytest.raises(ValueError, match="no metric"):
        dimension_metrics([], [])
    with pytest.raises(ValueError, match="no metric"):
        dimension_metrics([1.0], [1.0, 2.0])


def test_a_missing_rating_is_as_if_the_utterance_were_not_there():
    truth, prediction = [1.0, math.nan, 3.0, 2.0], [1.5, 9.0, 2.0, 2.5]
    without = dimension_metrics([1.0, 3.0, 2.0], [1.5, 2.0, 2.5])
    assert dimension_metrics(truth, prediction) == without
