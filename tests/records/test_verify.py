"""Verification: a record is believed where its fold folders give it again."""

import datetime
import re

import pytest

from emopeft.downstream.records.folds import fold_folder
from emopeft.downstream.records.record import examine, verify, write_record
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from tests.records.cases import (
    CLASSES,
    FOLDS,
    delete,
    make_fold,
    make_record,
    make_rows,
    plan_rows,
    put,
    tamper,
)

FOLD = {"fold": "1", "seed": 0, "utterances": 8, "metrics": {"uar": 1.0}}
INVENTED = {"test": {"toy": {"folds": [FOLD], "summary": {}, "pooled": {}, "lacks": []}}}

EDITS = {
    "corpora apart": (put(INVENTED, "by_corpus"), "says by_corpus ="),
    "audit.clean": (put(False, "audit", "clean"), "audit.clean = false, its folds give true"),
    "id": (put("a" * 64, "id"), "says id ="),
    "identity": (put(9, "identity", "cache"), "says identity.cache = 9"),
    "overlap": (put(["dev"], "plan", "overlap"), "says plan.overlap ="),
    "head + method": (put(5, "parameters", "head"), "head \\+|parameters"),
    "utterances": (put(3, "corpora", 0, "utterances"), "says corpora.0.utterances = 3"),
    "spec": (put("lora:r=64", "method", "spec"), "says method.spec ="),
    "asked": (put("full", "method", "asked"), "says method.asked ="),
    "upstream": (put("wavlm_large", "upstream", "name"), "says upstream.name ="),
    "note": (put("tuned", "upstream", "note"), "says upstream.note ="),
    "metric": (put(0.99, "folds", 1, "metrics", "test", "uar"), "folds.1.metrics.test.uar = 0.99"),
    "summary": (put(0.99, "summary", "test", "uar", "mean"), "summary.test.uar.mean = 0.99"),
    "std": (put(None, "summary", "test", "uar", "std"), "summary.test.uar.std = null"),
    "date": (put("2024-01-01T00:00:00+00:00", "created"), "says created ="),
    "time": (put(0.1, "cost", "seconds", "train"), "cost.seconds.train = 0.1"),
    "device": (put("a card", "devices", 0, "name"), "says devices.0.name ="),
    "fold removed": (delete("folds", 1), "says folds ="),
    "name": (put("best", "name"), 'says name = "best", its folds give "first"'),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_record_is_found(tmp_path, case):
    """REVIEW D2: every key of result.json is that of the fold folders, or the record is refused."""
    change, words = EDITS[case]
    assert "by_corpus" not in make_record(tmp_path)  # of one corpus there is nothing to say
    assert verify(tmp_path) == []
    tamper(tmp_path, change)
    problems = verify(tmp_path)
    assert problems
    assert re.search(words, problems[0]), problems[0]


def test_rounding_is_no_lie(tmp_path):
    make_record(tmp_path)
    tamper(tmp_path, lambda r: r["summary"]["test"]["uar"].update(mean=0.75 + 5e-10))
    assert verify(tmp_path) == []
    tamper(tmp_path, lambda r: r["summary"]["test"]["uar"].update(mean=0.75 + 2e-9))
    assert len(verify(tmp_path)) == 1


def test_the_merged_table_is_that_of_the_folds(tmp_path):
    make_record(tmp_path)
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text().replace("toy/sf1", "toy/sf2"))
    assert verify(tmp_path) == ["its predictions.csv is not that of its folds"]


def test_a_lost_or_foreign_fold_is_found(tmp_path):
    make_record(tmp_path / "a")
    (fold_folder(tmp_path / "a", "2", 0) / "fold.json").unlink()
    assert "status" in " ".join(verify(tmp_path / "a"))
    make_record(tmp_path / "b")
    (fold_folder(tmp_path / "b", "2", 0) / "predictions.csv").unlink()
    with pytest.raises(UserError, match=r"fold2_seed0/predictions\.csv does not exist"):
        verify(tmp_path / "b")


def planned(change):
    """The plan's rows of all folds, changed."""
    return {fold: [change(row) for row in plan_rows(fold)] for fold in FOLDS}


def leak_speaker(row):
    return row._replace(speaker="toy/sdev") if row.part == "train" else row


def test_a_leak_is_found_and_a_declared_one_is_not(tmp_path):
    """REVIEW D2: the audit is made again from the rows, whatever the record says."""
    rows = planned(leak_speaker)
    for fold in FOLDS:
        make_fold(tmp_path / "leak", fold, planned=rows)
        # declared, but not in the name: still a leak
        make_fold(tmp_path / "said", fold, planned=rows, plan={"overlap": ["dev"]})
        named = {"overlap": ["dev"], "protocol": "toy-random-dev"}
        make_fold(tmp_path / "named", fold, planned=rows, plan=named)
    for name in ("leak", "said"):
        record = write_record(tmp_path / name)
        assert record["audit"]["clean"] is False
        assert "speaker toy/sdev is in dev and in train" in verify(tmp_path / name)[0]
    record = write_record(tmp_path / "named")
    assert record["audit"]["clean"] is True
    assert verify(tmp_path / "named") == []


def test_the_same_recording_in_test_and_train_is_found(tmp_path):
    """REVIEW A5, D2: byte-identical audio under two ids, from the rows alone."""
    train = plan_rows("1")[0]
    rows = planned(lambda r: r._replace(audio=train.audio) if r.part == "test" else r)
    for fold in FOLDS:
        make_fold(tmp_path, fold, planned=rows)
    write_record(tmp_path)
    assert "the same audio is in test and in train" in verify(tmp_path)[0]


def test_unknown_speakers_are_said(tmp_path):
    rows = planned(lambda row: row._replace(speaker=""))
    for fold in FOLDS:
        tests = [_without_speaker(row) for row in make_rows(fold)]
        make_fold(
            tmp_path, fold, planned=rows, rows=tests, dev=_without_speaker,
            plan={"unknown_speakers": True},
        )  # fmt: skip
    record = write_record(tmp_path)
    assert record["audit"]["clean"] is None
    found = examine(tmp_path)
    assert found.problems == []
    assert "the speakers of 40 utterances are unknown" in found.warnings[0]


def _without_speaker(row):
    return type(row)(**{**vars(row), "speaker": ""})


def test_a_copied_seed_is_seen(tmp_path):
    """REVIEW D2: the same predictions bit for bit under two seeds."""
    for seed in (0, 1):
        for fold in FOLDS:
            make_fold(tmp_path, fold, seed, right=5, seeds=(0, 1))
    write_record(tmp_path)
    found = examine(tmp_path)
    assert found.problems == []
    assert len(found.warnings) == 3
    assert "fold 1: seeds 0 and 1 have the same predictions bit for bit" in found.warnings[0]


def test_the_future_is_seen(tmp_path):
    make_record(tmp_path, created="2025-06-01T00:00:00+00:00")
    before = datetime.datetime(2025, 5, 1, tzinfo=datetime.timezone.utc)
    assert "created in the future" in examine(tmp_path, before).warnings[0]
    assert examine(tmp_path, before.replace(month=6)).warnings == []


def test_a_metric_that_is_none_verifies(tmp_path, monkeypatch):
    """REVIEW C5, A12: null in the record, NaN in the measure, equal."""
    original = EmotionTask.measure

    def measure(self, table):
        found = original(self, table)
        return found | {"macro_f1": float("nan")}

    monkeypatch.setattr(EmotionTask, "measure", measure)
    record = make_record(tmp_path)
    assert record["summary"]["test"]["macro_f1"]["mean"] is None
    assert record["folds"][0]["metrics"]["test"]["macro_f1"] is None
    assert verify(tmp_path) == []


def test_classes_are_the_tasks(tmp_path):
    make_record(tmp_path, classes=CLASSES[:2])
    assert verify(tmp_path) == []
