"""Evaluating a run again, and predicting with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emopeft.commands.door import main as door
from emopeft.downstream.runs.checkpoints import fold_folders
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.errors import UserError
from tests.calls import call, demo_run, predictions, read
from tests.shared import ROOT


@pytest.fixture(scope="module")
def finished(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of fold 1 with two seeds."""
    out = tmp_path_factory.mktemp("runs")
    assert demo_run(demo_corpus, out, "--seed", "0,1") == 0
    return out / "r"


def test_evaluate_in_a_new_process_gives_the_recorded_predictions(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "run_downstream.py", "-m", "evaluate", "--run", str(finished)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split() for line in done.stdout.splitlines()[-2:]]
    for row, fold in zip(rows, read(finished / "result.json")["folds"], strict=True):
        accuracy = fold["metrics"]["test"]["accuracy"]
        assert row[:3] == ["1", str(fold["seed"]), "48"] and f"{100 * accuracy:.2f}" in row
        assert float(row[-1]) < 1e-4


def test_every_seed_is_seen(finished: Path) -> None:
    """REVIEW A11: evaluate, predict and export saw the last seed only."""
    assert [p.name for p in fold_folders(finished)] == ["fold1_seed0", "fold1_seed1"]
    assert [p.name for p in fold_folders(finished, "1", seed=1)] == ["fold1_seed1"]
    assert {(r["fold"], r["seed"]) for r in evaluate(finished)} == {("1", 0), ("1", 1)}
    with pytest.raises(UserError, match=r"no trained fold 1 of seed 7; trained: fold1_seed0"):
        fold_folders(finished, seed=7)


def test_a_seed_is_exported(finished: Path, tmp_path: Path) -> None:
    """REVIEW A11."""
    for seed in (0, 1):
        assert door(["export", str(finished), str(tmp_path / str(seed)), "--seed", str(seed)]) == 0
        assert read(tmp_path / str(seed) / "emopeft.json")["seed"] == seed


def test_what_was_not_recorded_is_not_shown_as_agreement(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """REVIEW A12: max(0.0, nan) is 0.0 in Python."""
    shutil.copytree(finished, tmp_path / "r")
    (tmp_path / "r" / "fold1_seed0" / "fold.json").unlink()
    one, other = evaluate(tmp_path / "r")
    assert one["difference"] is None and other["difference"] < 1e-4
    assert call("-m", "evaluate", "--run", tmp_path / "r") == 0
    assert "not recorded" in capsys.readouterr().out


def test_evaluate_refuses_other_audio_under_the_same_names(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    """REVIEW A4."""
    shutil.copytree(demo_corpus, tmp_path / "corpus")
    clip = sorted((tmp_path / "corpus").rglob("*.wav"))[0]
    wav, rate = soundfile.read(clip)
    soundfile.write(clip, wav * 0.5, rate)
    with pytest.raises(UserError, match="other audio"):
        evaluate(finished, data=[str(tmp_path / "corpus")])


def test_predict_gives_the_recorded_scores_for_a_folder(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    table = tmp_path / "out.csv"
    assert call("-m", "predict", "--run", finished, "--audio", demo_corpus / "session1",
                "--output", table) == 0  # fmt: skip
    rows = {Path(r["path"]).stem: r for r in predictions(table)}
    recorded = predictions(finished / "fold1_seed0" / "predictions.csv")
    assert len(rows) == len(recorded) == 48
    for row in recorded:
        for name in (n for n in row if n.startswith("score_")):
            mine = float(rows[row["id"].removeprefix("demo/")][name])
            assert mine == pytest.approx(float(row[name]), abs=1e-4)
    clip = next(demo_corpus.rglob("*.wav"))
    assert call("-m", "predict", "--run", finished / "fold1_seed0", "--audio", clip,
                "--output", tmp_path / "out.json") == 0  # fmt: skip
    assert set(read(tmp_path / "out.json")[0]) >= {"path", "prediction", "score_angry", "note"}


def test_one_bad_clip_costs_one_row(
    finished: Path, demo_corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """REVIEW C8: it cost all other predictions, and an .mp3 was left out without a word."""
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(next(demo_corpus.rglob("*.wav")), clips / "good.wav")
    (clips / "broken.wav").write_bytes(b"RIFF....WAVE")
    (clips / "song.mp3").write_bytes(b"ID3")
    soundfile.write(clips / "blip.wav", np.zeros(10), 16000)
    table = tmp_path / "out.csv"
    assert call("-m", "predict", "--run", finished, "--audio", clips, "--output", table) == 1
    rows = {Path(r["path"]).name: r for r in predictions(table)}
    assert set(rows) == {"good.wav", "broken.wav", "song.mp3", "blip.wav"}
    assert rows["good.wav"]["prediction"] and not rows["good.wav"]["note"]
    for name in ("broken.wav", "song.mp3", "blip.wav"):
        assert rows[name]["note"] and not rows[name]["prediction"]
        assert not rows[name]["score_angry"]
    assert "song.mp3" in caplog.text


def test_a_long_clip_is_marked(
    finished: Path, demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW C8: only its start was used, with no mark in the table."""
    from emopeft.upstream.speech import SpeechUpstream

    monkeypatch.setattr(SpeechUpstream, "max_samples", 8000)
    table = tmp_path / "out.csv"
    clip = next(demo_corpus.rglob("*.wav"))
    assert call("-m", "predict", "--run", finished, "--audio", clip, "--output", table) == 0
    assert predictions(table)[0]["note"].startswith("only the first 0.5 s of ")
