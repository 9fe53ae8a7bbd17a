"""Three named tests of one run, the third of them unscored, from the manifest to the board."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emopeft.commands.door import main as door
from emopeft.downstream.corpora.demo import read as demo
from emopeft.downstream.records.record import verify, write_record
from emopeft.downstream.runs import write
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.leaderboard.gather import gather
from tests.calls import call, predictions, read

SPLITS = {"1": "Train", "2": "Train", "3": "Development", "4": "Test1", "5": "Test2"}
# Of Test3, as if somebody's release told it, the second one as no class of ours.
LABELLED, AMUSED = "ses5_F_angry_03", "ses5_F_happy_03"
RATED = {"happy": 5.5, "neutral": 4.0, "angry": 2.5, "sad": 1.5}


def corpus(root: Path, demo_corpus: Path) -> list[object]:
    """Flags for a manifest with Test1, Test2 and Test3, and its protocol; Test3 has the speakers
    of Test2 and one label."""
    clips = [u for u in demo(demo_corpus) if u.id.endswith(("01", "02", "03"))]
    with (root / "clips.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "path", "speaker", "label", "split", "valence", "arousal", "dominance"])
        for u in clips:
            third = u.session == "5" and u.id.endswith("03")
            told = not third or u.id == LABELLED
            rating = RATED[u.emotion or ""]
            ratings = [rating, 8 - rating, rating] if told else [""] * 3
            split = "Test3" if third else SPLITS[u.session or ""]
            label = "amused" if u.id == AMUSED else u.emotion if told else ""
            out.writerow([u.id, u.path, u.speaker, label, split, *ratings])
    protocol = {
        "name": "three-tests", "version": 1, "corpus": "manifest",
        "task": ["emotion", "dimensional"], "description": "For tests.", "source": "ours",
        "unit": "rule", "rule": {"by": "split"}, "unscored": ["test3"],
        "submission": "msp-podcast",
    }  # fmt: skip
    (root / "three.json").write_text(json.dumps(protocol))
    scale = "corpus.options={scale: {valence: [1, 7], arousal: [1, 7], dominance: [1, 7]}}"
    return ["-u", "demo", "--corpus", "manifest", "--data", root / "clips.csv", "-o", scale,
            "--protocol", root / "three.json", "-o", "train.epochs=1"]  # fmt: skip


@pytest.fixture(scope="module")
def flags(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    return corpus(tmp_path_factory.mktemp("three"), demo_corpus)


@pytest.fixture(scope="module")
def runs(flags: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of two tasks, and a frozen probe of one."""
    out = tmp_path_factory.mktemp("runs")
    both = ["-d", "emotion+dimensional", "-p", "lora"]
    assert call(*flags, *both, "--out", out, "-n", "lora") == 0
    assert call(*flags, "-d", "emotion", "-p", "none", "--out", out, "-n", "probe") == 0
    return out


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("name", ["lora", "probe"])
def test_measured_are_two_tests_and_predicted_three(runs: Path, name: str) -> None:
    run = runs / name
    assert verify(run) == []
    record = read(run / "result.json")
    (fold,) = record["folds"]
    assert record["plan"]["tests"] == list(fold["metrics"]) == ["test1", "test2"]
    assert list(record["summary"]) == list(record["pooled"]) == list(record["speakers"])
    assert list(record["summary"]) == ["test1", "test2"]
    blind = predictions(run / "unscored.csv")
    assert fold["unscored"] == {"test3": len(blind)} == {"test3": 8}
    assert {row["test"] for row in predictions(run / "predictions.csv")} == {"test1", "test2"}
    assert {row["test"] for row in blind} == {"test3"}
    assert not [c for c in blind[0] if "truth" in c] and LABELLED in {r["id"][9:] for r in blind}
    planned = [r for r in predictions(run / "fold1_seed0" / "examples.csv") if r["set"] == "test3"]
    assert {row["part"] for row in planned} == {"unscored"}
    assert not any(v for row in planned for k, v in row.items() if k.startswith("target_"))
    assert any("have a target in this corpus" in w for w in record["plan"]["warnings"])
    assert record["audit"]["folds"]["1"]["speakers"]["test"] == {"test1": 2, "test2": 2, "test3": 2}
    before = (run / "unscored.csv").read_bytes(), (run / "result.json").read_bytes()
    write_record(run)
    assert before == ((run / "unscored.csv").read_bytes(), (run / "result.json").read_bytes())


def test_the_challenges_files(runs: Path) -> None:
    """Names, columns and units of the organisers' script (records/submissions.py)."""
    place = runs / "lora" / "fold1_seed0"
    blind = {row["id"][9:]: row for row in predictions(place / "unscored.csv")}
    header, *classes = rows(place / "submission_test3_classes.csv")
    assert header == ["FileName", "EmoClass"]
    assert [name for name, _ in classes] == [f"{name}.wav" for name in blind]
    letters = {"angry": "A", "sad": "S", "happy": "H", "neutral": "N"}
    assert [c for _, c in classes] == [letters[r["emotion.prediction"]] for r in blind.values()]
    header, *ratings = rows(place / "submission_test3_attributes.csv")
    assert header == ["FileName", "EmoAct", "EmoVal", "EmoDom"]
    assert [name for name, *_ in ratings] == [f"{name}.wav" for name in blind]
    for (_, *numbers), row in zip(ratings, blind.values(), strict=True):
        own = [
            float(row[f"dimensional.prediction_{r}"]) for r in ("arousal", "valence", "dominance")
        ]
        assert [float(x) for x in numbers] == [min(max(1.0, x), 7.0) for x in own]
    assert not (runs / "probe" / "fold1_seed0" / "submission_test3_attributes.csv").exists()


def test_board_tables_and_evaluation_name_it(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = len(predictions(runs / "probe" / "unscored.csv"))
    assert door(["board", str(runs), "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / "leaderboard.md").read_text()
    for text in (shown, page):
        assert "test test1 (main)" in text and "test test2 (hash" in text
        assert "test test3" not in text and f"test3 ({number} clips)" in text
    tables = read(tmp_path / "leaderboard.json")["tables"]
    assert sorted((t["test"], t["main"]) for t in tables) == [
        ("test1", True), ("test1", True), ("test2", False), ("test2", False)
    ]  # fmt: skip
    assert all(f["unscored"] == {"test3": number} for t in tables for r in t["rows"]
               for f in r["folds"])  # fmt: skip
    results = evaluate(runs / "probe")
    assert [r["test"] for r in results] == ["test1", "test2", "test3"]
    assert [r["metrics"] is None for r in results] == [False, False, True]
    assert all(r["difference"] < 1e-4 for r in results) and results[2]["clips"] == number
    assert call("-m", "evaluate", "--run", runs / "probe") == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:5] == ["1", "0", "test3", str(number), "unscored"]


def test_said_at_the_end_and_done_once(
    runs: Path, flags: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [runs / "probe" / "fold1_seed0" / n for n in ("unscored.csv", "fold.json")]
    before = [(f.read_bytes(), f.stat().st_mtime_ns) for f in files]
    assert call(*flags, "-d", "emotion", "-p", "none", "--out", runs, "-n", "probe") == 0
    assert before == [(f.read_bytes(), f.stat().st_mtime_ns) for f in files]
    shown = capsys.readouterr().out
    assert "test test1 (main)" in shown and "\ntest test2\n" in shown
    number = len(predictions(files[0]))
    assert f"unscored: test3 ({number} clips), in unscored.csv" in shown


def test_killed_while_it_is_written_and_resumed(
    runs: Path, flags: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    command = [*flags, "-d", "emotion", "-p", "none", "--out", tmp_path, "-n", "r"]
    with monkeypatch.context() as patch:
        patch.setattr(write, "write_fold", killed)
        assert call(*command) == 130
    assert not (tmp_path / "r" / "unscored.csv").exists()
    assert call(*command) == 0
    one, other = ((p / "unscored.csv").read_bytes() for p in (tmp_path / "r", runs / "probe"))
    assert one == other and verify(tmp_path / "r") == []


def last_row(text: str) -> str:
    return text[: text.rstrip("\n").rindex("\n") + 1]


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("fold1_seed0/unscored.csv", last_row, "test3 predicts 7 examples where the plan has 8"),
        ("fold1_seed0/unscored.csv", lambda t: t.replace(",test3,", ",test9,"), "not planned"),
        ("fold1_seed0/unscored.csv", lambda t: t.replace("prediction", "truth"), "header must be"),
        ("fold1_seed0/unscored.csv", lambda t: t.replace("ses5_F", "ses4_F"), "where the plan has"),
        ("fold1_seed0/unscored.csv", None, "unscored.csv"),
        ("fold1_seed0/fold.json", lambda t: t.replace('"test3": 8', '"test3": 7'), "unscored is"),
        ("fold1_seed0/examples.csv", lambda t: t.replace("unscored,", "test,"), "plan's hash"),
        ("unscored.csv", last_row, "its unscored.csv is not that of its folds"),
        ("unscored.csv", None, "unscored.csv"),
    ],
)
def test_the_board_refuses_what_was_changed(
    runs: Path, tmp_path: Path, file: str, change: Callable[[str], str] | None, says: str
) -> None:
    shutil.copytree(runs / "probe", tmp_path / "r")
    place = tmp_path / "r" / file
    text = place.read_text()
    place.unlink() if change is None else place.write_text(change(text))
    assert change is None or place.read_text() != text
    (refused,) = gather(tmp_path).refused
    assert says in refused[1]


def test_what_a_challenge_does_not_take_is_said_before_training(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(str(flags[flags.index("--data") + 1])).read_text()
    (tmp_path / "clips.csv").write_text(data.replace(",happy,", ",amused,"))
    changed = [tmp_path / "clips.csv" if str(f).endswith("clips.csv") else f for f in flags]
    assert call(*changed, "-d", "emotion", "-p", "none", "--out", tmp_path, "-n", "r") == 2
    assert "submission format msp-podcast takes the classes angry" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
