"""Default folds of a manifest: speakers and classes in every part, not clip counts alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.protocols.rules import balanced
from tests.protocols.cases import SHIPPED, plan_of, sides, utterance


def corpus_of(table: dict[str, dict[str, int]]) -> list[Utterance]:
    """Speaker -> class -> how many."""
    return [
        utterance(f"{speaker}-{label}{i}", speaker, label)
        for speaker, labels in table.items()
        for label, number in labels.items()
        for i in range(number)
    ]


def uneven() -> list[Utterance]:
    """29 speakers, one of whom says half of all, in two of the four emotions."""
    table = {"star": {"neutral": 150, "happy": 100}}
    for s in range(28):
        labels = ("neutral", "happy") if s % 3 else ("sad", "angry")
        table[f"s{s:02d}"] = dict.fromkeys(labels, 3 + s % 4)
    return corpus_of(table)


def parts(plan: Plan) -> list[tuple[int, str, list[Utterance]]]:
    return [(i, part, us) for i in range(len(plan.folds)) for part, us in sides(plan, i).items()]


def test_no_fold_tests_one_speaker_or_half_of_the_classes():
    """REVIEW A16: one fold tested a single speaker and two of four classes."""
    plan = plan_of(SHIPPED["manifest-speakers"], uneven())
    plan.check_leaks()
    for _, part, found in parts(plan):
        assert {u.emotion for u in found} == {"neutral", "happy", "sad", "angry"}
        assert len({u.speaker for u in found}) >= (15 if part == "train" else 5)
    assert plan.warnings == ()
    tested = [len({u.speaker for u in found}) for _, part, found in parts(plan) if part == "test"]
    assert sorted(tested) == [5, 6, 6, 6, 6]
    everyone = sorted(u.id for _, part, found in parts(plan) if part == "test" for u in found)
    assert everyone == sorted(u.id for u in uneven())


def test_the_same_data_give_the_same_folds():
    shuffled = uneven()
    random.Random(0).shuffle(shuffled)
    protocol = SHIPPED["manifest-speakers"]
    assert plan_of(protocol, shuffled).hash == plan_of(protocol, uneven()).hash


def test_a_rare_class_is_trained_on_in_every_fold():
    """REVIEW A16: two groups that have it must not be test and dev of one fold."""
    table = {f"s{s:02d}": {"sad": 5, "happy": 5} for s in range(20)}
    for rare in ("s03", "s04"):
        table[rare]["afraid"] = 5
    plan = plan_of(SHIPPED["manifest-speakers"], corpus_of(table))  # else it is an error
    trained = [{u.emotion for u in found} for _, part, found in parts(plan) if part == "train"]
    assert all("afraid" in found for found in trained)
    assert len(plan.warnings) == 6  # three dev and three test parts are without it
    assert all("no utterance of afraid" in warning for warning in plan.warnings)


def test_classes_change_places_where_that_helps():
    # By size alone, a and b, who alone have the class x, come into one group.
    sizes = {
        "a": {"x": 10, "y": 1}, "b": {"x": 10, "y": 1}, "c": {"y": 30}, "d": {"y": 30},
        "e": {"y": 2}, "f": {"y": 2},
    }  # fmt: skip
    groups = balanced({k: Counter(v) for k, v in sizes.items()}, 2)
    assert [len({"a", "b"} & set(group)) for group in groups] == [1, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=3),
        st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(1, 40), min_size=1),
        min_size=11,
        max_size=40,
    )
)
def test_every_speaker_is_tested_once_with_others(table):
    """REVIEW A16: whatever the sizes, each group has its share of speakers."""
    groups = balanced({name: Counter(sizes) for name, sizes in table.items()}, 5)
    assert sorted(name for group in groups for name in group) == sorted(table)
    numbers = [len(group) for group in groups]
    assert max(numbers) - min(numbers) <= 1 and min(numbers) >= 2


@pytest.mark.parametrize(("speakers", "folds"), [(3, 3), (10, 10), (11, 5), (200, 5)])
def test_how_many_folds(speakers, folds):
    table = {f"s{s:03d}": {"sad": 1 + s % 3, "happy": 2} for s in range(speakers)}
    plan = plan_of(SHIPPED["manifest-speakers"], corpus_of(table))
    assert len(plan.folds) == folds
    sizes = [len(found) for _, part, found in parts(plan) if part == "test"]
    assert max(sizes) - min(sizes) <= 5  # the most one speaker has
