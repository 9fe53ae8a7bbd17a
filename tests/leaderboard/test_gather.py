"""Which records share a table, which are ranked, and which are refused."""

import dataclasses
import os
import shutil

import pytest

from emopeft.downstream.records.record import write_record
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from emopeft.leaderboard import gather as gather_module
from emopeft.leaderboard.gather import gather
from emopeft.leaderboard.render import markdown, terminal
from tests.records.cases import (
    CLASSES,
    FOLDS,
    make_fold,
    make_record,
    make_rows,
    plan_rows,
    put,
    tamper,
)
from tests.records.cases_v1 import make_record_v1


def test_ranked_by_the_recounted_mean(tmp_path):
    make_record(tmp_path / "a", (4, 4, 4), method="none")
    make_record(tmp_path / "deep" / "er" / "b", (8, 8, 6), method="lora")
    make_record(tmp_path / "c", (8, 6, 4), method="ws")
    board = gather(tmp_path)
    [table] = board.tables
    assert [row.data["method"]["spec"] for row in table.rows] == ["lora", "ws", "none"]
    assert [row.place for row in table.rows] == ["deep/er/b", "c", "a"]
    assert table.ranks() == [1, 2, 3]
    assert table.metric.name == "uar"
    assert table.rows[1].mean("test", "accuracy") == pytest.approx((1 + 6 / 8 + 4 / 8) / 3)
    # three folds of 1 + 20 + 1 s, and the frozen part's 30 s, which the folds shared
    assert table.rows[1].seconds == 3 * 22 + 30
    assert table.rows[1].share == 0.01
    assert not (board.refused or board.incomplete or board.replaced or board.warnings)


def test_each_metric_sorts(tmp_path):
    """Six of eight utterances are neutral: who always says so has the accuracy, not the UAR."""
    truths = ["neutral"] * 6 + ["happy", "angry"]

    def rows(fold, guesses):
        made = []
        for row, truth, guess in zip(make_rows(fold), truths, guesses, strict=True):
            scores = {f"score_{name}": 0.7 if name == guess else 0.1 for name in CLASSES}
            values = {"truth": truth, "prediction": guess, **scores}
            made.append(dataclasses.replace(row, values=values))
        return made

    lazy = ["neutral"] * 8  # accuracy 6/8, UAR 1/3, F1 (12/14 + 0 + 0) / 3
    fair = ["neutral"] * 3 + ["happy"] * 4 + ["angry"]  # 5/8, (1/2 + 1 + 1) / 3
    planned = {f: plan_rows(f, tests={"test": rows(f, lazy)}) for f in FOLDS}
    for name, guesses in (("lazy", lazy), ("fair", fair)):
        for fold in FOLDS:
            kind = {"rows": rows(fold, guesses), "planned": planned, "method": name}
            make_fold(tmp_path / name, fold, **kind)
        write_record(tmp_path / name)
    firsts = [gather(tmp_path, m).tables[0].rows[0] for m in ("accuracy", "uar", "macro_f1")]
    assert [row.place for row in firsts] == ["lazy", "fair", "fair"]
    assert firsts[0].mean("test", "accuracy") == pytest.approx(6 / 8)
    assert firsts[1].mean("test", "uar") == pytest.approx(2.5 / 3)
    assert gather(tmp_path).tables[0].rows[0].place == "fair"  # the task's own: UAR
    with pytest.raises(UserError, match="unknown metric 'f1': known: accuracy"):
        gather(tmp_path, "f1")


def test_the_direction_and_nothing_at_all(tmp_path, monkeypatch):
    """REVIEW A15, C5: lower may be better, and a metric that is none ranks last."""
    make_record(tmp_path / "bad", (4, 4, 4), method="none")
    make_record(tmp_path / "good", (8, 8, 8), method="lora")
    make_record(tmp_path / "none", (6, 6, 6), method="ws")
    original, metrics = EmotionTask.measure, EmotionTask.metrics.fget(EmotionTask(CLASSES))

    def measure(self, table):
        found = original(self, table)
        return found | ({"uar": float("nan")} if found["accuracy"] == 6 / 8 else {})

    monkeypatch.setattr(EmotionTask, "measure", measure)
    shutil.rmtree(tmp_path / "none")
    make_record(tmp_path / "none", (6, 6, 6), method="ws")
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["good", "bad", "none"]
    assert board.tables[0].ranks() == [1, 2, 3]
    lower = tuple(dataclasses.replace(m, better="lower") for m in metrics)
    monkeypatch.setattr(EmotionTask, "metrics", lower)
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["bad", "good", "none"]


def test_equal_rows_share_a_rank_and_keep_their_order(tmp_path):
    for run, upstream, method, name in (
        ("z", "hubert", "lora:r=8", "b"),
        ("y", "hubert", "lora", "a"),
        ("x", "hubert", "ba", "c"),
        ("w", "wavlm", "ba", "c"),
    ):
        make_record(tmp_path / run, upstream=upstream, method=method, name=name)
    make_record(tmp_path / "v", (8, 8, 8), upstream="xlsr")
    [table] = gather(tmp_path).tables
    assert [row.place for row in table.rows] == ["v", "x", "y", "z", "w"]
    assert table.ranks() == [1, 2, 2, 2, 2]


def test_seeds_of_a_fold_are_averaged_first(tmp_path):
    make_record(tmp_path / "a", (8, 6, 4), seeds=(0, 1))
    [row] = gather(tmp_path).tables[0].rows
    assert row.seeds == [0, 1]
    accuracy = row.data["summary"]["test"]["accuracy"]
    assert accuracy["mean"] == pytest.approx((7.5 + 5.5 + 3.5) / 24)
    assert accuracy["std"] == pytest.approx(0.25)
    assert accuracy["seed_std"] == pytest.approx(0.125 / 2**0.5)


def test_plans_never_share_a_table(tmp_path):
    """Other utterances, classes or folds give another hash, whatever the protocol is called."""
    make_record(tmp_path / "a")
    make_record(tmp_path / "two", classes=CLASSES[:2])
    make_record(tmp_path / "fewer", (8,), folds=("1",))
    make_record(tmp_path / "named", protocol="other-3fold", method="ba")
    board = gather(tmp_path)
    assert sorted([row.place for row in table.rows] for table in board.tables) == [
        ["fewer"], ["named", "a"], ["two"],
    ]  # fmt: skip
    assert any("goes under several names: other-3fold, toy-3fold" in w for w in board.warnings)
    assert any("toy-3fold-4class version 1 comes with 3 hashes" in w for w in board.warnings)


def test_each_named_test_has_its_table(tmp_path):
    def tests(fold, right):
        far = make_rows(fold, right=right, test="far", prefix=f"far{fold}")
        return {"near": make_rows(fold, right=8, test="near"), "far": far}

    planned = {fold: plan_rows(fold, tests=tests(fold, 8)) for fold in FOLDS}
    for name, right in (("a", 2), ("b", 6)):
        for fold in FOLDS:
            make_fold(tmp_path / name, fold, tests=tests(fold, right), planned=planned, method=name)
        write_record(tmp_path / name)
    near, far = gather(tmp_path).tables
    assert (near.test, far.test) == ("near", "far")
    assert near.ranks() == [1, 1]
    assert [row.place for row in far.rows] == ["b", "a"]


def test_other_audio_under_the_same_names_is_said(tmp_path):
    """REVIEW A4: the audio stands in the record, and a reader is told where it differs."""
    make_record(tmp_path / "a")
    other = {f: [row._replace(audio=row.audio[::-1]) for row in plan_rows(f)] for f in FOLDS}
    for fold in FOLDS:
        make_fold(tmp_path / "b", fold, planned=other)
    write_record(tmp_path / "b")
    board = gather(tmp_path)
    assert [len(table.rows) for table in board.tables] == [2]
    assert any("were made on different audio" in words for words in board.warnings)


def test_schema_1_has_tables_of_its_own(tmp_path):
    make_record(tmp_path / "new")
    make_record_v1(tmp_path / "old", (8, 8, 8))
    make_record_v1(tmp_path / "older", (4, 4, 4), method="none")
    board = gather(tmp_path)
    assert sorted([row.place for row in table.rows] for table in board.tables) == [
        ["new"], ["old", "older"],
    ]  # fmt: skip
    assert not board.refused
    assert "old: it has schema 1" in " ".join(board.warnings)


def test_incomplete_runs_are_apart(tmp_path):
    make_record(tmp_path / "part", (8, 8, 8), present=("1", "3"), method="ba")
    make_record(tmp_path / "whole", (4, 4, 4))
    # every fold is there, but the run was to have a second seed
    for fold in FOLDS:
        make_fold(tmp_path / "seed", fold, seeds=(0, 1), method="ws")
    write_record(tmp_path / "seed")
    make_fold(tmp_path / "failed", "1", failed="diverged", method="bitfit")
    write_record(tmp_path / "failed")
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["whole"]
    assert sorted(row.place for row in board.incomplete) == ["failed", "part", "seed"]
    # only an incomplete one: a page without a table, not an error
    assert gather(tmp_path / "part").tables == []


def test_false_and_unreadable_records_are_refused(tmp_path):
    for name in ("raised", "guess", "summary", "lost", "cut", "nan", "key"):
        make_record(tmp_path / name, name=name, method=name)
    make_record(tmp_path / "good")
    tamper(tmp_path / "raised", put(0.99, "folds", 0, "metrics", "test", "uar"))
    path = tmp_path / "guess" / "fold3_seed0" / "predictions.csv"
    path.write_text(path.read_text().replace("neutral,happy", "neutral,neutral"))
    tamper(tmp_path / "summary", put(0.9, "summary", "test", "uar", "mean"))
    (tmp_path / "lost" / "fold1_seed0" / "predictions.csv").unlink()
    path = tmp_path / "cut" / "result.json"
    path.write_text(path.read_text()[:700])
    tamper(tmp_path / "nan", put(float("nan"), "cost", "seconds", "train"))
    tamper(tmp_path / "key", lambda record: record["upstream"].pop("name"))
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["good"]
    reasons = dict(board.refused)
    assert list(reasons) == ["cut", "guess", "key", "lost", "nan", "raised", "summary"]
    assert "result.json is not valid JSON" in reasons["cut"]
    assert "predictions.csv, line" in reasons["guess"]
    assert "result.json: key 'upstream.name' is missing" in reasons["key"]
    assert "fold1_seed0/predictions.csv does not exist" in reasons["lost"]
    assert "NaN is no JSON number" in reasons["nan"]
    assert "says folds.0.metrics.test.uar = 0.99" in reasons["raised"]
    assert "says summary.test.uar.mean = 0.9" in reasons["summary"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())


HARMFUL = {
    "extra key": (put(1.0, "cost", "seconds", "extra"), "unknown key 'cost.seconds.extra'"),
    "endless sums": (put(1.7e308, "cost", "seconds", "load"), "'cost.seconds.load' must be less"),
    "not a table": (put([], "summary"), "key 'summary' must"),
    "not a task": (put({"name": "emotion"}, "task"), "task"),
}


@pytest.mark.parametrize("case", HARMFUL)
def test_one_record_never_takes_the_board_down(tmp_path, case):
    """REVIEW D1: an extra key under cost.seconds, times that add up to infinity, wrong types."""
    change, words = HARMFUL[case]
    make_record(tmp_path / "good")
    make_record(tmp_path / "bad", method="ba")
    tamper(tmp_path / "bad", change)
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["good"]
    [(place, reason)] = board.refused
    assert place == "bad"
    assert words in reason


FILES = (
    "result.json",
    "predictions.csv",
    *(f"fold1_seed0/{name}" for name in ("fold.json", "predictions.csv", "examples.csv")),
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused(tmp_path, name, kind):
    """REVIEW D1: a pipe or a link to /dev/zero neither hangs nor fills memory."""
    make_record(tmp_path / "good")
    make_record(tmp_path / "bad", method="ba")
    path = tmp_path / "bad" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["good"]
    if (name, kind) != ("result.json", "folder"):  # that one is no record at all
        [(place, reason)] = board.refused
        assert place == "bad"
        assert f"is a {kind}" in reason


def test_a_huge_file_is_refused(tmp_path):
    """REVIEW D1: by its size, without being read."""
    make_record(tmp_path / "bad")
    with (tmp_path / "bad" / "result.json").open("r+b") as file:
        file.truncate(10 << 30)
    [(_, reason)] = gather(tmp_path).refused
    assert "more than the" in reason


def test_an_error_of_ours_refuses_that_record_alone(tmp_path, monkeypatch):
    """REVIEW D1: whatever goes wrong with one record is a sentence about that record."""
    make_record(tmp_path / "good")
    make_record(tmp_path / "bad", method="ba")
    original = gather_module.examine

    def examine(folder):
        if folder.name == "bad":
            raise KeyError("extra")
        return original(folder)

    monkeypatch.setattr(gather_module, "examine", examine)
    board = gather(tmp_path)
    assert len(board.tables[0].rows) == 1
    assert board.refused == [("bad", "it cannot be read (KeyError: 'extra')")]


# ---- several records of one run -------------------------------------------------------------


def moved_to(run, date):
    """A copy's fold folders and record say another date."""
    for path in [*run.glob("fold*/fold.json"), run / "result.json"]:
        path.write_text(path.read_text().replace("2025-01-02T03:04:05+00:00", date))


def test_a_copy_with_another_date_displaces_nothing(tmp_path):
    """REVIEW D2: of equal records the one created first is shown."""
    make_record(tmp_path / "honest", name="mine")
    shutil.copytree(tmp_path / "honest", tmp_path / "a copy")
    moved_to(tmp_path / "a copy", "2025-06-01T00:00:00+00:00")
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["honest"]
    assert board.replaced == [("a copy", "honest is the same run, created before")]


def test_a_copy_with_other_numbers_displaces_nothing(tmp_path):
    """REVIEW D2: both are shown and a warning says so, whichever date the copy has."""
    make_record(tmp_path / "honest", (6, 6, 6))
    for name, date in (("later", "2025-06-01"), ("earlier", "2024-06-01")):
        make_record(tmp_path / name, (8, 8, 8), created=f"{date}T00:00:00+00:00")
        board = gather(tmp_path)
        assert {row.place for row in board.tables[0].rows} == {"honest", name}
        assert any("one identity and different numbers" in words for words in board.warnings)
        shutil.rmtree(tmp_path / name)


def test_a_false_record_displaces_nothing(tmp_path):
    """REVIEW D2: one that does not hold is refused before anything is compared."""
    make_record(tmp_path / "honest")
    make_record(tmp_path / "false", created="2024-06-01T00:00:00+00:00")
    tamper(tmp_path / "false", put(0.99, "folds", 0, "metrics", "test", "uar"))
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["honest"]
    assert board.replaced == []


def test_a_finished_record_goes_before_an_incomplete_one(tmp_path):
    early = "2024-01-01T00:00:00+00:00"
    make_record(tmp_path / "part", present=("1",), created=early)
    make_record(tmp_path / "whole")
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["whole"]
    assert board.incomplete == []
    assert board.replaced == [("part", "whole is the same run, finished")]


def test_a_leak_is_refused_and_warnings_are_shown(tmp_path):
    """REVIEW D2: undeclared leaks are not ranked; copied seeds and future dates are said."""

    def leaking(row):
        return row._replace(speaker="toy/strain") if row.part == "dev" else row

    rows = {fold: [leaking(row) for row in plan_rows(fold)] for fold in FOLDS}

    def told(row):
        return dataclasses.replace(row, speaker="toy/strain")

    for fold in FOLDS:
        make_fold(tmp_path / "leak", fold, planned=rows, dev=told)
        make_fold(tmp_path / "copied", fold, 0, 5, seeds=(0, 1))
        make_fold(tmp_path / "copied", fold, 1, 5, seeds=(0, 1))
    write_record(tmp_path / "leak")
    write_record(tmp_path / "copied")
    make_record(tmp_path / "future", created="2999-01-01T00:00:00+00:00", method="ba")
    board = gather(tmp_path)
    [(place, reason)] = board.refused
    assert place == "leak"
    assert "speaker toy/strain is in dev and in train" in reason
    warnings = " ".join(board.warnings)
    assert "copied: fold 1: seeds 0 and 1 have the same predictions" in warnings
    assert "future: it was created in the future" in warnings


def test_folds_that_leak_as_published_stand_apart_and_are_marked(tmp_path):
    """The same folds under a name that says so: ranked, but never beside clean ones."""
    rows = {
        fold: [r._replace(speaker="toy/strain") if r.part == "test" else r for r in plan_rows(fold)]
        for fold in FOLDS
    }
    declared = {"overlap": ["dev", "test"], "protocol": "toy-leaks"}
    for fold in FOLDS:
        tests = [dataclasses.replace(r, speaker="toy/strain") for r in make_rows(fold)]
        make_fold(tmp_path / "leak", fold, planned=rows, rows=tests, plan=declared)
    write_record(tmp_path / "leak")
    make_record(tmp_path / "clean")
    board = gather(tmp_path)
    assert board.refused == [] and len(board.tables) == 2
    for text in (markdown(board), terminal(board)):
        (heading,) = [line for line in text.splitlines() if "LEAKS" in line]
        assert "toy-leaks" in heading and "1 test speakers are trained on" in heading
    assert any("it leaks, as its protocol's name says" in w for w in board.warnings)


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        gather(tmp_path / "none")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"no result\.json under"):
        gather(tmp_path)
