"""The shipped tasks through everything: trained, killed and resumed, recorded, tested, shared."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from emopeft.downstream.corpora.demo import read as demo
from emopeft.downstream.records.record import verify
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.runs.predict import predict
from emopeft.downstream.sharing.hub import export, load
from emopeft.downstream.training.trainer import Trainer
from tests.calls import call, predictions, read

# Two groups in a batch of 32 clips, so that losses of whole batches take two passes.
LORA = ["-o", "train.epochs=2", "-o", "train.lr=3e-3", "-o", "train.batch_seconds=40"]
FOLD = ["--fold", "1"]
CCC = ["-o", "loss.dimensions=ccc+mse", "-o", "train.loss_batch=16"]
TASKS = {
    "dimensional": CCC,
    "emotion+dimensional+sex": [*CCC, "-o", "loss.task_weights={dimensional: 0.5, sex: 0.2}"],
    "emotion-soft": ["-o", "labels.no_consensus=keep"],
    "emotion-multi": [],
    "emotion": ["-o", "loss.classes=focal"],
}
SHOWN = {
    "dimensional": "CCC arousal",
    "emotion+dimensional+sex": "UAR %, CCC arousal, sex UAR",
    "emotion-soft": "UAR %, JS",
    "emotion-multi": "micro F1",
    "emotion": "UAR %",
}
WORDS = ("UAR %", "CCC arousal", "sex UAR", "JS", "micro F1")  # of the tables
VOTED = ("emotion-soft", "emotion-multi")


@pytest.fixture(scope="module")
def voted(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo corpus as a manifest, with four made-up votes a clip; every seventh is 2:2."""
    place = tmp_path_factory.mktemp("voted") / "votes.csv"
    names = ("neutral", "happy", "angry", "sad")
    with place.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "path", "speaker", "session", *(f"label:{n}" for n in names)])
        for number, clip in enumerate(demo(demo_corpus)):
            first = names.index(clip.emotion or "")
            votes = [0] * 4
            votes[first] += 2 if number % 7 == 0 else 3
            votes[(first + 1 + number % 3) % 4] += 2 if number % 7 == 0 else 1
            out.writerow([clip.id, clip.path, clip.speaker, clip.session, *votes])
    return place


@pytest.fixture(params=TASKS)
def flags(request: pytest.FixtureRequest, demo_corpus: Path, voted: Path) -> list[object]:
    """Which task, on which corpus."""
    task = request.param
    data = ["manifest", "--data", voted, "--protocol", "manifest-sessions"]
    corpus = data if task in VOTED else ["demo", "--data", demo_corpus]
    return ["-u", "demo", "-d", task, *TASKS[task], "--corpus", *corpus]


def test_all_tasks_from_probe_to_hub(
    flags: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = str(flags[3])
    probe = ["-p", "none", "--out", tmp_path, "-n", "none", "-o", "train.epochs=40"]
    assert call(*flags, *FOLD, *probe, "--tune", "lr", "-o", "train.lr_grid=[1e-2, 1e-3]") == 0
    lora = [*flags, *FOLD, "-p", "lora", "--out", tmp_path, *LORA]
    assert call(*lora, "-n", "lora") == 0
    run = tmp_path / "lora"
    for place in (tmp_path / "none", run):
        assert verify(place) == []
    shown = capsys.readouterr().out
    assert {w for w in WORDS if w in shown} == {w for w in WORDS if w in SHOWN[task]}

    # Killed in its second epoch and resumed: the same to the byte.
    optimise = Trainer._optimise

    def stops(self: Trainer, batch: list[int]) -> None:
        optimise(self, batch)
        if self.step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimise", stops)
        assert call(*lora, "-n", "again") == 130
    assert call(*lora, "-n", "again") == 0
    ours, again = (tmp_path / n / "predictions.csv" for n in ("lora", "again"))
    assert ours.read_bytes() == again.read_bytes()

    rows = predictions(ours)
    numbers = [n for n in rows[0] if "score" in n or (task != "emotion" and "prediction_v" in n)]
    assert numbers
    if task in ("emotion+dimensional+sex", "emotion-soft"):
        # Without the cache, the same within rounding.
        assert call(*lora, "-n", "live", "-o", "cache.enabled=false") == 0
        live = predictions(tmp_path / "live" / "predictions.csv")
        for one, other in zip(rows, live, strict=True):
            assert all(abs(float(one[n]) - float(other[n])) < 2e-3 for n in numbers)

    # Tested again from the checkpoint, predicted, exported and loaded.
    (result,) = evaluate(run)
    assert result["difference"] < 1e-4
    first = rows[0]
    clips = {c.id: c for c in demo(Path(str(flags[-1])))} if flags[-3] == "demo" else None
    if clips is None:
        from emopeft.downstream.corpora.manifest import read as manifest

        clips = {c.id: c for c in manifest(Path(str(flags[flags.index("--data") + 1])))}
    path = clips[first["id"].partition("/")[2]].path
    (row,) = predict(run, path)
    export(run, tmp_path / "card", fold="1")
    loaded = load(tmp_path / "card")(path)
    for name in numbers:
        assert row[name] == pytest.approx(float(first[name]), abs=1e-4)
        assert loaded[name] == pytest.approx(float(first[name]), abs=1e-4)
    assert call("--list", "tasks") == 0


def test_pooled_and_by_speaker_are_counted_from_the_predictions(
    demo_corpus: Path, tmp_path: Path
) -> None:
    """Against audmetric on predictions.csv."""
    import audmetric

    assert call("-u", "demo", "-d", "dimensional", "-p", "none", "--corpus", "demo", "--data",
                demo_corpus, "--out", tmp_path, "-n", "r", "-o", "train.epochs=5",
                "-o", "labels.dimensions=[arousal]", "--seed", "0,1") == 0  # fmt: skip
    record, rows = read(tmp_path / "r" / "result.json"), predictions(tmp_path / "r/predictions.csv")

    def ccc(**where: str) -> float:
        own = [row for row in rows if all(row[k] == v for k, v in where.items())]
        truth, guess = ([float(r[f"{c}_arousal"]) for r in own] for c in ("truth", "prediction"))
        return float(audmetric.concordance_cc(truth, guess))

    folds = {(f["fold"], f["seed"]): f["metrics"]["test"]["ccc"] for f in record["folds"]}
    for (fold, seed), value in folds.items():
        assert value == pytest.approx(ccc(fold=fold, seed=str(seed)), abs=1e-12)
    pooled = (ccc(seed="0") + ccc(seed="1")) / 2
    assert record["pooled"]["test"]["ccc"] == pytest.approx(pooled, abs=1e-12)
    assert abs(pooled - record["summary"]["test"]["ccc"]["mean"]) > 1e-6  # another number
    speakers = record["speakers"]["test"]
    assert len(speakers) == 10 and {s["utterances"] for s in speakers.values()} == {24}
    for name, speaker in speakers.items():
        own = (ccc(speaker=name, seed="0") + ccc(speaker=name, seed="1")) / 2
        assert speaker["value"] == pytest.approx(own, abs=1e-12)
    # A record from before these keys is whole without them.
    path = tmp_path / "r" / "result.json"
    import json

    path.write_text(json.dumps({k: v for k, v in record.items() if k != "pooled"}))
    assert verify(tmp_path / "r") == []
    record["pooled"]["test"]["ccc"] += 0.01
    path.write_text(json.dumps(record))
    assert any("pooled.test.ccc" in problem for problem in verify(tmp_path / "r"))


def test_a_loss_of_small_batches_is_another_training(demo_corpus: Path, tmp_path: Path) -> None:
    """The key is in the identity, and memory settings are not."""
    flags = ["-u", "demo", "-d", "dimensional", "-p", "none", "--corpus", "demo", "--data",
             demo_corpus, "--fold", "1", "--out", tmp_path, "-o", "train.epochs=3"]  # fmt: skip
    for name, more in (("a", []), ("b", ["-o", "train.loss_batch=8"])):
        assert call(*flags, "-n", name, *more) == 0
    one, other = (predictions(tmp_path / n / "predictions.csv")[0] for n in "ab")
    assert not math.isclose(float(one["prediction_arousal"]), float(other["prediction_arousal"]))
    ids = {read(tmp_path / n / "result.json")["id"] for n in "ab"}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-d", "dimensional", "-o", "labels.dimensions=[joy]"], ["rating of demo", "joy"]),
        (["-d", "dimensional", "-o", "loss.dimensions=cc"], ["loss.dimensions", "ccc"]),
        (["-d", "dimensional", "-o", "train.loss_batch=64"], ["train.loss_batch", "32"]),
        (["-d", "dimensional", "-o", "train.class_weights=balanced"], ["train.class_weights"]),
        (["-d", "emotion+dimensionl"], ["dimensional"]),
        (["-d", "emotion-soft"], ["demo-5fold", "emotion-soft"]),
        (["-d", "emotion+sex", "-o", "labels.main=uar"], ["metric of task emotion+sex", "uar"]),
    ],
)
def test_mistakes(
    flags: list[str], words: list[str], demo_corpus: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    status = call("-u", "demo", "-p", "none", *flags, "--corpus", "demo", "--data", demo_corpus,
                  "--out", tmp_path)  # fmt: skip
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1, error
    assert all(word in error for word in words), error
