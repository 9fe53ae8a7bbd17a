"""Which clips make a group: traits as corpora have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopeft.commands.door import main as door
from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.records.record import write_record
from emopeft.downstream.reports.grouping import (
    BANDS,
    Clip,
    band_names,
    bands_of,
    clips_of,
    group_by,
    groupings,
    value_of,
)
from emopeft.downstream.reports.groups import gather_groups, groups_sections
from emopeft.downstream.reports.sections import terminal
from tests.records.cases import FOLDS, make_fold, plan_rows
from tests.reports.group_cases import PEOPLE, TOY, by_sex, find, make, probe, rows_of, table, unfair


def many(who: int, number: int) -> dict[str, str]:
    """What corpora tell: spelt in two ways, unknown, varying, in numbers, of recordings."""
    return {
        "sex": ("male", "M")[number % 2] if who % 2 else ("female", "F", "Woman")[number % 3],
        "age": ("17", "18", "29.5", "30", "44", "61", "old")[who % 7],
        "race": "" if who == 0 else "unknown" if who == 1 else ("a", "b")[number % 2 and who == 2],
        "style": "acted" if number < 4 else "natural",
        "podcast": f"p{who}_{number}",
        "=cmd|x": "one" if who < 7 else "<b>two\u202e</b>",
    }


def test_traits_as_corpora_have_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "run", lambda who: 3 + who % 5, traits=many)
    assert door(["groups", str(run), "--least", "2", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    rows = table(tmp_path / "out")
    names = {t: [r["group"] for r in rows if r["grouping"] == t and r["measure"] == "uar"]
             for t in ("sex", "age", "style", "race", "'=cmd|x")}  # fmt: skip
    assert names["sex"] == ["female", "male"]
    assert names["age"] == ["under 18", "18–29", "30–44", "60 or more"]
    assert find(rows, grouping="age", group="18–29", measure="uar")["speakers"] == "4"
    assert "No age in numbers, so not known: old." in shown
    assert names["race"] == []  # b is of one speaker, who is in both groups
    assert names["style"] == ["acted", "natural"]
    assert "14 of 14 speakers have clips in several groups" in shown
    assert "Left out: podcast, which makes 112 groups; --by podcast shows it." in shown
    assert names["'=cmd|x"] == ["<b>two </b>", "one"] and "\u202e" not in shown
    style = find(rows, grouping="style", measure="uar gap")
    assert style["p"] == "" and style["value"]  # speakers cannot be dealt to recordings
    shown = terminal(groups_sections(gather_groups([run], by=["Race"])))
    assert "All clips are of one race (a): there is nothing to compare." in shown
    assert "Left out, as their race varies: toy/s02." in shown
    assert "Left out, as their race is not known: 16 of 112 clips." in shown


def test_groups_of_few_speakers_have_no_number(tmp_path: Path) -> None:
    traits = {0: "x", 3: "x", 6: "x", 9: "x"}
    run = make(tmp_path / "run", unfair, traits=lambda who, n: {"accent": traits.get(who, "y")})
    sections = groups_sections(gather_groups([run]))
    text = terminal(sections)
    assert "too few" in text and "best – worst" not in text
    row = next(line for line in text.splitlines() if line.startswith("x "))
    assert row.split()[:4] == ["x", "lora", "32", "4"] and row.count("too few") == 2
    assert "best – worst" in terminal(groups_sections(gather_groups([run], least=4)))


def test_unknown_speakers_are_left_out_and_told(tmp_path: Path) -> None:
    """Of these, nobody can say how many they are."""
    every = {fold: rows_of(fold, probe, 0, by_sex) for fold in FOLDS}
    for fold in FOLDS:
        rows = every[fold]
        every[fold] = [
            Prediction(r.id, r.fold, r.seed, r.test, "", r.traits, r.values) if i < 2 else r
            for i, r in enumerate(rows)
        ]
    planned = {fold: plan_rows(fold, tests={"test": rows}) for fold, rows in every.items()}
    for fold in FOLDS:
        make_fold(tmp_path / "run", fold, rows=every[fold], planned=planned,
                  plan={"unknown_speakers": True}, corpora=TOY)  # fmt: skip
    write_record(tmp_path / "run")
    groups = gather_groups([tmp_path / "run"])
    assert groups.runs.unknown == 6
    assert "6 clips of unknown speakers are left out." in terminal(groups_sections(groups))
    assert sum(groups.compared[0].measured[0].clips) == PEOPLE * 8 - 6


def test_values_and_bands() -> None:
    assert [value_of("sex", v) for v in ("F", " Female", "f.", "woman", "M", "boy", "?")] == [
        "female", "female", "female", "female", "male", "male", ""
    ]  # fmt: skip
    assert value_of("race", "African_ American") == "african american"
    assert value_of("race", "Not known") == "" and value_of("race", "f") == "f"
    assert band_names([18, 30, 60]) == ["under 18", "18–29", "30–59", "60 or more"]
    assert band_names([0.5, 1]) == ["under 0.5", "0.5 to under 1", "1 or more"]
    assert bands_of(["Age=30,45", "snr=-5"]) == {"age": (30, 45), "snr": (-5,)}
    clips = {
        str(i): Clip(f"s{i}", {"age": v}) for i, v in enumerate(["12", "-1", "nan", "300", "18"])
    }
    grouping = group_by("age", clips)
    assert grouping.names == ("under 18", "18–29") and set(grouping.of) == {"0", "4"}
    words = {str(i): Clip(f"s{i}", {"age": v}) for i, v in enumerate(["Young", "old", "young"])}
    assert group_by("age", words).names == ("old", "young")
    assert groupings(words, bands=BANDS)[0][0].of == {"0": 1, "1": 0, "2": 1}


def test_a_corpus_says_its_language() -> None:
    """Two corpora in a pool, known here; a trait of the clip goes first."""
    rows = [
        Prediction(uid, "1", 0, "test", "s", traits, {})
        for uid, traits in (
            ("ravdess/1", {}), ("emodb/1", {}), ("esd/1", {"language": "Mandarin"}), ("toy/1", {})
        )
    ]  # fmt: skip
    clips = clips_of([rows], ["ravdess", "emodb", "esd", "toy"])
    assert [group_by("language", clips).names] == [("english", "german", "mandarin")]
    assert group_by("corpus", clips).names == ("emodb", "esd", "ravdess", "toy")
