"""A run of two corpora: as one, drawn evenly, and its numbers corpus by corpus."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from pathlib import Path

import pytest

from emopeft.commands import door
from emopeft.downstream.data.prepare import prepare
from emopeft.downstream.data.recipe import build
from emopeft.downstream.records.corpora_apart import Part, of_each_corpus
from emopeft.downstream.records.record import verify
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from emopeft.leaderboard.gather import gather
from emopeft.leaderboard.render import as_json, markdown
from tests.calls import call, predictions, read

PAIR = "demo-natural+demo-acted"
SHORT = ["-o", "train.epochs=3", "-o", "train.lr=1e-2"]


@pytest.fixture(scope="module")
def shown(demo_domains: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two runs of three folds, as they are and drawn evenly, and what the first one printed."""
    out = tmp_path_factory.mktemp("pools")
    places = [f"--data={name}={demo_domains}" for name in PAIR.split("+")]
    flags = ["run", "-u", "demo", "-p", "none", "--corpus", PAIR, *places, "--protocol",
             "pool:folds=3", "--out", str(out), *SHORT]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.extend(map(str, words)))
        assert door.main([*flags, "-n", "pool"]) == 0
        lines = "\n".join(printed).splitlines()
        even = ["-o", "train.corpora=balanced", "-o", "train.sampling=balanced"]
        assert door.main([*flags, *even, "-n", "even"]) == 0
    return out, lines


def uar(rows: list[dict[str, str]]) -> float:
    """The mean recall over the classes that the truths hold."""
    recalls = []
    for label in {row["truth"] for row in rows}:
        own = [row for row in rows if row["truth"] == label]
        recalls.append(sum(row["prediction"] == label for row in own) / len(own))
    return math.fsum(recalls) / len(recalls)


def test_every_number_is_there_of_each_corpus(shown: tuple[Path, list[str]]) -> None:
    out, lines = shown
    assert verify(out / "pool") == []
    record = read(out / "pool/result.json")
    assert record["plan"]["protocol"] == "pool-demo-acted-demo-natural-4-3fold"
    assert [c["name"] for c in record["corpora"]] == ["demo-acted", "demo-natural"]
    rows = predictions(out / "pool/predictions.csv")
    for corpus, numbers in record["by_corpus"]["test"].items():
        own = [row for row in rows if row["id"].startswith(f"{corpus}/")]
        each = []
        for fold in numbers["folds"]:
            of_fold = [row for row in own if row["fold"] == fold["fold"]]
            each.append(uar(of_fold))
            assert fold["utterances"] == len(of_fold) == 32
            assert fold["metrics"]["uar"] == pytest.approx(each[-1], abs=1e-12)
        assert len(each) == 3 and numbers["lacks"] == []
        summary = numbers["summary"]["uar"]
        assert summary["mean"] == pytest.approx(statistics.fmean(each), abs=1e-12)
        assert summary["std"] == pytest.approx(statistics.stdev(each), abs=1e-12)
        assert numbers["pooled"]["uar"] == pytest.approx(uar(own), abs=1e-12)
        (mean,) = (line.split() for line in lines if line.startswith(f"{corpus:12}  mean"))
        assert mean[5:8] == [f"{100 * summary['mean']:.2f}", "±", f"{100 * summary['std']:.2f}"]


def test_a_false_number_of_a_corpus_is_found(shown: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = shutil.copytree(shown[0] / "pool", tmp_path / "pool")
    record = read(run / "result.json")
    record["by_corpus"]["test"]["demo-acted"]["summary"]["uar"]["mean"] = 0.99
    (run / "result.json").write_text(json.dumps(record))
    (problem,) = verify(run)
    assert "says by_corpus.test.demo-acted.summary.uar.mean = 0.99" in problem
    del record["by_corpus"]  # of a record that was written before there was the key
    (run / "result.json").write_text(json.dumps(record))
    assert verify(run) == []


def test_even_corpora_are_another_run_and_as_they_are_is_what_it_was(
    shown: tuple[Path, list[str]],
) -> None:
    one, other = (read(shown[0] / name / "result.json") for name in ("pool", "even"))
    assert "corpora" not in one["identity"]["train"] and "corpora" not in one["train"]
    assert other["identity"]["train"]["corpora"] == other["train"]["corpora"] == "balanced"
    assert one["plan"]["hash"] == other["plan"]["hash"] and one["id"] != other["id"]


def test_the_board_shows_each_corpus(shown: tuple[Path, list[str]]) -> None:
    board = gather(shown[0])
    assert not board.refused
    text = markdown(board)
    (header,) = (line for line in text.splitlines() if line.endswith("demo-natural |"))
    assert header.split("|")[-3].strip() == "demo-acted" and "UAR % of each corpus:" in text
    (table,) = as_json(board)["tables"]
    for row in table["rows"]:
        mean = row["by_corpus"]["demo-acted"]["summary"]["uar"]["mean"]
        assert f" {100 * mean:.2f} ± " in text


def test_evaluate_shows_each_corpus(
    shown: tuple[Path, list[str]], demo_domains: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"demo-acted={demo_domains}"  # the other one lies where it did
    assert call("-m", "evaluate", "--run", shown[0] / "pool", "--fold", "1", "--data", place) == 0
    again = capsys.readouterr().out.splitlines()
    for line in shown[1]:
        if line.startswith("demo-") and line.split()[1] == "1":
            assert line.split() in [other.split() for other in again]


def test_ratings_of_a_pool(demo_domains: Path, tmp_path: Path) -> None:
    """Where all corpora rate something they are learned together; else it is said."""
    places = {name: str(demo_domains) for name in PAIR.split("+")}
    keys = {"task": "dimensional", "cache.dir": str(tmp_path), "protocol": "pool:folds=3"}
    plan = prepare(build({**keys, "corpus.name": PAIR, "corpus.data": places})).plan
    assert plan.task.target_names == ("valence", "arousal") and len(plan.examples()) == 192
    (tmp_path / "m.csv").write_text("id,path,speaker,label\n" + "".join(
        f"{i},{next(demo_domains.rglob('*.wav'))},s{i % 4},{['happy', 'sad'][i // 4]}\n"
        for i in range(8)
    ))  # fmt: skip
    mixed = {"corpus.name": "manifest+demo-acted", "corpus.data": {
        "manifest": str(tmp_path / "m.csv"), "demo-acted": str(demo_domains)}}  # fmt: skip
    with pytest.raises(UserError, match="pool-demo-acted-manifest-2-3fold is for -d emotion, not"):
        prepare(build({**keys, **mixed}))


def test_a_corpus_that_lacks_classes_by_hand() -> None:
    """UAR over the classes that a corpus' tests hold; which it lacks is told."""
    task = EmotionTask(["sad", "happy", "calm"])

    def part(fold: str, seed: int, corpus: str, cells: str) -> Part:
        names = {"s": "sad", "h": "happy", "c": "calm"}
        truth, prediction = ([names[pair[i]] for pair in cells.split()] for i in (0, 1))
        scores = {f"score_{c}": [0.0] * len(truth) for c in task.classes}
        return Part(fold, seed, corpus, {"truth": truth, "prediction": prediction, **scores})

    parts = [
        part("1", 0, "b", "ss sh hh"),  # recall of sad 1/2, of happy 1
        part("1", 1, "b", "ss ss hh"),  # 1, 1
        part("2", 0, "b", "hh"),  # 1
        part("2", 1, "b", "hc"),  # 0
        part("1", 0, "a", "ss cc hc"),
        part("1", 1, "a", "ss cc hh"),
    ]
    found = of_each_corpus(parts, task)
    assert list(found) == ["a", "b"]
    assert found["b"]["lacks"] == ["calm"] and found["a"]["lacks"] == []
    assert [f["metrics"]["uar"] for f in found["b"]["folds"]] == [0.75, 1.0, 1.0, 0.0]
    # Folds: (0.75 + 1) / 2 and (1 + 0) / 2; seeds: (0.75 + 1) / 2 and (1 + 0) / 2.
    summary = found["b"]["summary"]["uar"]
    assert (summary["mean"], summary["n"]) == (0.6875, 2)
    assert summary["std"] == summary["seed_std"] == pytest.approx(0.375 / math.sqrt(2))
    # All folds at once: sad 1/2 and happy 2/2; sad 2/2 and happy 1/2.
    assert found["b"]["pooled"]["uar"] == pytest.approx((0.75 + 0.75) / 2)
    assert found["a"]["summary"]["uar"]["n"] == 1 and found["a"]["summary"]["uar"]["std"] is None
    assert of_each_corpus(parts[:4], task) == {}
