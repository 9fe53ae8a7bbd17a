"""A fold's folder: written whole, read with suspicion, its parts against each other."""

import json
import math

import pytest

from emopeft.downstream.records.folds import fold_folder, read_fold, write_fold
from emopeft.downstream.records.predictions import Prediction
from emopeft.errors import UserError
from tests.records.cases import (
    delete,
    dev_rows,
    example_facts,
    make_fold,
    make_rows,
    plan_rows,
    put,
    tamper,
)


def write(folder, facts=None, tests=None, dev=None, rows=None):
    return write_fold(
        folder,
        example_facts() if facts is None else facts,
        plan_rows("1") if rows is None else rows,
        make_rows("1") if tests is None else tests,
        dev_rows("1") if dev is None else dev,
    )


def test_what_is_written_is_read(tmp_path):
    assert read_fold(tmp_path / "none") is None
    written = make_fold(tmp_path, "1", right=5)
    found = read_fold(tmp_path / "fold1_seed0")
    assert found is not None
    assert found.finished
    assert found.facts.to_json() == written
    assert found.tests == make_rows("1", right=5)
    assert found.dev == dev_rows("1")
    assert found.examples == plan_rows("1")
    assert found.facts.metrics["test"]["accuracy"] == 5 / 8
    assert not list(tmp_path.rglob("*.tmp"))
    (tmp_path / "fold1_seed0" / "fold.json").unlink()
    assert read_fold(tmp_path / "fold1_seed0") is None


def test_a_metric_that_is_no_number_does_not_lose_the_fold(tmp_path):
    """REVIEW C5: a NaN stands as null; everything else of the fold is there."""
    facts = example_facts()
    facts["stages"][0]["result"]["history"][0]["uar"] = math.nan
    facts["stages"][0]["result"]["tried"] = {"0.001": -math.inf, "0.0001": 0.5}
    write(tmp_path, facts)
    found = read_fold(tmp_path)
    result = found.facts.stages[0].result
    assert result.history[0]["uar"] is None
    assert result.tried == {"0.001": None, "0.0001": 0.5}
    assert "NaN" not in (tmp_path / "fold.json").read_text()


def test_outputs_that_are_no_numbers_make_a_failed_fold(tmp_path):
    """REVIEW C5: the fold is not lost, and never a result."""
    rows = make_rows("1")
    broken = rows[-1].values | {"score_sad": math.nan}
    rows[-1] = Prediction(**{**vars(rows[-1]), "values": broken})
    made = write(tmp_path, tests=rows)
    assert made.status == "failed"
    assert "training diverged" in made.reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["examples.csv", "fold.json"]
    assert not read_fold(tmp_path).finished


def test_a_fold_name_cannot_leave_the_run(tmp_path):
    assert fold_folder(tmp_path, "1", 0) == tmp_path / "fold1_seed0"
    names = ("../x", "..%2Fx", "a/b", "a b", "ü", "ü" * 99, "ü" * 99 + "/", "ü" * 98)
    places = [fold_folder(tmp_path, name, 0) for name in names]
    assert all(len(place.name) < 120 for place in places)
    assert all(place.parent == tmp_path for place in places)
    assert len(set(places)) == len(places)


CONTRADICTIONS = {
    "metric": (put(0.9, "metrics", "test", "uar"), "uar is recorded as 0.9, but the predictions"),
    "a metric left out": (delete("metrics", "test", "uar"), "'uar' is recorded or counted"),
    "dev metric": (put(0.9, "stages", 0, "result", "dev", "uar"), "dev: uar is recorded as 0.9"),
    "plan hash": (put("a" * 64, "plan", "hash"), "plan.hash is not that of its folds"),
    "audio hash": (put("a" * 64, "plan", "audio_hash"), "plan.audio_hash is not that"),
    "fold hash": (put("a" * 64, "plan", "folds", "1", "hash"), "not what the plan's hash says"),
    "method of a stage": (put("ws", "stages", 0, "method"), "not what the plan's hash says"),
    "spec": (put("lora:r=64", "method", "spec"), "method.spec does not say"),
    "other spec": (put("full", "method", "spec"), "method.spec does not say"),
    "options": (put(64, "method", "parts", 0, "options", "r"), "identity.methods is not that"),
    "weights": (put("b" * 64, "upstream", "weights"), "identity.upstream is not that"),
    "identity": (put("c" * 64, "identity", "plan"), "identity.plan is not that"),
    "learning rate": (put(5e-5, "train", "lr"), "identity.train is not that"),
    "precision": (put("bf16", "numerics", "precision"), "identity.numerics is not that"),
    "3 utterances": (put(3, "corpora", 0, "utterances"), "said to have 3 utterances, but"),
    "counts": (put(9, "utterances", "train"), "utterances.train is 9, but examples.csv holds 8"),
    "test counts": (put(9, "utterances", "tests", "test"), "utterances.tests is"),
    "head + method": (put(5, "parameters", "head"), "method \\+ head must be trainable"),
    "share": (put(0.5, "parameters", "share"), "share' must be trainable / total"),
    "fold": (put("9", "fold"), "'fold' is '9'"),
    "seed": (put(1, "seed"), "'seed' is 1"),
    "no result": (put(None, "stages", 0, "result"), "must have the 'result'"),
    "finished with reason": (put("x", "reason"), "has no 'reason'"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_fold_that_contradicts_itself_is_neither_written_nor_read(tmp_path, case):
    """REVIEW D2: metrics, plan, identity, spelling, counts against the fold's own files."""
    change, words = CONTRADICTIONS[case]
    facts = example_facts()
    change(facts)
    with pytest.raises(UserError, match=words):
        write(tmp_path, facts)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path)
    tamper(tmp_path / "fold.json", change)
    with pytest.raises(UserError, match=words) as caught:
        read_fold(tmp_path)
    assert "fold.json" in str(caught.value)


DAMAGE = {
    "no schema": (delete("schema"), "key 'schema' is missing"),
    "other schema": (put(3, "schema"), "key 'schema'"),
    "true is not a number": (put(True, "seed"), "key 'seed' must"),
    "text as number": (put("0.5", "stages", 0, "result", "lr"), "'stages.0.result.lr' must"),
    "hash": (put("../..", "plan", "hash"), "key 'plan.hash' must"),
    "unknown key": (put(1, "cost"), "unknown key 'cost'"),
    "unknown key below": (put(1, "seconds", "extra"), "unknown key 'seconds.extra'"),
    "endless time": (put(1e300, "seconds", "train"), "'seconds.train' must be less"),
    "negative": (put(-1.0, "seconds", "train"), "'seconds.train' must be greater"),
    "too large": (put(10**30, "peak_memory_bytes", "host"), "'peak_memory_bytes.host'"),
    "date": (put("yesterday", "created"), "'created': must be a date"),
    "date of year 1": (put("0001-01-01T00:00:00+14:00", "created"), "'created': must be a date"),
    "task": (put("emotion", "task"), "key 'task' must"),
    "unknown task": (put("emotoin", "task", "name"), "did you mean emotion"),
    "other version": (put(9, "task", "version"), "task emotion is version 1 here and 9 there"),
    "empty name": (put("", "run"), "key 'run' must"),
    "nested": (put(json.loads("[" * 60 + "]" * 60), "cache", "x"), "'cache': is nested too"),
    "large in a corner": (put({"x": [2**70]}, "cache", "x"), "'cache': holds a whole number"),
    "no stages": (put([], "stages"), "key 'stages' must"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_fold_is_refused_by_key(tmp_path, case):
    change, words = DAMAGE[case]
    write(tmp_path)
    tamper(tmp_path / "fold.json", change)
    with pytest.raises(UserError, match=words) as caught:
        read_fold(tmp_path)
    assert "fold.json" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", '{"schema": 2, "stat', "[]", "null", "[" * 100_000, "1" * 5000, b"\xff\xfe{}"]
)
def test_what_is_no_fold_at_all(tmp_path, text):
    write(tmp_path)
    (tmp_path / "fold.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"fold\.json"):
        read_fold(tmp_path)


def lines_of(path):
    return path.read_text().splitlines()


def test_predictions_against_the_plan(tmp_path):
    """REVIEW D2: easier utterances, other truths, other speakers under an honest hash."""
    write(tmp_path)
    for name in ("predictions.csv", "dev.csv"):
        path = tmp_path / name
        good = path.read_text()
        lines = good.splitlines()
        other = lines[1].replace("_u0", "_x0")
        easy = lines[2].replace("happy", "neutral", 1)
        for changed, words in (
            ([lines[0], other, *lines[2:]], "where the plan has"),
            (lines[:-1], "predicts 7 examples where the plan has 8"),
            ([*lines, lines[-1]], "predicts 9 examples where the plan has 8"),
            ([lines[0], lines[2], lines[1], *lines[3:]], "where the plan has"),
            ([*lines[:2], easy, *lines[3:]], "the truth of"),
            ([lines[0], lines[1].replace("toy/s", "toy/t"), *lines[2:]], "the speaker of"),
            ([line.replace(",1,0,", ",2,0,") for line in lines], "another fold or seed"),
            (lines[:1], "there are no predictions"),
        ):
            path.write_text("".join(f"{line}\n" for line in changed))
            with pytest.raises(UserError, match=words):
                read_fold(tmp_path)
        path.write_text(good)
    assert read_fold(tmp_path) is not None


def test_rows_of_the_plan_against_its_hash(tmp_path):
    """REVIEW A4, D2: another utterance, another speaker, another recording than was hashed."""
    write(tmp_path)
    path = tmp_path / "examples.csv"
    good = path.read_text()
    for old, new, words in (
        ("toy/train_u0", "toy/train_u9", "not what the plan's hash says"),
        ("toy/strain", "toy/sdev", "not what the plan's hash says"),
        (plan_rows("1")[0].audio, "0" * 64, "the plan's audio hash"),
    ):
        assert old in good
        path.write_text(good.replace(old, new, 1))
        with pytest.raises(UserError, match=words):
            read_fold(tmp_path)
