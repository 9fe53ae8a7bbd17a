"""What conditions cost finished runs: numbers by hand, by audmetric and by plain enumeration."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emopeft.commands.door import main as door
from emopeft.downstream.records import conditions as files
from emopeft.downstream.records.predictions import Prediction, table_of
from emopeft.downstream.reports.condition_families import families_of
from emopeft.downstream.reports.condition_numbers import (
    Number,
    cells_of,
    statistic_of,
    sums_of,
    verdict,
)
from emopeft.downstream.reports.condition_runs import Runs, read_runs
from emopeft.downstream.reports.conditions import conditions_sections, gather_conditions
from emopeft.downstream.reports.sections import Picture, terminal
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.downstream.views.base import parse_view
from emopeft.errors import UserError
from tests.records.cases import CLASSES, FOLDS, make_record
from tests.records.condition_cases import add_conditions, give_checkpoint

PHONE, LOUD, SOFT = "telephone", "noise:snr=0", "noise:snr=20"
# Correct clips of eight, per fold: 8, 6, 4 are a UAR of 1, .75, .5.
CLEAN = (8, 6, 4)


def run(
    place: Path, method: str = "none", clean: Sequence[int] = CLEAN, **views: Sequence[int]
) -> Path:
    """A run of three folds, one speaker each, with how many clips are right in each view."""
    make_record(place, clean, method=method)
    named = {name.replace("_", ":", 1).replace("_", "="): of for name, of in views.items()}
    for i, fold in enumerate(FOLDS):
        add_conditions(place, fold, {name: of[i] for name, of in named.items()})
    return place


@pytest.fixture
def none(tmp_path: Path) -> Path:
    return run(tmp_path / "none", telephone=(6, 6, 4), noise_snr_0=(2, 2, 2), noise_snr_20=CLEAN)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return run(
        tmp_path / "lora", "lora", (8, 8, 6),
        telephone=(4, 4, 4), noise_snr_0=(4, 2, 4), noise_snr_20=(8, 8, 4),
    )  # fmt: skip


def uars(right: Sequence[int]) -> np.ndarray:
    """Of each fold: the first so many of eight are right, two of each class in turn."""
    return np.array([of / 8 for of in right])


def ends(values: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile over all 27 equally likely draws of three speakers, who are
    a fold each."""
    drawn = [np.mean(values[list(d)]) for d in itertools.product(range(3), repeat=3)]
    return min(drawn), max(drawn)  # each has a chance of 1 in 27, which is more than 2.5 %


def test_every_number_by_hand(none: Path, lora: Path) -> None:
    found = gather_conditions([none, lora])
    assert found.names == [PHONE, LOUD, SOFT] and list(found.runs.base.items()) == [(1, 0)]
    of = {"none": [CLEAN, (6, 6, 4), (2, 2, 2), CLEAN],
          "lora": [(8, 8, 6), (4, 4, 4), (4, 2, 4), (8, 8, 4)]}  # fmt: skip
    for place, cells in enumerate(found.cells):
        clean, base = uars(list(of.values())[place][0]), uars(of["none"][0])
        for name, right, other in zip(
            ("clean", PHONE, LOUD, SOFT), list(of.values())[place], of["none"], strict=True
        ):
            here, there, cell = uars(right), uars(other), cells[name]
            wanted: dict[str, Any] = {"level": here, "drop": clean - here}
            wanted |= {"gain": here - there, "more": clean - here - (base - there)}
            for what, values in wanted.items():
                number = getattr(cell, what)
                if (what in ("gain", "more") and place == 0) or (
                    what in ("drop", "more") and name == "clean"
                ):
                    assert number is None
                    continue
                assert number.value == pytest.approx(values.mean(), abs=1e-12)
                assert number.interval == pytest.approx(ends(values), abs=1e-12)
    assert found.cells[0]["clean"].summary == {
        "mean": 0.75, "std": pytest.approx(0.25), "n": 3, "seed_std": None
    }  # fmt: skip


def test_what_is_shown(none: Path, lora: Path, tmp_path: Path) -> None:
    sections = conditions_sections(gather_conditions([none, lora]))
    shown = " ".join(terminal(sections).split())
    for line in (
        "clean 75.00 ± 25.00 91.67 ± 14.43",
        "telephone 66.67 ± 14.43 50.00 ± 0.00",
        "telephone 8.33 [0.00, 25.00] 41.67 [25.00, 50.00]",
        "noise:snr=20 0.00 [0.00, 0.00] 8.33 [0.00, 25.00]",
        "clean 16.67 [0.00, 25.00] – –",
        "telephone -16.67 [-25.00, 0.00] 33.33 [25.00, 50.00] less robust",
        "noise:snr=0 16.67 [0.00, 25.00] 0.00 [-25.00, 25.00] cannot be told",
        "There are 3 speakers: intervals of so few are too narrow. Guessing: UAR % 25.00.",
    ):
        assert line in shown, line
    pictures = [part for section in sections for part in section.parts if isinstance(part, Picture)]
    assert [p.name for p in pictures] == ["conditions-noise", "conditions-drop", "conditions-more"]
    for picture in pictures:
        picture.draw(tmp_path / f"{picture.name}.svg")
        drawn = (tmp_path / f"{picture.name}.svg").read_text()
        assert "lora" in drawn and (">clean<" in drawn) == (picture.name == "conditions-noise")


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.01, 0.2), "less robust"), ((-0.2, -0.01), "more robust"), (None, "nobody can tell"),
        ((0.0, 0.2), "cannot be told"), ((-0.2, 0.0), "cannot be told"),
    ],
)  # fmt: skip
def test_an_interval_that_touches_nothing_says_nothing(interval: Any, said: str) -> None:
    assert verdict(Number(0.1, interval)) == said


def test_the_command_writes_every_number(
    none: Path, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert door(["conditions", str(lora), "--base", str(none), "--out", str(out)]) == 0
    capsys.readouterr()
    with (out / "conditions.csv").open(newline="") as file:
        rows = {(r["run"], r["condition"]): r for r in csv.DictReader(file)}
    assert len(rows) == 8
    row = rows["lora", PHONE]
    assert (row["compared_with"], row["metric"], row["folds"]) == ("none", "uar", "3")
    numbers = [float(row[name + end]) for name in ("drop", "more") for end in ("", "_low", "_high")]
    assert numbers == pytest.approx([5 / 12, 0.25, 0.5, 1 / 3, 0.25, 0.5])
    assert rows["none", "clean"]["drop"] == rows["none", PHONE]["gain"] == ""
    assert "![" in (out / "conditions.md").read_text() and (out / "conditions-drop.svg").exists()


# ---- what is missing, old or of something else --------------------------------------------------


def notes(*places: Path, base: Path | None = None) -> str:
    return "\n".join(gather_conditions(places, base).notes)


def test_what_a_run_lacks_has_a_command(tmp_path: Path, none: Path) -> None:
    bare = tmp_path / "my lora"
    make_record(bare, method="lora")
    found = gather_conditions([none, bare])
    assert set(found.cells[1]) == {"clean"} and found.names == [PHONE, LOUD, SOFT]
    (note,) = found.notes
    assert note == (
        "lora was not tested, or not in every fold, in telephone, noise:snr=0, noise:snr=20: "
        f"emopeft evaluate '{bare}' --conditions 'telephone|noise:snr=0|noise:snr=20'"
    )
    assert "lora was not tested" in terminal(conditions_sections(found))


def test_a_condition_that_a_fold_lacks_is_left_out(none: Path) -> None:
    add_conditions(none, "2", {PHONE: 6})
    found = gather_conditions([none])
    assert found.names == [PHONE] and set(found.cells[0]) == {"clean", PHONE}
    assert "not in every fold, in noise:snr=0, noise:snr=20" in notes(none)


def test_without_any_condition_there_is_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_record(tmp_path / "bare")
    assert door(["conditions", str(tmp_path / "bare")]) == 2
    wanted = (
        f"was not tested in any condition yet: emopeft evaluate {tmp_path / 'bare'} --condition"
    )
    assert wanted in capsys.readouterr().err
    (section,) = conditions_sections(gather_conditions([tmp_path / "bare"]))
    assert wanted in str(section.parts)


def test_another_checkpoint_is_noticed(none: Path) -> None:
    folder = none / "fold1_seed0"
    digest = give_checkpoint(folder)
    assert "has changed since it was tested in telephone, noise:snr=0" in notes(none)
    add_conditions(none, "1", {PHONE: 6, LOUD: 2, SOFT: 8}, checkpoint=digest)
    assert notes(none) == ""
    for fold in FOLDS:
        give_checkpoint(none / f"fold{fold}_seed0", "others")
    assert gather_conditions([none]).names == []
    assert "has changed since it was tested in telephone, noise:snr=0" in notes(none)


@pytest.mark.parametrize(
    ("name", "value"),
    [("revision", 99), ("options", {"snr": "7", "kind": "white"}), ("library", {"numpy": "0"})],
)
def test_a_view_that_is_another_one_now_is_noticed(
    none: Path, lora: Path, name: str, value: Any
) -> None:
    for fold in FOLDS:
        path = lora / f"fold{fold}_seed0" / files.FACTS
        data = json.loads(path.read_text())
        data["conditions"][1]["transforms"][0][name] = value
        path.write_text(json.dumps(data))
    told = (
        "lora was tested by another revision of the views, or of their libraries, in noise:snr=0:"
    )
    assert told in notes(none, lora)
    found = gather_conditions([none, lora])
    assert LOUD in found.cells[0] and LOUD not in found.cells[1]
    assert (LOUD in gather_conditions([lora]).names) == (name == "library")
    if name != "library":  # whichever is named first
        (own,) = [of for of in gather_conditions([lora, none]).cells if LOUD in of]
        assert own[LOUD].level.value == pytest.approx(0.25)


def test_runs_that_cannot_be_compared(none: Path, lora: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_record(other, right=(8, 8), folds=("1", "2"))
    with pytest.raises(UserError, match="is of another plan than"):
        gather_conditions([none, other])
    with pytest.raises(UserError, match="is given twice"):
        gather_conditions([none, none])
    with pytest.raises(UserError, match="unknown test of these runs 'tset': did you mean test"):
        gather_conditions([none], test="tset")
    with pytest.raises(UserError, match="does not exist"):
        gather_conditions([tmp_path / "nowhere"])
    path = none / "result.json"
    path.write_text(path.read_text().replace("0.75", "0.76"))
    with pytest.raises(UserError, match="is not what its folds give"):
        gather_conditions([none])


def test_what_a_run_is_compared_with(none: Path, lora: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again", "none", telephone=(8, 8, 8))
    found = gather_conditions([none, lora, again], base=again)
    assert found.runs.base == {0: 2, 1: 2}
    assert [r.name for r in found.runs.runs] == ["none (none)", "lora", "none (again)"]
    assert gather_conditions([lora], base=again).runs.base == {1: 0}
    large = tmp_path / "large"
    make_record(large, method="lora", upstream="hubert_large")
    found = gather_conditions([none, large])
    assert found.runs.base == {} and "No run has a frozen encoder" in "".join(found.notes)
    assert [r.name for r in found.runs.runs] == ["hubert_base + none", "hubert_large + lora"]
    some = tmp_path / "some"
    make_record(some, method="bitfit", present=("1", "2"))
    text = notes(none, some)
    assert "bitfit is not compared with none: they have not the same folds" in text
    assert "bitfit is incomplete: 1 of its folds and seeds are missing." in text


def test_without_speakers_there_is_no_interval(
    none: Path,
) -> None:
    """Nor where a fold has but one of them: there is nobody else to draw."""
    runs = read_runs([none])
    (one,) = runs.runs

    def named(speakers: Sequence[str]) -> Runs:
        tested = {
            name: [
                (fold, [dataclasses.replace(row, speaker=who) for row in rows])
                for (fold, rows), who in zip(folds, speakers, strict=True)
            ]
            for name, folds in one.tested.items()
        }
        return dataclasses.replace(runs, runs=[dataclasses.replace(one, tested=tested)])

    for speakers, there in ((["a", "b", "c"], True), (["a", "", "c"], False), (["a"] * 3, False)):
        (cells,) = cells_of(named(speakers))
        assert cells[PHONE].drop is not None and cells[PHONE].drop.value == pytest.approx(1 / 12)
        assert (cells[PHONE].drop.interval is not None) == there


# ---- metrics that are weighted ------------------------------------------------------------------


def random_rows(task: Task, seed: int) -> list[Prediction]:
    """Clips of nine speakers in three folds and two seeds; some have no truth."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(180):
        speaker = number % 9
        values: dict[str, Any] = {}
        for column in task.columns:
            if column.classes is not None:
                values[column.name] = str(rng.choice(column.classes))
            else:
                values[column.name] = float(rng.normal(3, 1))
            if column.role == "truth" and column.missing and rng.random() < 0.2:
                values[column.name] = math.nan if column.classes is None else ""
        for run_seed in (0, 1):
            own = {
                k: v + rng.normal() if k.startswith("prediction_") else v for k, v in values.items()
            }
            rows.append(
                Prediction(
                    f"c/{number}", str(speaker // 3), run_seed, "test", f"c/{speaker}", {}, own
                )
            )
    return rows


RATED = DimensionalTask({"valence": (1.0, 5.0), "arousal": (1.0, 5.0)})
TASKS: Mapping[str, Task] = {
    "emotion": EmotionTask(CLASSES),
    "dimensional": RATED,
    "one rating": DimensionalTask({"valence": (1.0, 5.0)}),
    "joint": JointTask([EmotionTask(CLASSES), RATED]),
    "joint, by a rating": JointTask([EmotionTask(CLASSES), RATED], main="dimensional.ccc_arousal"),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_statistic_is_the_metric_of_rows_that_count_more_than_once(name: str) -> None:
    """The tasks' own measures are audmetric's and dimensions.py's, which are tested elsewhere."""
    task = TASKS[name]
    rows = random_rows(task, 1)
    speakers = sorted({row.speaker for row in rows})
    statistic = statistic_of(task, [(None, rows)], speakers)  # type: ignore[list-item]
    assert statistic is not None
    draws = np.array([[1] * 9, [2, 0, 1, 3, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0, 2, 3, 3]])
    for times, value in zip(draws, statistic(draws), strict=True):
        count = dict(zip(speakers, times.tolist(), strict=True))
        total = weight = 0.0
        for fold in "012":
            drawn = [
                [
                    r
                    for r in rows
                    if (r.fold, r.seed) == (fold, seed)
                    for _ in range(count[r.speaker])
                ]
                for seed in (0, 1)
            ]
            if not drawn[0]:
                continue
            each = [task.measure(table_of(of, task))[task.main] for of in drawn]
            share = sum(count[f"c/{3 * int(fold) + i}"] for i in range(3)) / 3
            total, weight = total + share * float(np.mean(each)), weight + share
        assert value == pytest.approx(total / weight, abs=1e-9)


def test_a_metric_that_is_no_sum_has_no_statistic() -> None:
    assert sums_of(EmotionTask(CLASSES), "macro_f1", []) is None
    assert sums_of(RATED, "rmse", []) is None


# ---- families -----------------------------------------------------------------------------------


def test_families_are_conditions_that_differ_in_one_number() -> None:
    names = ["noise:snr=5", "telephone", "noise:snr=-5", "noise:snr=5,kind=pink", "reverb",
             "noise:snr=0..10", "excerpt:seconds=1", "excerpt:seconds=2+telephone"]  # fmt: skip
    said = {
        name: [files.AppliedFacts.model_validate(t) for t in parse_view(name).described]
        for name in names
    }
    found = families_of(said)
    assert [(f.title, f.file, dict(f.places)) for f in found] == [
        ("noise", "noise", {5.0: "noise:snr=5", -5.0: "noise:snr=-5"}),
        ("noise (kind=pink)", "noise-kind=pink", {5.0: "noise:snr=5,kind=pink"}),
        ("reverb", "reverb", {0.6: "reverb"}),
        ("excerpt", "excerpt", {1.0: "excerpt:seconds=1"}),
    ]
    assert found[0].axis == "signal-to-noise ratio, dB"
