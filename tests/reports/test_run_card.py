"""The card of a run: every part, or why it is not there; what a reader should know first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emopeft.commands.door import main as door
from emopeft.downstream.reports.run_card import UNTESTED, run_card
from emopeft.downstream.reports.sections import Grid, Section, terminal
from emopeft.errors import UserError
from tests.calls import demo_run, read
from tests.records.cases import FOLDS, make_record


@pytest.fixture(scope="module")
def runs(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen probe and LoRA of one fold, both tested in one condition."""
    out = tmp_path_factory.mktemp("runs")
    for method in ("none", "lora"):
        assert demo_run(demo_corpus, out, method=method, name=method) == 0
        run = [str(out / method), "--data", str(demo_corpus)]
        assert door(["evaluate", *run, "--conditions", "excerpt:seconds=1"]) == 0
    return out


def titles(sections: list[Section]) -> list[str]:
    return [section.title for section in sections]


def test_a_card_holds_every_part(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs / "card"
    assert door(["card", str(runs / "lora"), "--base", str(runs / "none"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    page, text = (out / "card.html").read_text(), (out / "card.md").read_text()
    record = read(runs / "lora" / "result.json")
    reached = 100 * record["summary"]["test"]["uar"]["mean"]
    for held in (shown, page, text):
        assert f"UAR %: {reached:.2f}" in held and "guessing: 25.00" in held
        assert "Found most often: " in held and "Against the frozen probe: " in held
        assert "excerpt:seconds=1 costs most" in held or "excerpt:seconds=1" in held
    for title in ("What it is", "Where it fails", "What is taken for what", "For whom",
                  "Under what", "How sure", "How fast"):  # fmt: skip
        assert f">{title}</a>" in page and f"\n## {title}\n" in text
    assert "Not here" not in page
    assert page.count("data:image/svg+xml;base64,") == text.count(".svg)") > 3
    assert 'src="http' not in page and str(runs) not in page and str(runs) not in text


def test_without_a_base_conditions_and_time_it_says_so(runs: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(runs / "lora", alone)
    for path in alone.glob("fold*/conditions.*"):
        path.unlink()
    card = run_card(alone)
    assert not any(sentence.startswith("Against") for sentence in card.glance)
    (under,) = [s for s in card.sections if s.title == "Under what"]
    assert under.parts == [UNTESTED]
    assert "How fast" not in titles(card.sections)

    def broken() -> list[Section]:
        raise UserError("the weights have moved; give --upstream-path")

    (fast,) = [s for s in run_card(alone, delay=broken).sections if s.title == "How fast"]
    assert fast.parts == ["Not here: the weights have moved; give --upstream-path."]


def test_numbers_that_can_be_worked_out_by_hand(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_record(run)
    card = run_card(run)
    text = terminal(card.sections)
    folds = len(FOLDS)
    assert f"over {folds} folds; guessing: 25.00" in card.glance[0]
    (what,) = [s for s in card.sections if s.title == "What it is"]
    facts = {row[0]: row[1] for part in what.parts if isinstance(part, Grid) for row in part.rows}
    assert facts["folds and seeds"] == f"{folds} folds, seeds 0"
    assert "no speaker and no recording on two sides" in facts["audit"]
    assert "For whom" in text and "How sure" in text


def test_a_run_that_is_not_believed_has_no_card(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(runs / "none", changed)
    place = changed / "fold1_seed0" / "predictions.csv"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join([*lines[:1], *lines[2:]]))
    for wrong, words in ((changed, "where the plan has"), (tmp_path / "no", "no")):
        assert door(["card", str(wrong), "--out", str(tmp_path / "card")]) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "card").exists()
