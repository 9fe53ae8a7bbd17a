"""The record: a pure function of the fold folders, the same wherever and however often."""

import json
import math
import shutil
import subprocess
import sys

import pytest

from emopeft.downstream.records.folds import fold_folder
from emopeft.downstream.records.record import make_record as remade
from emopeft.downstream.records.record import read_record, write_record
from emopeft.downstream.records.together import summarise
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from tests.records.cases import CLASSES, FOLDS, make_fold, make_record, put, tamper
from tests.shared import ROOT

TASK = EmotionTask(CLASSES)


def test_what_is_written_is_read(tmp_path):
    written = make_record(tmp_path, seeds=(0, 1))
    assert read_record(tmp_path) == written == remade(tmp_path)
    assert [(f["fold"], f["seed"]) for f in written["folds"]] == [
        *(("1", 0), ("2", 0), ("3", 0), ("1", 1), ("2", 1), ("3", 1))
    ]
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 * 8
    assert lines[0].startswith("id,fold,seed,test,speaker,sex,truth,prediction,score_neutral")
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_same_to_the_byte_elsewhere_without_torch(tmp_path):
    """REVIEW A6: nothing of machine, moment or place is in it; torch and corpus are not needed."""
    make_record(tmp_path / "here" / "run", seeds=(0, 1))
    first = (tmp_path / "here" / "run" / "result.json").read_bytes()
    table = (tmp_path / "here" / "run" / "predictions.csv").read_bytes()
    there = tmp_path / "elsewhere" / "under another name"
    shutil.copytree(tmp_path / "here" / "run", there)
    shutil.rmtree(tmp_path / "here")
    for name in ("result.json", "predictions.csv"):
        (there / name).unlink()
    code = (
        "import pathlib, sys\n"
        "for name in ('torch', 'transformers', 'peft', 'accelerate'): sys.modules[name] = None\n"
        "from emopeft.downstream.records.record import write_record\n"
        "from emopeft.downstream.records.record import verify\n"
        "for _ in range(2): write_record(pathlib.Path(sys.argv[1]))\n"
        "assert verify(pathlib.Path(sys.argv[1])) == []"
    )
    subprocess.run([sys.executable, "-c", code, str(there)], check=True, cwd=ROOT)
    assert (there / "result.json").read_bytes() == first
    assert (there / "predictions.csv").read_bytes() == table


def test_a_later_call_changes_nothing(tmp_path):
    """REVIEW A6: recipe.yaml, identity.json, curves and adapters may go or change."""
    first = make_record(tmp_path)
    for name in ("recipe.yaml", "identity.json", "fold1_seed0/adapter.json"):
        (tmp_path / name).write_text("something else")
    (tmp_path / "fold7_seed0").mkdir()  # begun
    (tmp_path / "fold1_seed0" / "curves").mkdir()
    assert write_record(tmp_path) == first


def test_facts_that_differ_between_folds(tmp_path):
    """REVIEW A6: each fold's own command, device and packages; the latest fold's moment."""
    make_fold(tmp_path, "1", created="2025-01-03T00:00:00+00:00", command="first")
    make_fold(
        tmp_path, "2", created="2025-01-03T01:30:00+02:00", command="second",
        device={"type": "cuda", "name": "a card", "count": 2}, packages={"python": "3.12.1"},
        recipe={"name": "lashkarashvili2024/lora", "file": "lora.yaml"}, name="renamed",
    )  # fmt: skip
    record = remade(tmp_path)
    assert record["commands"] == ["first", "second"]
    assert record["created"] == "2025-01-03T00:00:00+00:00"  # the second was before, in UTC
    assert [device["name"] for device in record["devices"]] == ["a processor", "a card"]
    assert record["packages"] == [{"python": "3.11.7"}, {"python": "3.12.1"}]
    assert [recipe["name"] for recipe in record["recipes"]] == [None, "lashkarashvili2024/lora"]
    assert record["code"] == [{"version": "0.1.0", "commit": "7bb2e4c", "dirty": False}]
    assert record["differs"] == ["run"]
    assert record["name"] == "first"


def test_cost_is_that_of_the_folds(tmp_path):
    """REVIEW A18: hours per second of training without the search; sums of wall time; peaks."""
    seconds = {"load": 1.0, "features": 0.5, "tune": 70.0, "train": 20.0, "test": 2.0}
    make_fold(tmp_path, "1", seconds=seconds, frozen_seconds=30.0)
    peak = {"host": 100, "device": 7}
    make_fold(tmp_path, "2", seconds=seconds, frozen_seconds=None, peak_memory_bytes=peak)
    cost = remade(tmp_path)["cost"]
    assert cost["seconds"] == {name: 2 * value for name, value in seconds.items()}
    assert cost["frozen_seconds"] == 30.0
    # each fold's stage: half an hour of audio in 20 s
    assert cost["audio_hours_per_second"] == pytest.approx(0.5 / 20)
    assert cost["peak_memory_bytes"] == {"host": 1_500_000_000, "device": 7}


def test_what_was_really_run_is_kept(tmp_path):
    """REVIEW A19: the method as asked for, the weights and whether they were given by path."""
    make_fold(
        tmp_path,
        "1",
        method="lora",
        upstream="hubert",
    )

    def change(facts):
        facts["method"]["asked"] = "lora@peft-ser"
        facts["upstream"] |= {"local": True, "source": "local:mine"}

    tamper(tmp_path / "fold1_seed0" / "fold.json", change)
    record = remade(tmp_path)
    assert record["method"]["asked"] == "lora@peft-ser"
    assert record["upstream"]["source"] == "local:mine"
    assert record["upstream"]["local"] is True


def test_failed_folds_say_why(tmp_path):
    make_fold(tmp_path, "1", right=8)
    make_fold(tmp_path, "2", failed="training diverged at step 7")
    record = write_record(tmp_path)
    assert record["status"] == "incomplete"
    assert [(f["fold"], f["status"], f["reason"]) for f in record["folds"]] == [
        ("1", "finished", None),
        ("2", "failed", "training diverged at step 7"),
    ]
    assert record["missing"] == [{"fold": "2", "seed": 0}, {"fold": "3", "seed": 0}]
    assert record["summary"]["test"]["uar"]["n"] == 1
    shutil.rmtree(fold_folder(tmp_path, "1", 0))
    assert write_record(tmp_path)["summary"] == {}  # only a failed one is left


def test_status_needs_every_fold_of_every_seed_asked_for(tmp_path):
    make_record(tmp_path / "all", seeds=(0, 1))
    assert remade(tmp_path / "all")["status"] == "finished"
    for fold in FOLDS:
        make_fold(tmp_path / "one", fold, seeds=(0, 1))
    record = remade(tmp_path / "one")
    assert record["status"] == "incomplete"
    assert record["missing"] == [{"fold": fold, "seed": 1} for fold in FOLDS]


def test_folds_of_two_runs_make_no_record(tmp_path):
    make_fold(tmp_path, "1")
    make_fold(tmp_path, "2", method="ba")
    with pytest.raises(UserError, match="of another run than .*: identity differs"):
        remade(tmp_path)
    shutil.rmtree(tmp_path / "fold2_seed0")
    shutil.copytree(tmp_path / "fold1_seed0", tmp_path / "fold2_seed0")
    with pytest.raises(UserError, match="fold2_seed0 holds fold 1 of seed 0"):
        remade(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(UserError, match="holds no fold that ended"):
        remade(tmp_path)


def test_summary_by_hand():
    def entry(fold, seed, value):
        metrics = {"accuracy": value, "uar": value, "macro_f1": value}
        return {"fold": fold, "seed": seed, "metrics": {"test": metrics}}

    def uar(entries):
        return summarise(entries, TASK, ["test"])["test"]["uar"]

    one = uar([entry("1", 0, 0.2), entry("2", 0, 0.6)])
    assert one == {
        "mean": pytest.approx(0.4), "std": pytest.approx(0.4 / math.sqrt(2)), "n": 2,
        "seed_std": None,
    }  # fmt: skip
    grid = [("1", 0, 0.2), ("2", 0, 0.6), ("1", 1, 0.4), ("2", 1, 1.0)]
    two = uar([entry(*cell) for cell in grid])
    # fold means 0.3 and 0.8; seed means 0.4 and 0.7
    assert two["mean"] == pytest.approx(0.55)
    assert two["std"] == pytest.approx(0.5 / math.sqrt(2))
    assert two["seed_std"] == pytest.approx(0.3 / math.sqrt(2))
    assert two["n"] == 2
    # with a hole the seeds' means are of different folds: no spread is given
    assert uar([entry(*cell) for cell in grid[:3]])["seed_std"] is None
    # REVIEW C5: one that is none makes the mean none, not smaller
    assert math.isnan(uar([entry("1", 0, None), entry("2", 0, 0.6)])["mean"])


def test_a_failure_leaves_the_old_record(tmp_path, monkeypatch):
    make_record(tmp_path, present=("1", "2"))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    make_fold(tmp_path, "3", right=4)

    def full(path, text, encoding):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "write_text", full)
        with pytest.raises(UserError, match="No space left"):
            write_record(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert write_record(tmp_path)["status"] == "finished"


def test_never_a_result_beside_other_predictions(tmp_path, monkeypatch):
    """Killed between the two renames, there is no result rather than a wrong one."""
    make_record(tmp_path)
    original = type(tmp_path).replace

    def killed(self, target):
        if str(target).endswith("result.json"):
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_record(tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert (tmp_path / "predictions.csv").exists()


DAMAGE = {
    "no schema": (lambda r: r.pop("schema"), "key 'schema' is missing"),
    "true is not 1": (put(True, "schema"), "key 'schema'"),
    "unknown key": (put(1.0, "cost", "seconds", "extra"), "unknown key 'cost.seconds.extra'"),
    "endless": (put(1.7e308, "cost", "seconds", "train"), "'cost.seconds.train' must be less"),
    "nested": (put(json.loads("[" * 80 + "]" * 80), "cost", "cache", "x"), "nested too deeply"),
    "no fold": (put([], "folds"), "key 'folds' must"),
    "hash": (put("../..", "plan", "hash"), "key 'plan.hash' must"),
    "mean": (put("x", "summary", "test", "uar", "mean"), "'summary.test.uar.mean' must"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record_is_refused_by_key(tmp_path, case):
    change, words = DAMAGE[case]
    make_record(tmp_path)
    tamper(tmp_path, change)
    with pytest.raises(UserError, match=words) as caught:
        read_record(tmp_path)
    assert "result.json" in str(caught.value)
