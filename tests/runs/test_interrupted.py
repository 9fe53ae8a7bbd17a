"""Interrupted, killed, run twice at once: nothing is lost and the numbers are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emopeft.downstream.models.checkpoint import read_progress
from emopeft.downstream.runs import stages
from emopeft.downstream.training.interruption import graceful
from emopeft.downstream.training.trainer import Trainer
from emopeft.files import locked
from tests.calls import SHORT, demo_run, read, scores
from tests.shared import ROOT

PROGRESS = "stage1.pt"


@pytest.fixture(scope="module")
def finished(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of fold 1."""
    out = tmp_path_factory.mktemp("runs")
    assert demo_run(demo_corpus, out) == 0
    return out / "r"


def history(run: Path) -> list[dict]:
    return read(run / "fold1_seed0" / "fold.json")["stages"][0]["result"]["history"]


def test_interrupted_at_any_step_and_resumed_equals_uninterrupted(
    finished: Path, demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # keep progress at every step
    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    optimise = Trainer._optimise
    for count, stop in enumerate((3, 5, 8), start=1):

        def interrupted(self: Trainer, batch: list[int], stop: int = stop) -> None:
            if self.step == stop:
                raise KeyboardInterrupt
            optimise(self, batch)

        monkeypatch.setattr(Trainer, "_optimise", interrupted)
        assert demo_run(demo_corpus, tmp_path) == 130
        assert read_progress(tmp_path / "r" / "fold1_seed0" / PROGRESS)["step"] == stop, count
        assert not (tmp_path / "r" / "result.json").exists()
    monkeypatch.setattr(Trainer, "_optimise", optimise)
    assert demo_run(demo_corpus, tmp_path) == 0
    assert scores(tmp_path / "r") == scores(finished)
    assert history(tmp_path / "r") == history(finished)


def started(demo_corpus: Path, out: Path) -> subprocess.Popen[str]:
    """The run in a process of its own, slowed down; it saves only when it is told to stop."""
    program = (
        "import sys, time, emopeft.downstream.training.trainer as t, run_downstream as r; "
        "step = t.Trainer._optimise; "
        "t.Trainer._optimise = lambda self, b: "
        "(step(self, b), print('step', self.step, flush=True), time.sleep(0.3)); "
        "r.entry_point()"
    )
    command = [sys.executable, "-c", program, "-u", "demo", "-d", "emotion", "-p", "lora",
               "--corpus", "demo", "--data", str(demo_corpus), "--fold", "1",
               "--out", str(out), "-n", "r", *SHORT]  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_signal_saves_the_last_step_and_says_so(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    """REVIEW C6: SIGTERM and Ctrl-C, which go one way, saved nothing: up to 60 s of work."""
    with graceful():
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    process = started(demo_corpus, tmp_path)
    assert process.stdout is not None and process.stderr is not None
    seen = [process.stdout.readline() for _ in range(3)]
    assert seen[-1] == "step 2\n", process.stderr.read()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "goes on where this one stopped" in said and "Traceback" not in said
    assert read_progress(tmp_path / "r" / "fold1_seed0" / PROGRESS)["step"] >= 3
    assert demo_run(demo_corpus, tmp_path) == 0
    assert scores(tmp_path / "r") == scores(finished)


def test_killed_and_called_again_equals_uninterrupted(
    finished: Path, demo_corpus: Path, tmp_path: Path
) -> None:
    process = started(demo_corpus, tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    assert not (tmp_path / "r" / "result.json").exists()
    assert demo_run(demo_corpus, tmp_path) == 0  # its lock died with it
    assert scores(tmp_path / "r") == scores(finished)


def test_a_fold_is_trained_by_one_process(
    demo_corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """REVIEW C3: two processes trained one fold at once, into the same files."""
    with locked(tmp_path / "r" / "fold1_seed0" / ".lock"):
        assert demo_run(demo_corpus, tmp_path, "--fold", "1,2", method="none") == 0
    assert "fold 1 seed 0 is being trained by another process" in caplog.text
    assert not (tmp_path / "r" / "fold1_seed0" / "fold.json").exists()
    assert (tmp_path / "r" / "fold2_seed0" / "fold.json").exists()
    assert demo_run(demo_corpus, tmp_path, "--fold", "1,2", method="none") == 0
    assert len(read(tmp_path / "r" / "result.json")["folds"]) == 2


def test_two_processes_share_the_folds(demo_corpus: Path, tmp_path: Path) -> None:
    """REVIEW C3."""
    command = [sys.executable, "run_downstream.py", "-u", "demo", "-d", "emotion", "-p", "lora",
               "--corpus", "demo", "--data", str(demo_corpus), "--fold", "1,2,3",
               "--out", str(tmp_path), "-n", "r", "-o", "train.epochs=1"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True,
                         stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]
    assert len(read(tmp_path / "r" / "result.json")["folds"]) == 3


def test_a_rate_search_goes_on_and_trains_nothing_twice(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW C4: the search began anew, and trained its winner once more."""
    steps, keep, fit = [], stages._keep, Trainer.fit

    def counting(self: Trainer):
        steps.append((self.lr, self.step))
        return fit(self)

    def stops(session, place, outcome):
        keep(session, place, outcome)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", counting)
    search = ["--tune", "lr", "-o", "train.lr_grid=[1e-7, 3e-3, 1e-4]", "-o", "train.epochs=1"]
    with monkeypatch.context() as patch:
        patch.setattr(stages, "_keep", stops)
        assert demo_run(demo_corpus, tmp_path, *search) == 130
    assert demo_run(demo_corpus, tmp_path, *search) == 0
    assert [rate for rate, _ in steps] == [1e-7, 3e-3, 1e-4]
    result = read(tmp_path / "r" / "fold1_seed0" / "fold.json")["stages"][0]["result"]
    assert set(result["tried"]) == {"1e-07", "0.003", "0.0001"}
    chosen = f"{result['lr']:g}"
    assert result["tried"][chosen] == max(result["tried"].values()) == result["dev"]["uar"]
    assert not list((tmp_path / "r" / "fold1_seed0").glob("*.pt"))


def test_a_full_disk_is_called_one(
    demo_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """REVIEW C6: it was told as "unexpected pos 32832"."""
    import errno

    import torch

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(torch, "save", full)
    assert demo_run(demo_corpus, tmp_path) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_a_finished_fold_of_another_run_is_not_taken(
    finished: Path, demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    assert demo_run(demo_corpus, tmp_path, "-o", "train.epochs=1", "--fold", "2") == 0
    shutil.copytree(finished / "fold1_seed0", tmp_path / "r" / "fold1_seed0")
    assert demo_run(demo_corpus, tmp_path, "-o", "train.epochs=1", "--fold", "1") == 2
    assert "was trained by another run" in capsys.readouterr().err


def test_a_nan_on_dev_does_not_lose_the_fold(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW C5: it was found when the fold was written, and the fold was lost."""
    from emopeft.downstream.tasks.emotion import EmotionTask

    measure = EmotionTask.measure

    def undefined(self, table):
        return measure(self, table) | {"macro_f1": float("nan")}

    monkeypatch.setattr(EmotionTask, "measure", undefined)
    for method in ("none", "lora"):
        assert demo_run(demo_corpus, tmp_path, method=method, name=method) == 0
        fold = read(tmp_path / method / "fold1_seed0" / "fold.json")
        assert fold["status"] == "finished" and fold["metrics"]["test"]["macro_f1"] is None
        assert fold["metrics"]["test"]["uar"] > 0
