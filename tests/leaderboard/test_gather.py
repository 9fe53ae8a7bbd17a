"""Which records share a table, which are ranked, and which are refused."""

import dataclasses
from typing import Any

import pytest

from emopeft.downstream.tasks.metrics import NAMES
from emopeft.errors import UserError
from emopeft.files import digest
from emopeft.leaderboard.gather import gather
from tests.records.cases import CLASSES, make_record, make_rows, tamper


def test_ranked_by_the_recounted_mean(tmp_path):
    make_record(tmp_path / "a", (4, 4, 4), method="none")
    make_record(tmp_path / "deep" / "er" / "b", (8, 8, 6), method="lora")
    make_record(tmp_path / "c", (8, 6, 4), method="ws")
    board = gather(tmp_path)
    [table] = board.tables
    assert [row.data["method"]["spec"] for row in table.rows] == ["lora", "ws", "none"]
    assert [row.place for row in table.rows] == ["deep/er/b", "c", "a"]
    assert table.ranks("uar") == [1, 2, 3]
    assert table.rows[1].summary["accuracy"]["mean"] == pytest.approx((1 + 6 / 8 + 4 / 8) / 3)
    assert table.rows[1].seconds == 95.0
    assert table.rows[1].share == 0.01
    assert not (board.refused or board.incomplete or board.replaced or board.warnings)


def test_each_metric_sorts(tmp_path):
    """Six of eight utterances are neutral: who always says so has the accuracy, not the UAR."""

    def rows(fold, guesses):
        made = make_rows(fold, 0, 8)
        truths = ["neutral"] * 6 + ["happy", "angry"]
        for number, (truth, guess) in enumerate(zip(truths, guesses, strict=True)):
            scores = {name: 0.7 if name == guess else 0.1 for name in CLASSES}
            made[number] = dataclasses.replace(
                made[number], truth=truth, prediction=guess, scores=scores
            )
        return made

    lazy = ["neutral"] * 8  # accuracy 6/8, UAR 1/3, F1 (12/14 + 0 + 0) / 3
    fair = ["neutral"] * 3 + ["happy"] * 4 + ["angry"]  # 5/8, (1/2 + 1 + 1) / 3
    make_record(tmp_path / "lazy", rows=lambda fold, seed, right: rows(fold, lazy))
    make_record(tmp_path / "fair", rows=lambda fold, seed, right: rows(fold, fair))
    firsts = [gather(tmp_path, metric).tables[0].rows[0] for metric in NAMES]
    assert NAMES == ("accuracy", "uar", "macro_f1")
    assert [row.place for row in firsts] == ["lazy", "fair", "fair"]
    assert firsts[0].summary["accuracy"]["mean"] == pytest.approx(6 / 8)
    assert firsts[1].summary["uar"]["mean"] == pytest.approx(2.5 / 3)
    with pytest.raises(UserError, match="no metric 'f1'"):
        gather(tmp_path, "f1")


def test_equal_rows_share_a_rank_and_keep_their_order(tmp_path):
    for run, upstream, method, name in (
        ("z", "hubert", "lora", "b"),
        ("y", "hubert", "lora", "a"),
        ("x", "hubert", "ba", "c"),
        ("w", "wavlm", "ba", "c"),
    ):
        make_record(tmp_path / run, upstream=upstream, method=method, name=name)
    make_record(tmp_path / "v", (8, 8, 8), upstream="xlsr")
    [table] = gather(tmp_path).tables
    assert [row.place for row in table.rows] == ["v", "x", "y", "z", "w"]
    assert table.ranks("uar") == [1, 2, 2, 2, 2]


def test_seeds_of_a_fold_are_averaged_first(tmp_path):
    make_record(tmp_path / "a", (8, 6, 4), seeds=(0, 1))
    [row] = gather(tmp_path).tables[0].rows
    assert row.seeds == [0, 1]
    accuracy = row.summary["accuracy"]
    assert accuracy["mean"] == pytest.approx((7.5 + 5.5 + 3.5) / 24)
    assert accuracy["std"] == pytest.approx(0.25)
    assert accuracy["seed_std"] == pytest.approx(0.125 / 2**0.5)


def test_hashes_never_share_a_table(tmp_path):
    make_record(tmp_path / "a", hash="a" * 64)
    make_record(tmp_path / "b", hash="b" * 64)
    make_record(tmp_path / "c", protocol="other-3fold")
    board = gather(tmp_path)
    assert [(t.protocol["name"], t.protocol["hash"][0], len(t.rows)) for t in board.tables] == [
        ("other-3fold", digest(["protocol", "other-3fold"])[0], 1),
        ("toy-3fold-4class", "a", 1),
        ("toy-3fold-4class", "b", 1),
    ]
    [warning] = board.warnings
    assert "toy-3fold-4class version 1 comes with 2 hashes (aaaaaaaaaaaa, bbbbbbbbbbbb)" in warning


def test_a_hash_alone_is_not_believed(tmp_path):
    """The same hash on fewer folds, fewer classes or easier utterances is another table."""
    same: dict[str, Any] = {"hash": "a" * 64}
    make_record(tmp_path / "good", **same)
    make_record(tmp_path / "fewer", (8,), folds=("1",), **same)
    make_record(tmp_path / "two", classes=("neutral", "happy"), **same)
    make_record(tmp_path / "easy", **same)
    for path in (tmp_path / "easy").rglob("predictions.csv"):
        path.write_text(path.read_text().replace("f1_u0", "f1_other"))
    board = gather(tmp_path)
    assert sorted(row.place for t in board.tables for row in t.rows) == [
        "easy", "fewer", "good", "two",
    ]  # fmt: skip
    assert [len(table.rows) for table in board.tables] == [1, 1, 1, 1]
    [warning] = board.warnings
    assert "(hash aaaaaaaaaaaa) was run on 4 different test sets" in warning


def test_incomplete_runs_are_apart(tmp_path):
    make_record(tmp_path / "part", (8, 8, 8), present=("1", "3"))
    make_record(tmp_path / "whole", (4, 4, 4))
    # every fold is there, but the run was to have a second seed
    make_record(tmp_path / "seed", (8, 8, 8), name="second", status="incomplete")
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["whole"]
    assert [row.place for row in board.incomplete] == ["part", "seed"]
    # only an incomplete one: a page without a table, not an error
    assert gather(tmp_path / "part").tables == []


def test_false_and_unreadable_records_are_refused(tmp_path):
    for name in ("raised", "guess", "summary", "lost", "cut", "nan", "key"):
        make_record(tmp_path / name, name=name)
    make_record(tmp_path / "good")
    tamper(tmp_path / "raised", lambda r: r["folds"][0]["metrics"].update(uar=0.99))
    path = tmp_path / "guess" / "predictions.csv"
    path.write_text(path.read_text().replace("neutral,happy", "neutral,neutral"))
    path = tmp_path / "summary" / "result.json"
    tamper(path.parent, lambda r: r["summary"]["uar"].update(mean=0.9))
    (tmp_path / "lost" / "predictions.csv").unlink()
    path = tmp_path / "cut" / "result.json"
    path.write_text(path.read_text()[:700])
    tamper(tmp_path / "nan", lambda r: r["cost"]["seconds"].update(train=float("nan")))
    tamper(tmp_path / "key", lambda r: r["upstream"].pop("name"))
    board = gather(tmp_path)
    assert [row.place for row in board.tables[0].rows] == ["good"]
    reasons = dict(board.refused)
    assert list(reasons) == ["cut", "guess", "key", "lost", "nan", "raised", "summary"]
    assert "result.json is not valid JSON" in reasons["cut"]
    assert "predictions.csv, line" in reasons["guess"]
    assert "result.json: 'upstream.name' is missing" in reasons["key"]
    assert "cannot read predictions.csv" in reasons["lost"]
    assert "'cost.seconds.train' is nan" in reasons["nan"]
    assert "fold 1, seed 0: uar is recorded as 0.99" in reasons["raised"]
    assert "summary.uar.mean is recorded as 0.9" in reasons["summary"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())


def test_of_one_run_the_newest_counts(tmp_path):
    same: dict[str, Any] = {"identity": "c" * 64}
    make_record(tmp_path / "old", (4, 4, 4), created="2025-01-01T12:00:00+00:00", **same)
    # 11:30 at +02:00 is before 12:00 UTC, though its text is greater
    make_record(tmp_path / "east", (8, 8, 8), created="2025-01-01T13:30:00+02:00", **same)
    make_record(tmp_path / "new", (6, 6, 6), created="2025-01-01T12:00:01Z", **same)
    later = "2026-01-01T00:00:00"
    make_record(tmp_path / "part", (8, 8, 8), present=("1",), created=later, **same)
    # the same identity under another protocol is another run
    make_record(tmp_path / "else", (8, 8, 8), created=later, protocol="other", **same)
    board = gather(tmp_path)
    assert [[row.place for row in table.rows] for table in board.tables] == [["else"], ["new"]]
    assert board.incomplete == []
    assert sorted(place for place, _ in board.replaced) == ["east", "old", "part"]
    assert ("part", "new is the same run, finished") in board.replaced


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        gather(tmp_path / "none")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"no result\.json under"):
        gather(tmp_path)
