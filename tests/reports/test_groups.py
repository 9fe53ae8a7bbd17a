"""Groups of hand-made runs, where every number can be worked out, and the command's answers."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from emopeft.commands.door import main as door
from emopeft.downstream.measures.by_group import Quantity
from emopeft.downstream.measures.dimensions import dimension_metrics
from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.reports.group_numbers import compare, of_speakers
from emopeft.downstream.reports.group_runs import OneRun, Runs, parts_of
from emopeft.downstream.reports.grouping import (
    clips_of,
    groupings,
)
from emopeft.downstream.reports.groups import gather_groups, groups_sections
from emopeft.downstream.reports.sections import terminal
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.group import SexTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.tasks.votes import MultiTask, SoftTask
from emopeft.errors import UserError
from tests.records.cases import CLASSES, FOLDS
from tests.records.cases_v1 import make_record_v1
from tests.reports.group_cases import (
    PEOPLE,
    by_sex,
    find,
    make,
    make_other_plan,
    probe,
    table,
    unfair,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("pair")
    return make(place / "probe", probe, "none"), make(place / "adapted", unfair)


# ---- does it widen the gap? -------------------------------------------------------------------


def test_an_adapted_model_that_serves_women_better_widens_the_probes_gap(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: the probe has 6 of 8 right of everybody. Adapted, all of women's clips, and of men's
    4, of every second 5: recalls of 1/2, or 1 in the first class."""
    assert door(["groups", *map(str, pair), "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if "UAR % gap  lora" in line)
    assert " ".join(line.split()).startswith("sex UAR % gap lora 0.00 ")
    assert " for female " in line and line.endswith("widens")
    rows = table(tmp_path)
    female = find(rows, run="lora", group="female", measure="uar")
    assert (female["clips"], female["speakers"], float(female["value"])) == ("56", "7", 1.0)
    male = float(find(rows, run="lora", group="male", measure="uar")["value"])
    assert male == pytest.approx((0.5 * 3 + (0.5 + 0.5 * 4 / 7)) / 4)
    gap = find(rows, run="lora", measure="uar gap")
    assert float(gap["value"]) == pytest.approx(1 - male) and gap["low"] == ""
    assert gap["verdict"] == "widens" and gap["base"] == "none"
    assert float(gap["more"]) == pytest.approx(1 - male)
    assert 0 < float(gap["more_low"]) <= float(gap["more"]) <= float(gap["more_high"])
    assert float(gap["p"]) < 0.01
    apart = find(rows, run="lora", measure="uar best minus worst")
    assert 0 < float(apart["low"]) < float(apart["value"])
    back = gather_groups(pair[::-1], base=pair[1])  # and the other way round
    assert "narrows" in terminal(groups_sections(back))
    for file in ("groups.md", "groups-sex.svg", "groups-gap.svg"):
        assert (tmp_path / file).stat().st_size > 500


def test_two_runs_alike_cannot_be_told_apart(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """The gap of each is far from 0, and the same."""
    make(tmp_path / "probe", unfair, "none")
    shown = terminal(groups_sections(gather_groups([tmp_path / "probe", pair[1]])))
    assert "+0.00 [+0.00, +0.00]  cannot be told" in shown and "widens" not in shown


def test_a_probe_of_another_encoder_or_other_folds_is_none(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    other = make(tmp_path / "other", probe, "none", upstream="wavlm_base")
    shown = terminal(groups_sections(gather_groups([other, pair[1]])))
    assert "no run has a frozen encoder" in shown.lower() and "widen" not in shown
    part = make(tmp_path / "part", probe, "none", folds=FOLDS[:2])
    shown = terminal(groups_sections(gather_groups([part, pair[1]])))
    assert "Not compared with none: lora, which has not the same folds" in shown
    assert "Incomplete: none lacks 1 of its folds and seeds." in shown


def test_every_uar_is_that_of_the_predictions_of_all_folds_and_seeds(tmp_path: Path) -> None:
    """By scikit-learn, from predictions.csv, seed by seed."""
    run = make(tmp_path / "run", lambda who: 3 + who % 5, seeds=(0, 1))
    assert door(["groups", str(run), "--out", str(tmp_path / "out")]) == 0
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    written = table(tmp_path / "out")
    for trait, value in (("sex", "female"), ("sex", "male"), ("speaker", "toy/s03")):
        each = []
        for seed in "01":
            own = [r for r in rows if r[trait] == value and r["seed"] == seed]
            each.append(
                balanced_accuracy_score([r["truth"] for r in own], [r["prediction"] for r in own])
            )
        mine = find(written, grouping=trait, group=value, measure="uar")
        assert float(mine["value"]) == pytest.approx(sum(each) / 2) and each[0] != each[1]


# ---- what is asked wrongly --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--by", "sexx"], "unknown trait of the tested clips 'sexx': did you mean sex"),
        (["--by", "sex,,age"], "a name is empty"),
        (["--least", "1"], "one speaker has no spread"),
        (["--bands", "age=45,30"], "rising"),
        (["--bands", "age"], "expected TRAIT=NUMBER"),
        (["--bands", "age=nan"], "expected TRAIT=NUMBER"),
        (["--bands", "sex=1,2"], "its values are no numbers"),
        (["--bands", "height=1,2"], "unknown trait of the tested clips 'height'"),
        (["--bands", "age=1", "--bands", "AGE=2"], "names age twice"),
        (["--test", "tset"], "unknown test of these runs 'tset': did you mean test"),
        (["--base", "nowhere"], "nowhere"),
        (["nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    flags: list[str], words: str, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert door(["groups", str(pair[1]), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_runs_that_are_not_believed_or_of_other_plans(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(pair[1], changed)
    text = (changed / "predictions.csv").read_text()
    (changed / "predictions.csv").write_text(text.replace("female", "male"))
    with pytest.raises(UserError, match="is not what its folds give"):
        gather_groups([changed])
    other = make(
        tmp_path / "other", probe, traits=lambda who, n: {}, plan={"protocol": "toy-other"}
    )
    with pytest.raises(UserError, match="of another plan"):
        gather_groups([pair[0], make_other_plan(tmp_path / "another")])
    shown = terminal(groups_sections(gather_groups([other])))
    assert "No trait makes several groups" in shown and "By speaker" in shown


def test_an_old_record_has_no_traits(tmp_path: Path) -> None:
    make_record_v1(tmp_path / "old")
    with pytest.raises(UserError, match="old is an old record, which has no traits"):
        gather_groups([tmp_path / "old"])


def test_what_each_task_is_counted_by() -> None:
    """All parts with a truth and a prediction, but none that only helps another."""
    scales = {"valence": (1.0, 5.0), "arousal": (1.0, 5.0)}
    joint = JointTask([EmotionTask(CLASSES), DimensionalTask(scales), SexTask(["f", "m"])])
    assert [(p.title, p.truth, p.main) for p in parts_of(joint)] == [
        ("emotion", "emotion.truth", "uar"),
        ("dimensional valence", "dimensional.truth_valence", "ccc"),
        ("dimensional arousal", "dimensional.truth_arousal", "ccc"),
    ]
    assert parts_of(joint)[2].prediction == "dimensional.prediction_arousal"
    assert [p.title for p in parts_of(DimensionalTask(scales))] == ["valence", "arousal"]
    assert [p.classes for p in parts_of(SoftTask(CLASSES))] == [CLASSES]
    assert [p.classes for p in parts_of(SexTask(["f", "m"]))] == [("f", "m")]
    assert parts_of(MultiTask(CLASSES)) == []


def test_ratings_and_labels_that_are_missing_do_not_count() -> None:
    """A group is as large as those of its speakers whom a part of the task knows something of."""
    rng = np.random.default_rng(0)
    rows = [
        Prediction(
            f"toy/s{who}_{n}", "1", 0, "test", f"toy/s{who}", by_sex(who, n),
            {"emotion.truth": "sad" if who < 8 else "", "emotion.prediction": "sad",
             "dimensional.truth_valence": math.nan if who in (0, 2, 4) else 1 + n / 2,
             "dimensional.prediction_valence": 1 + n / 2 + rng.normal() * (who % 2)},
        )
        for who in range(PEOPLE) for n in range(8)
    ]  # fmt: skip
    task = JointTask([EmotionTask(("sad", "happy")), DimensionalTask({"valence": (1.0, 5.0)})])
    run = OneRun("lora", Path("run"), {}, rows, 0)
    runs = Runs(task, "test", {}, [run], {}, 0, ())
    grouping = groupings(clips_of([rows], ["toy"]), ["sex"])[0][0]
    emotion, valence = (compare(runs, part, grouping)[0] for part in runs.parts)
    assert (emotion.speakers, emotion.kept, emotion.numbers) == ([4, 4], [], {})
    assert (valence.speakers, valence.clips, valence.kept) == ([4, 7], [32, 56], [1])
    valence = compare(runs, runs.parts[1], grouping, least=4)[0]
    male = [r.values for r in rows if r.traits["sex"] == "male"]
    whole = dimension_metrics(
        [v["dimensional.truth_valence"] for v in male],
        [v["dimensional.prediction_valence"] for v in male],
    )
    assert valence.numbers[Quantity("ccc", 0, "valence")].value == pytest.approx(1.0)
    assert valence.numbers[Quantity("ccc", 1, "valence")].value == pytest.approx(whole["ccc"])
    assert valence.pairs == {"ccc": (0, 1)}
    speakers = of_speakers(runs.parts[1], run)
    assert len(speakers) == PEOPLE - 3 and speakers["toy/s6"] == pytest.approx(1.0)


def test_one_group_and_one_speaker(tmp_path: Path) -> None:
    """SAVEE has men only; some corpora one speaker."""
    run = make(tmp_path / "run", probe, traits=lambda who, n: {"sex": "male"})
    shown = terminal(groups_sections(gather_groups([run], by=["sex"])))
    assert "All clips are of one sex (male): there is nothing to compare." in shown
    alone = make_other_plan(tmp_path / "alone")  # a speaker in each fold
    shown = terminal(groups_sections(gather_groups([alone])))
    assert "too few" in shown
