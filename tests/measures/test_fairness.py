"""Fairness against fairlearn, published examples and hand; groups against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from emopeft.downstream.measures import by_group, fairness
from emopeft.downstream.measures.by_group import Number, Quantity
from emopeft.downstream.measures.dimensions import dimension_metrics

CLASSES = ("a", "b", "c")
THEIRS = {
    "demographic parity difference": demographic_parity_difference,
    "demographic parity ratio": demographic_parity_ratio,
    "equal opportunity difference": equal_opportunity_difference,
    "equalized odds difference": equalized_odds_difference,
}


def confusion(groups: np.ndarray, truth: np.ndarray, said: np.ndarray, count: int) -> np.ndarray:
    """(groups, classes, classes)."""
    counts = np.zeros((count, 3, 3))
    np.add.at(counts, (groups, truth, said), 1)
    return counts


def of_fairlearn(name: str, groups: np.ndarray, truth: np.ndarray, said: np.ndarray) -> list[float]:
    return [THEIRS[name](truth == c, said == c, sensitive_features=groups) for c in range(3)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", THEIRS)
def test_one_class_against_the_rest_is_fairlearns(seed: int, name: str) -> None:
    """Random, with classes that a group lacks, classes never predicted, ties, tiny groups, and a
    group that nobody is in."""
    rng = np.random.default_rng(seed)
    many = int(rng.integers(6, 40))
    groups = rng.integers(0, 3, many) if seed % 2 else np.repeat([0, 1], [1, many - 1])
    groups[:2] = 0, 1
    truth, said = rng.integers(0, 3 if seed % 3 else 2, many), rng.integers(0, 2 + seed % 2, many)
    if seed == 7:
        said[:], groups[:] = truth, np.arange(many) % 2  # all right: every difference is a tie
    counts = confusion(groups, truth, said, 4)  # nobody is in group 3
    measure = fairness.PER_CLASS[name]
    absent = {} if "parity" in name else {"absent": 0.0}
    ours = measure(counts, **absent)
    theirs = of_fairlearn(name, groups, truth, said)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    batch = measure(np.stack([counts, counts]), **absent)
    np.testing.assert_array_equal(batch, np.stack([ours, ours]))
    known = [x for x in theirs if not math.isnan(x)]
    if known:
        worst = min(known) if name in fairness.RATIOS else max(known)
        assert fairness.worst(name, ours) == pytest.approx(worst)


def test_a_class_that_a_group_lacks_takes_no_part_where_fairlearn_counts_it_as_missed() -> None:
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    truth = np.array([0, 0, 1, 0, 0, 0, 0, 1])
    said = np.array([0, 1, 1, 0, 0, 1, 0, 1])
    counts = confusion(groups, truth, said, 3)
    ours = fairness.equal_opportunity_difference(counts)
    assert ours[:2] == pytest.approx([1 / 2, 0.0]) and math.isnan(ours[2])
    theirs = of_fairlearn("equal opportunity difference", groups, truth, said)
    assert theirs == pytest.approx([1 / 2, 1.0, 0.0])  # group 1 has no clip of class 1


def test_one_group_has_nothing_to_compare() -> None:
    """fairlearn says 0."""
    counts = confusion(np.zeros(4, int), np.arange(4) % 3, np.arange(4) % 2, 1)
    for measure in (*fairness.PER_CLASS.values(), *fairness.OVERALL.values()):
        assert np.isnan(measure(counts)).all()
    truth = np.array([1, 0])
    assert demographic_parity_difference(truth, truth, sensitive_features=[0, 0]) == 0


# ---- PEFT-SER ---------------------------------------------------------------------------------

# The example in the documentation of holisticai, whose functions PEFT-SER calls.
WHO = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
SAID = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
TRUTH = np.array([0, 1, 1, 0, 1, 0, 2, 1, 2, 1])


def test_peft_sers_parities_are_the_published_examples() -> None:
    counts = confusion(WHO, TRUTH, SAID, 3)
    assert fairness.peft_ser_statistical_parity(counts) == pytest.approx(0.5)
    pairs = [
        fairness.peft_ser_equal_opportunity(counts[list(pair)], absent=1 / 3)
        for pair in itertools.combinations(range(3), 2)
    ]
    assert np.mean(pairs) == pytest.approx(0.7962962962962963)  # their mean over pairs
    assert fairness.peft_ser_equal_opportunity(counts, absent=1 / 3) == pytest.approx(max(pairs))
    # Without what is made up for classes that a group lacks: both share class 1 alone, or with
    # group 1 a second. By hand: (0, 1): (1 + 1/2) / 2; (0, 2): 1; (1, 2): (1 + 1) / 2.
    by_hand = [0.75, 1.0, 1.0]
    for pair, value in zip(itertools.combinations(range(3), 2), by_hand, strict=True):
        assert fairness.peft_ser_equal_opportunity(counts[list(pair)]) == pytest.approx(value)


def test_peft_sers_demographic_parity_is_of_what_is_predicted_rightly() -> None:
    """By hand: group 0 has 4 clips, 2 right of class 0, 1 of class 1; group 1 0, 2; group 2 none
    and 1 of class 2: |2/4 - 0|, |2/4 - 0| and 1/2."""
    counts = confusion(WHO, TRUTH, SAID, 3)
    shares = [[2 / 4, 1 / 4, 0], [0, 2 / 4, 0], [0, 0, 1 / 2]]
    apart = np.ptp(np.array(shares), axis=0)
    assert fairness.peft_ser_demographic_parity(counts) == pytest.approx(apart.max())
    uneven = confusion(WHO[:8], TRUTH[:8], SAID[:8], 2)
    assert fairness.peft_ser_demographic_parity(uneven) == pytest.approx(0.5)


# ---- groups -----------------------------------------------------------------------------------


def tallies(seed: int = 0, rows: int = 400, skill: float = 0.6) -> tuple[by_group.Tallies, tuple]:
    """Ten speakers in two groups, with classes a, b, c."""
    rng = np.random.default_rng(seed)
    who = np.arange(rows) % 10
    group, truth = who % 2, np.random.default_rng(99).integers(0, 3, rows)
    said = np.where(rng.random(rows) < skill + 0.2 * group, truth, rng.integers(0, 3, rows))
    made = by_group.class_tallies(who, group, truth, said, CLASSES, (10, 2))
    return made, (who, group, truth, said)


def test_groups_have_the_numbers_of_scikit_learn_and_the_intervals_of_plain_draws() -> None:
    own, (who, group, truth, said) = tallies()
    base, (_, _, _, frozen) = tallies(1, skill=0.4)
    parts = by_group.strata(who, group, 10)
    assert parts == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    found, more = by_group.numbers([own], [base], parts)
    frame = MetricFrame(
        metrics={"uar": balanced_accuracy_score, "accuracy": accuracy_score},
        y_true=truth, y_pred=said, sensitive_features=group,
    )  # fmt: skip
    for g, name in itertools.product(range(2), ("uar", "accuracy")):
        assert found[Quantity(name, g)].value == pytest.approx(frame.by_group[name][g])
    each = recall_score(truth[group == 1], said[group == 1], average=None)
    assert [found[Quantity("recall", 1, c)].value for c in CLASSES] == pytest.approx(each)
    assert found[Quantity("uar gap")].value == pytest.approx(frame.difference()["uar"])

    def plain_uar(rows: np.ndarray, x: np.ndarray, often: np.ndarray) -> float:
        of_class = np.bincount(truth[rows], often)
        return np.mean(np.bincount(truth[rows], often * (x[rows] == truth[rows])) / of_class)

    rng, rows = np.random.default_rng(5), [np.flatnonzero(group == g) for g in range(2)]
    draws: dict[str, list[float]] = {"gap": [], "more": [], "apart": []}
    for _ in range(3000):
        times = np.zeros(10)
        for part in parts:
            np.add.at(times, rng.choice(part, 5), 1)
        values = [[plain_uar(w, x, times[who[w]]) for w in rows] for x in (said, frozen)]
        draws["apart"].append(values[0][1] - values[0][0])
        draws["more"].append(abs(values[0][1] - values[0][0]) - abs(values[1][1] - values[1][0]))
    plain = {name: np.quantile(of, [0.025, 0.975]) for name, of in draws.items() if of}
    assert found[Quantity("uar best minus worst")].interval == pytest.approx(
        plain["apart"], abs=0.01
    )
    assert more[Quantity("uar gap")].interval == pytest.approx(plain["more"], abs=0.01)
    assert by_group.numbers([own], None, parts)[1] == {}


def test_what_groups_are_compared_by_is_over_the_classes_that_all_hold() -> None:
    who, group = np.arange(20) % 4, np.arange(20) % 2
    truth = np.where(group == 0, np.arange(20) // 2 % 2, np.arange(20) // 2 % 3)
    said = np.where(truth == 2, 0, truth)  # class c, which group 0 lacks, is always missed
    made = by_group.class_tallies(who, group, truth, said, CLASSES, (4, 2))
    found, _ = by_group.numbers([made], None, [[0, 2], [1, 3]])
    assert found[Quantity("uar", 0)].value == 1 and found[Quantity("uar", 1)].value < 0.7
    assert found[Quantity("uar gap")].value == 0
    assert math.isnan(found[Quantity("recall", 0, "c")].value)
    assert by_group.lacking(made).tolist() == [[False, False, True], [False] * 3]


def test_ratings_are_those_of_all_folds_and_the_mean_over_seeds() -> None:
    rng = np.random.default_rng(2)
    rows = 120
    who, seeds = np.arange(rows) % 8, np.arange(rows) // 60
    truth = rng.normal(50, 1, rows)
    said = truth + rng.normal(1, 1, rows)
    truth[:5] = np.nan
    made = by_group.rating_tallies(who, who % 2, seeds, truth, said, "valence", (8, 2))
    found, _ = by_group.numbers([made], None, [[0, 2, 4, 6], [1, 3, 5, 7]])
    for g in range(2):
        each = [dimension_metrics(truth[w], said[w])["ccc"]
                for w in ((who % 2 == g) & (seeds == s) for s in range(2))]  # fmt: skip
        number = found[Quantity("ccc", g, "valence")]
        assert number.value == pytest.approx(np.mean(each), rel=1e-9)
        assert number.interval is not None and number.interval[0] < number.value
    values = [found[Quantity("ccc", g, "valence")].value for g in range(2)]
    assert found[Quantity("ccc gap", None, "valence")].value == pytest.approx(np.ptp(values))
    none = by_group.rating_tallies(who, who % 2, seeds, truth * np.nan, said, "v", (8, 2))
    nothing, _ = by_group.numbers([none], None, [[0, 2, 4, 6], [1, 3, 5, 7]])
    assert all(math.isnan(n.value) and n.interval is None for n in nothing.values())


def test_chance_is_that_of_every_way_to_deal_speakers() -> None:
    """Six speakers, three in each group: 20 ways."""
    rng = np.random.default_rng(4)
    who = np.arange(90) % 6
    truth = rng.integers(0, 3, 90)
    said = np.where(rng.random(90) < 0.3 + 0.1 * who, truth, rng.integers(0, 3, 90))
    group = (who >= 3).astype(int)
    made = by_group.class_tallies(who, group, truth, said, CLASSES, (6, 2))
    found, _ = by_group.numbers([made], None, by_group.strata(who, group, 6))
    every = {}
    for chosen in itertools.combinations(range(6), 3):
        counts = confusion(np.isin(who, chosen).astype(int), truth, said, 2)
        uars = [np.mean(np.diag(c) / c.sum(1)) for c in counts]
        ratio = min(fairness.demographic_parity_ratio(counts))
        every[chosen] = np.ptp(uars), fairness.peft_ser_statistical_parity(counts), ratio
    names = ("uar gap", "statistical parity (PEFT-SER)", "demographic parity ratio")
    for i, name in enumerate(names):
        values, value = np.array([of[i] for of in every.values()]), found[Quantity(name)].value
        chance = by_group.by_chance(made, found)[Quantity(name)]
        assert chance.mean == pytest.approx(values.mean(), rel=0.05)
        far = values <= value + 1e-12 if name in fairness.RATIOS else values >= value - 1e-12
        assert chance.p == pytest.approx(far.mean(), abs=0.03)
    both = by_group.class_tallies(who, truth % 2, truth, said, CLASSES, (6, 2))
    assert by_group.by_chance(both, by_group.numbers([both], None, [range(6)])[0]) == {}


def test_speakers_are_drawn_within_their_groups_unless_one_would_be_alone() -> None:
    assert by_group.strata(np.array([0, 1, 2, 3, 0]), np.array([0, 0, 1, 1, 0]), 4) == [
        [0, 1],
        [2, 3],
    ]
    mixed = np.array([0, 1, 2, 3, 0, 1]), np.array([0, 0, 1, 1, 1, 1])
    assert by_group.strata(*mixed, 4) == [[0, 1], [2, 3]]  # who is in both is drawn apart
    alone = np.array([0, 1, 2, 3, 0]), np.array([0, 0, 1, 1, 1])
    assert by_group.strata(*alone, 4) == [[0, 1, 2, 3]]


def test_the_best_and_the_worst_are_two_groups_where_there_are_two() -> None:
    assert by_group.farthest(np.array([0.2, 0.9, 0.1])) == (1, 2)
    assert by_group.farthest(np.array([0.5, 0.5])) == (0, 1)
    assert by_group.farthest(np.array([np.nan, 0.5, np.nan])) == (1, 1)
    assert by_group.farthest(np.array([np.nan, np.nan])) == (0, 0)


def test_the_verdict() -> None:
    assert by_group.verdict(Number(0.1, (0.01, 0.2))) == "widens"
    assert by_group.verdict(Number(-0.1, (-0.2, -0.01))) == "narrows"
    assert by_group.verdict(Number(0.1, (-0.01, 0.2))) == "cannot be told"
    assert by_group.verdict(Number(0.1, None)) == "cannot be told"
    assert by_group.verdict(Number(0.1, (0.01, 0.2)), ratio=True) == "narrows"
