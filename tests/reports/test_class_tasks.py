"""Calibration and class measures of votes and of joined tasks, from short runs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from emopeft.downstream.corpora.demo import read as demo
from emopeft.downstream.records.record import make_record
from emopeft.downstream.reports.calibration import calibration_sections
from emopeft.downstream.reports.calibration_numbers import calibrated
from emopeft.downstream.reports.confusion import class_by_class
from emopeft.downstream.reports.sections import terminal
from tests.calls import call, predictions

NAMES = ("neutral", "happy", "angry", "sad")
SHORT = ["-p", "none", "--fold", "1", "-o", "train.epochs=2", "-o", "train.lr=1e-2"]


@pytest.fixture(scope="module")
def runs(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo corpus with four votes a clip, every seventh 2:2; and as two tasks at once."""
    root = tmp_path_factory.mktemp("tasks")
    with (root / "votes.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "path", "speaker", "session", *(f"label:{n}" for n in NAMES)])
        for number, clip in enumerate(demo(demo_corpus)):
            first, votes = NAMES.index(clip.emotion or ""), [0] * 4
            votes[first] += 2 if number % 7 == 0 else 3
            votes[(first + 1 + number % 3) % 4] += 2 if number % 7 == 0 else 1
            out.writerow([clip.id, clip.path, clip.speaker, clip.session, *votes])
    voted = ["--corpus", "manifest", "--data", root / "votes.csv", "--protocol"]
    flags = ["-u", "demo", *SHORT, "--out", root]
    assert call(*flags, "-d", "emotion-soft", "-o", "labels.no_consensus=keep", *voted,
                "manifest-sessions", "-n", "soft") == 0  # fmt: skip
    plain = ["--corpus", "demo", "--data", demo_corpus]
    assert call(*flags, "-d", "emotion+dimensional", *plain, "-n", "joint") == 0
    return root


def test_votes(runs: Path) -> None:
    rows = predictions(runs / "soft" / "predictions.csv")
    votes = np.array([[float(r[f"votes_{n}"]) for n in NAMES] for r in rows]) / 4
    scores = np.array([[float(r[f"score_{n}"]) for n in NAMES] for r in rows])
    [run] = (found := calibrated([runs / "soft"])).runs
    number = run.numbers["before", "nll"].value
    assert number == pytest.approx(make_record(runs / "soft")["summary"]["test"]["nll"]["mean"])
    assert number == pytest.approx(-(votes * np.log(scores)).sum(-1).mean())
    assert run.numbers["before", "brier"].value == pytest.approx(
        ((scores - votes) ** 2).sum(-1).mean()
    )
    agreed = [r["truth"] == r["prediction"] for r in rows if r["truth"]]
    assert run.numbers["before", "accuracy"].value == pytest.approx(np.mean(agreed))
    assert len(rows) - len(agreed) > 0 and run.folds[0].dev[1] < run.folds[0].dev[0]
    share = (len(rows) - len(agreed)) / len(rows)
    entropy = share * math.log(2) - (1 - share) * (0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert run.floor == pytest.approx(entropy)
    text = terminal(calibration_sections(found))
    assert f"{len(agreed)} clips with a consensus, of {len(rows)}" in text
    assert sum(class_by_class(runs / "soft").clips) == len(agreed)


def test_the_emotions_of_several_tasks(runs: Path) -> None:
    summary = make_record(runs / "joint")["summary"]["test"]
    found = class_by_class(runs / "joint")
    assert found.over_folds["macro_f1"]["mean"] == pytest.approx(
        summary["emotion.macro_f1"]["mean"]
    )
    [run] = calibrated([runs / "joint"]).runs
    assert run.numbers["after", "accuracy"].value == pytest.approx(
        summary["emotion.accuracy"]["mean"]
    )
