"""Crops and segments through everything: trained, recorded, tested again, predicted, shared."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from emopeft.downstream.records.record import verify
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.runs.predict import predict
from emopeft.downstream.sharing.hub import export, load
from tests.calls import call, predictions, read

FLAGS = ["-u", "demo", "-d", "emotion", "--corpus", "demo", "--fold", "1"]
SHORT = ["-o", "train.epochs=2", "-o", "train.lr=3e-3", "-o", "train.batch_seconds=40"]
WAYS = {
    "first": ["-o", "clips.mode=crop", "-o", "clips.seconds=1.2"],
    "crops": ["-o", "clips.mode=crop", "-o", "clips.seconds=1.2", "-o", "clips.starts=4"],
    "segments": ["-o", "clips.mode=segments", "-o", "clips.seconds=1.2"],
}


@pytest.mark.parametrize("way", WAYS)
def test_longer_clips_from_training_to_hub(
    way: str, demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*FLAGS, "--data", demo_corpus, "--out", tmp_path, *WAYS[way]]
    method = {"first": "none", "crops": "lora", "segments": "partial:1"}[way]
    assert call(*common, "-p", method, *SHORT, "-n", "run") == 0
    run = tmp_path / "run"
    assert verify(run) == []
    shown = capsys.readouterr().out
    assert {"first": "first 1.2 s", "crops": "1.2 s crops", "segments": "1.2 s segments"}[
        way
    ] in shown
    record = read(run / "result.json")
    keys = {"mode": way if way == "segments" else "crop", "seconds": 1.2}
    keys["starts"] = 4 if way == "crops" else 1
    assert record["identity"]["clips"] == keys
    (fold,) = record["folds"]
    cut, whole = fold["clips"]["cut"], fold["utterances"]
    assert 0 < cut["train"] < whole["train"] and 0 < cut["tests"]["test"] < whole["tests"]["test"]

    # The same without the cache, from the checkpoint, and from an export.
    assert call(*common, "-p", method, *SHORT, "-n", "live", "-o", "cache.enabled=false") == 0
    rows, live = (predictions(tmp_path / n / "predictions.csv") for n in ("run", "live"))
    scores = [name for name in rows[0] if name.startswith("score_")]
    for one, other in zip(rows, live, strict=True):
        assert all(abs(float(one[n]) - float(other[n])) < 2e-3 for n in scores)
    assert max(one["difference"] for one in evaluate(run)) < 1e-5
    longest = max(demo_corpus.rglob("*.wav"), key=lambda p: soundfile.info(p).duration)
    (row,) = predict(run, longest)
    assert ("only the first 1.2 s" in row["note"]) == (way != "segments")
    export(run, tmp_path / "shared", fold="1")
    loaded = load(tmp_path / "shared")(longest)
    assert all(abs(loaded[n] - row[n]) < 1e-6 for n in scores)


def test_what_does_not_go_together_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for options, words in (
        (["clips.mode=crop"], "give clips.mode crop or segments, with its clips.seconds"),
        (["clips.seconds=6"], "give clips.mode crop or segments, with its clips.seconds"),
        (
            ["clips.mode=segments", "clips.seconds=6", "clips.starts=3"],
            "clips.starts=3 is for crops",
        ),
        (["clips.mode=crop", "clips.seconds=0"], "clips.seconds"),
    ):
        flags = [part for option in options for part in ("-o", option)]
        assert call(*FLAGS, "-p", "none", *flags) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.strip().splitlines()) == 1
