"""Ratings: scales, missing ones, several corpora, and predictions in the corpus' own units."""

import dataclasses
import math

import pytest
import torch

from emopeft.downstream.tasks.base import task_of
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.keys import LabelKeys, LossKeys, Settings
from emopeft.errors import UserError
from tests.tasks.helpers import protocol, settings, utterance

RATED = [
    utterance("a", ratings={"valence": 0.5, "arousal": 7.0}),
    utterance("b", ratings={"valence": 5.5}),
    utterance("c", emotion="happy"),
]


def made(**keys) -> DimensionalTask:
    return DimensionalTask.of(protocol(), RATED, settings(**keys))


def test_all_ratings_of_the_corpus_in_the_fields_order():
    task = made()
    assert task.target_names == ("valence", "arousal") and task.outputs == 2
    assert made(dimensions=["arousal"]).target_names == ("arousal",)
    assert made(dimensions=["arousal", "valence"]).target_names == ("arousal", "valence")


def test_targets_are_never_clipped_and_missing_ones_are_nan():
    task = made()
    assert task.target(RATED[0]) == (0.5, 7.0)
    target = task.target(RATED[1])
    assert target is not None and target[0] == 5.5 and math.isnan(target[1])
    assert task.target(RATED[2]) is None
    assert made(dimensions=["arousal"]).target(RATED[1]) is None


def test_predictions_are_in_the_corpus_own_units():
    """Outputs 0 and 1 mean the ends of the nominal scale, and beyond is beyond."""
    task = made()
    outputs = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.125, 0.33]])
    targets = torch.tensor([[0.5, 7.0], [5.5, math.nan], [10 / 3, 2.6667]])
    table = task.table(outputs, targets)
    assert table["prediction_valence"] == [1.0, 5.0, 5.5]
    assert table["prediction_arousal"] == pytest.approx([0.0, 10.0, 3.3], rel=1e-6)
    assert table["truth_valence"] == [0.5, 5.5, 3.3333333]
    assert table["truth_arousal"][0] == 7.0 and table["truth_arousal"][2] == 2.6667
    assert math.isnan(table["truth_arousal"][1])
    # A perfect prediction of all ratings is no loss, and has CCC 1.
    perfect = torch.tensor([[-0.125, 0.7], [1.125, 0.5]])
    ratings = torch.tensor([[0.5, 7.0], [5.5, 5.0]])
    assert task.loss(perfect, ratings, torch.full((2,), 0.5)) == pytest.approx(0, abs=1e-6)
    assert task.measure(task.table(perfect, ratings))["ccc"] == pytest.approx(1)


def test_measures_are_per_dimension_and_their_mean():
    task = made()
    table = {
        "truth_valence": [1.0, 2.0, 3.0, 4.0],
        "prediction_valence": [2.0, 2.0, 4.0, 4.0],
        "truth_arousal": [5.0, math.nan, 7.0, math.nan],
        "prediction_arousal": [6.0, 1.0, 6.0, 1.0],
    }
    measures = task.measure(table)
    assert measures["ccc_valence"] == pytest.approx(0.8) and measures["ccc_arousal"] == 0
    assert measures["ccc"] == pytest.approx(0.4)
    assert measures["dimensions"]["arousal"] == {"scale": 0.0, "bias": 0.0, "rated": 2}
    assert {m.name for m in task.metrics} <= measures.keys()
    assert task.remarks([measures, measures]) == [
        "CCC of valence: r 0.89, scale 0.89 (1: as spread out as the ratings, 0: the mean), "
        "bias 0.45 sd",
        "CCC of arousal: r –, scale 0.00 (1: as spread out as the ratings, 0: the mean), "
        "bias 0.00 sd",
    ]
    assert [m.name for m in task.shown] == [
        "ccc", "ccc_valence", "ccc_arousal", "rmse_valence", "rmse_arousal"
    ]  # fmt: skip
    assert [m.name for m in made(dimensions=["valence"]).shown] == ["ccc", "rmse"]
    unrated = task.measure(table | {"truth_arousal": [math.nan] * 4})
    assert math.isnan(unrated["ccc"]) and unrated["ccc_valence"] == pytest.approx(0.8)


def test_scales_of_several_corpora_are_brought_to_the_first_ones():
    scales = {"toy": {"valence": (1.0, 5.0)}, "other": {"valence": (-1.0, 1.0)}}
    task = DimensionalTask(scales["toy"], scales)
    strange = dataclasses.replace(utterance("d", ratings={"valence": 0.5}), corpus="other")
    assert task.target(strange) == (4.0,)
    assert task.target(RATED[0]) == (0.5,)


def test_what_is_learned_by_is_not_what_is_compared():
    """Another loss gives rows of the same table; other dimensions or their order do not."""
    weighted = made(dimension_weights={"valence": 2.0})
    assert weighted.describe() == made().describe()
    assert weighted.learning() != made().learning()
    backwards = made(dimensions=["arousal", "valence"])
    assert backwards.describe() != made().describe()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"dimensions": ["dominance"]}, ["rating of toy", "dominance", "valence"]),
        ({"dimensions": ["valence", "valence"]}, ["twice"]),
        ({"dimension_weights": {"joy": 1.0}}, ["loss.dimension_weights", "joy"]),
        ({"dimension_weights": {"valence": -1.0}}, ["loss.dimension_weights.valence", "at least"]),
    ],
)
def test_mistakes(keys, words):
    with pytest.raises(UserError) as error:
        made(**keys)
    assert all(word in str(error.value) for word in words), error.value


def test_losses_are_named():
    with pytest.raises(UserError, match="'cccc'.*ccc"):
        DimensionalTask({"valence": (1, 5)}, loss=LossKeys(dimensions="mse+cccc"))
    with pytest.raises(UserError, match="twice"):
        DimensionalTask({"valence": (1, 5)}, loss=LossKeys(dimensions="mse+mse"))


def test_a_scale_is_never_guessed():
    with pytest.raises(UserError, match="corpus.options={scale: {calm"):
        DimensionalTask.of(
            protocol(), [utterance("a", ratings={"calm": 1.0})], Settings(LabelKeys(), LossKeys())
        )
    with pytest.raises(UserError, match="no utterance of toy is rated"):
        DimensionalTask.of(protocol(), RATED[2:], settings())


@pytest.mark.parametrize(
    "dimensions",
    [
        None, [], "valence", [{"name": "v", "low": 1}], [{"name": "v", "low": 5, "high": 1}],
        [{"name": "v", "low": 1, "high": math.nan}], [{"name": "v", "low": True, "high": 5}],
        [{"name": "", "low": 1, "high": 5}], [{"name": "v", "low": 1, "high": 5}] * 2, [3],
    ],
)  # fmt: skip
def test_descriptions_are_data(dimensions):
    with pytest.raises(UserError, match="task.dimensions"):
        task_of({"name": "dimensional", "version": 1, "dimensions": dimensions})
