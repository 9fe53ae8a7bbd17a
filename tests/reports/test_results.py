"""The tables at the end of a run and of an evaluation."""

import math

from emopeft.downstream.records.record import write_record
from emopeft.downstream.reports.results import evaluation, result
from emopeft.downstream.tasks.emotion import EmotionTask
from tests.records.cases import CLASSES, FOLDS, make_fold, make_record, make_rows, plan_rows

TASK = EmotionTask(CLASSES)


def test_a_finished_run(tmp_path):
    record = make_record(tmp_path / "first", (8, 6, 4))
    text = result(record, tmp_path)
    lines = text.splitlines()
    assert lines[0].startswith("hubert_base + lora on toy, toy-3fold-4class (hash ")
    header = "fold seed WA % UAR % F1 % lr best/steps training"
    assert " ".join(lines[1].split()) == header
    assert lines[3].split()[:3] == ["1", "0", "100.00"]
    assert " ".join(lines[6].split()).startswith("mean 75.00 ± 25.00 75.00 ± 25.00")
    assert "chance: UAR % 25.00" in text
    assert "trained 1,000,000 of 100,000,000 parameters (1.00 %)" in text
    assert "frozen part 30 s, training 1 min 0 s" in text
    assert "peak memory 1.5 GB host, kept on disk 1 kB" in text
    assert str(tmp_path / "first" / "result.json") in lines[-1]


def test_chance_is_that_of_what_was_tested(tmp_path):
    """REVIEW A16: two of four classes in a test make guessing reach 50, not 25."""
    rows = {fold: make_rows(fold) for fold in FOLDS}
    rows["2"] = [row for row in rows["2"] if row.values["truth"] in CLASSES[:2]]
    planned = {fold: plan_rows(fold, tests={"test": of}) for fold, of in rows.items()}
    for fold, of in rows.items():
        make_fold(tmp_path / "first", fold, rows=of, planned=planned)
    assert "chance: UAR % 25.00 to 50.00" in result(write_record(tmp_path / "first"), tmp_path)


def test_failed_folds_and_what_spoils_a_number_are_said(tmp_path):
    plan = {"warnings": ["fold 1 tests a single speaker"]}
    make_fold(tmp_path / "first", "1", plan=plan)
    make_fold(tmp_path / "first", "2", failed="diverged \x1b[31m at step 7", plan=plan)
    text = result(write_record(tmp_path / "first"), tmp_path)
    assert "fold 2, seed 0 failed: diverged [31m at step 7" in text
    assert "warning: fold 1 tests a single speaker" in text
    assert "incomplete" in text
    assert "\x1b" not in text


def test_only_a_failed_fold(tmp_path):
    make_fold(tmp_path / "first", "1", failed="diverged")
    text = result(write_record(tmp_path / "first"), tmp_path)
    assert "fold 1, seed 0 failed: diverged" in text
    assert "mean" not in text


def test_what_was_really_run_is_said(tmp_path):
    """REVIEW A19: recipe and weights in the run's own table, too."""
    recipe = {"name": "lashkarashvili2024/lora", "file": "lora.yaml"}
    record = make_record(tmp_path / "first", recipe=recipe, note="random weights")
    record["upstream"] |= {"local": True, "source": "local:mine"}
    record["method"]["asked"] = "lora@peft-ser"
    weights = record["upstream"]["weights"][:8]
    title = result(record, tmp_path).splitlines()[0]
    assert title.startswith(
        f"hubert_base (random weights; local:mine, weights {weights}) + lora (lora@peft-ser) on toy"
    )
    assert title.endswith("recipe lashkarashvili2024/lora")


def test_evaluation():
    """REVIEW A12: nothing recorded is said so, a metric that is none is no 0."""
    metrics = {"accuracy": 0.5, "uar": math.nan, "macro_f1": 0.25}
    one = {"fold": "1", "seed": 3, "test": "test", "clips": 8, "metrics": metrics, "task": TASK}
    table = evaluation([one | {"difference": None}, one | {"difference": 1.25e-7}])
    lines = [line.split() for line in table.splitlines()]
    assert lines[2] == ["1", "3", "8", "50.00", "–", "25.00", "not", "recorded"]
    assert lines[3] == ["1", "3", "8", "50.00", "–", "25.00", "1.2e-07"]
    several = evaluation([one | {"difference": 0.0}, one | {"test": "far", "difference": 0.0}])
    assert "far" in several
