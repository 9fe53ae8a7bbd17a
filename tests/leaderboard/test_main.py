"""The command: what it writes, prints and returns."""

import json

import pytest

from emopeft.leaderboard.__main__ import main
from tests.records.cases import make_record, put, tamper


def test_writes_and_prints(tmp_path, capsys):
    make_record(tmp_path / "runs" / "a", (4, 4, 4), method="none")
    make_record(tmp_path / "runs" / "b", (8, 8, 6), method="lora")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    screen = capsys.readouterr().out
    assert "toy-3fold-4class, version 1" in screen
    assert screen.index("lora") < screen.index("none")
    assert "91.67 ± 14.43" in screen
    page = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "91.67 ± 14.43" in page
    assert str(tmp_path) not in page
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text(encoding="utf-8"))
    [table] = board["tables"]
    assert [(row["rank"], row["place"]) for row in table["rows"]] == [(1, "b"), (2, "a")]
    assert table["rows"][0]["summary"]["accuracy"]["mean"] == pytest.approx(22 / 24)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("leaderboard.json", "leaderboard.md")
    ]


def test_a_refused_record_is_status_1_and_still_a_page(tmp_path, capsys):
    make_record(tmp_path / "runs" / "good")
    make_record(tmp_path / "runs" / "bad", name="bad", method="ba")
    tamper(tmp_path / "runs" / "bad", put(0.99, "folds", 0, "metrics", "test", "uar"))
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 1
    page = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "## Refused\n\n- bad: it is not what its folds give: result.json says" in page
    assert "folds.0.metrics.test.uar = 0.99" in capsys.readouterr().out
    # all refused: the same
    assert main([str(tmp_path / "runs" / "bad"), "--out", str(tmp_path / "out")]) == 1
    assert "No finished run." in (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")


def test_misuse_is_status_2_without_a_page(tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(tmp_path / "none"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), "--out", str(out)]) == 2
    assert "no result.json under" in capsys.readouterr().err
    assert not out.exists()
    make_record(tmp_path / "run")
    (tmp_path / "file").write_text("x")
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(out), "--sort", "f1"]) == 2
    assert "unknown metric 'f1'" in capsys.readouterr().err
