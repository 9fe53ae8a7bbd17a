"""Records of schema 1: still read, counted again, and never in a table with newer ones."""

import json
import math

import pytest

from emopeft.downstream.records.record import examine, read_record
from emopeft.errors import UserError
from emopeft.files import digest
from tests.records.cases import delete, put, tamper
from tests.records.cases_v1 import make_record_v1


def problems(run, change=None, **kind):
    make_record_v1(run, **kind)
    if change:
        tamper(run, change)
    return examine(run).problems


def test_read_and_counted_again(tmp_path):
    written = make_record_v1(tmp_path, seeds=(0, 1))
    found = examine(tmp_path)
    assert found.problems == []
    assert any("schema 1" in words for words in found.warnings)
    assert [(f["fold"], f["seed"]) for f in found.data["folds"]] == [
        *(("1", 0), ("2", 0), ("3", 0), ("1", 1), ("2", 1), ("3", 1))
    ]
    for name, told in written["summary"].items():
        assert found.data["summary"]["test"][name] == pytest.approx(told)
    assert read_record(tmp_path)["name"] == "old"
    assert found.data["cost"]["seconds"]["train"] == 60.0


def test_the_old_macro_f1_is_accepted_and_counted_by_the_new_definition(tmp_path):
    """Then an absent class that was predicted counted as an F1 of 0."""
    make_record_v1(tmp_path, (8, 8, 8))
    path = tmp_path / "predictions.csv"
    lines = path.read_text().splitlines()
    # fold 1: no "sad" in truth any more; one of the two that were is now predicted "sad" wrongly
    rows = [line.split(",") for line in lines]
    for row in rows[1:9]:
        if row[4] == "sad":
            row[4] = "neutral"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    # neutral: 2 of 4 found, F1 = 2*2/(4+2); happy, angry: 1; sad: 0, then counted, now not
    old, new = (4 / 6 + 1 + 1 + 0) / 4, (4 / 6 + 1 + 1) / 3

    def change(record):
        metrics = record["folds"][0]["metrics"]
        metrics |= {"accuracy": 6 / 8, "uar": (2 / 4 + 1 + 1) / 3, "macro_f1": old}
        metrics["confusion"] = [[2, 0, 0, 2], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
        for name in ("accuracy", "uar", "macro_f1"):
            mean = (metrics[name] + 2) / 3
            std = math.sqrt(sum((x - mean) ** 2 for x in (metrics[name], 1, 1)) / 2)
            record["summary"][name] |= {"mean": mean, "std": std}

    tamper(tmp_path, change)
    found = examine(tmp_path)
    assert found.problems == []
    assert found.data["folds"][0]["metrics"]["test"]["macro_f1"] == pytest.approx(new)


DAMAGE = {
    "no classes": (delete("protocol", "classes"), "key 'protocol.classes' is missing"),
    "hash is no hash": (put("../..", "protocol", "hash"), "key 'protocol.hash' must"),
    "no fold": (put([], "folds"), "key 'folds' must"),
    "metric above 1": (put(58.1, "folds", 0, "metrics", "uar"), "'folds.0.metrics.uar' must"),
    "bool as number": (put(True, "folds", 0, "metrics", "uar"), "'folds.0.metrics.uar' must"),
    "unknown fold": (put("9", "folds", 0, "fold"), "fold '9' is not one of the protocol"),
    "fold twice": (put("2", "folds", 0, "fold"), "repeats fold 2"),
    "falsely finished": (delete("folds", 1), "finished, but folds are missing"),
    "trainable": (put(10**12, "parameters", "trainable"), "method \\+ head must be trainable"),
    "huge": (put(10**30, "cost", "cache_bytes"), "'cost.cache_bytes'"),
    "date": (put("yesterday", "created"), "'created': must be a date"),
    "upstream is a list": (put([], "upstream"), "key 'upstream' must"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record_is_refused_by_key(tmp_path, case):
    change, words = DAMAGE[case]
    make_record_v1(tmp_path)
    tamper(tmp_path, change)
    with pytest.raises(UserError, match=words) as caught:
        examine(tmp_path)
    assert "result.json" in str(caught.value)


def test_what_is_false_is_found(tmp_path):
    """REVIEW D2: what can be seen of an old record and its folder."""
    assert problems(tmp_path) == []
    assert problems(tmp_path, put(1 - 9e-7, "folds", 0, "metrics", "accuracy")) == []
    [found] = problems(tmp_path, put(0.99, "folds", 1, "metrics", "uar"))
    assert found == "fold 2, seed 0: uar is recorded as 0.99, but the predictions give 0.75"
    [found] = problems(tmp_path, put(0.99, "summary", "macro_f1", "mean"))
    assert found.startswith("summary.macro_f1.mean is recorded as 0.99")
    [found] = problems(tmp_path, put(False, "protocol", "audit", "clean"))
    assert "not clean" in found
    [found] = problems(tmp_path, put(["test"], "protocol", "speaker_overlap"))
    assert "shares speakers of test" in found
    [found] = problems(tmp_path, put(3, "corpus", "utterances"))
    assert "24 are tested of a corpus of 3" in found


def test_identity_is_that_of_the_folder(tmp_path):
    """REVIEW D2: the identity is recomputed where the folder holds what it is made of."""
    identity = {
        "method": "lora",
        "protocol": digest("old protocol"),
        "upstream": {"weights": digest("hubert")},
    }
    make_record_v1(tmp_path, identity=digest(identity))
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    assert examine(tmp_path).problems == []
    tamper(tmp_path, put("lora:r=64", "method", "spec"))
    assert "method.spec is not that of its identity.json" in examine(tmp_path).problems[0]
    tamper(tmp_path, put("a" * 64, "identity"))
    assert "not the digest" in examine(tmp_path).problems[0]


def test_predictions_are_read_with_suspicion(tmp_path):
    make_record_v1(tmp_path)
    path = tmp_path / "predictions.csv"
    good = path.read_text()
    for old, new, words in (
        ("id,fold", "fold,id", "line 1: the header must be id,fold"),
        ("neutral,neutral,0.6", "neutral,neutral,nan", "line 2"),
        ("neutral,neutral,0.6", "neutral,neutral,0.7", "line 2: the scores add up"),
        ("neutral,neutral,0.6", "neutral,sad,0.6", "line 2: the prediction 'sad' is not"),
        ("f1_u1,1,0", "f1_u1,1,x", "line 3: the seed 'x'"),
    ):
        path.write_text(good.replace(old, new, 1))
        with pytest.raises(UserError, match=words):
            examine(tmp_path)
    path.write_text("".join(line + "\n" for line in good.splitlines()[:-1]))
    assert "fold 3, seed 0: accuracy" in examine(tmp_path).problems[0]
    path.unlink()
    with pytest.raises(UserError, match="predictions.csv does not exist"):
        examine(tmp_path)
