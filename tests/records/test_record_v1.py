"""The record: written whole, read with suspicion, counted again."""

import json
import math
import random

import pytest

from emopeft.downstream.records import record as record_module
from emopeft.downstream.records.predictions import COLUMNS
from emopeft.downstream.records.record import (
    Prediction,
    fold_folder,
    package_versions,
    read_fold,
    read_predictions,
    read_record,
    recount,
    recounted_folds,
    status,
    summarise,
    write_fold,
    write_record,
)
from emopeft.errors import UserError
from tests.records.cases import CLASSES, FOLDS, make_fold, make_record, make_rows, tamper


def test_what_is_written_is_read(tmp_path):
    written = make_record(tmp_path / "run", seeds=(0, 1))
    found = read_record(tmp_path / "run")
    assert found.data == written
    assert recount(found) == []
    assert len(found.rows) == 2 * 3 * 8
    assert found.rows[0] == make_rows("1", 0, 8)[0]
    assert [(f["fold"], f["seed"]) for f in recounted_folds(found)] == [
        *(("1", 0), ("1", 1), ("2", 0), ("2", 1), ("3", 0), ("3", 1))
    ]
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_scores_survive_to_the_last_digit(tmp_path):
    dice = random.Random(1)
    logits = [[dice.gauss(0, 3) for _ in CLASSES] for _ in range(200)]
    logits[0] = [1.0, 1.0 + 1e-15, 0.0, 0.0]  # nearly a tie
    rows = []
    for number, values in enumerate(logits):
        total = sum(map(math.exp, values))
        scores = {n: math.exp(v) / total for n, v in zip(CLASSES, values, strict=True)}
        guess = max(scores, key=scores.__getitem__)
        rows.append(Prediction(f"u{number}", "1", 0, 's, "x"\n', CLASSES[0], guess, scores))
    write_fold(tmp_path, make_fold("1", 0, rows), rows)
    again = read_predictions(tmp_path / "predictions.csv", CLASSES)
    assert again == rows
    assert all(max(r.scores, key=r.scores.__getitem__) == r.prediction for r in again)
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == ",".join([*COLUMNS, *(f"score_{name}" for name in CLASSES)])


def test_a_fold_without_its_json_is_not_finished(tmp_path):
    rows = make_rows("1", 0, 5)
    assert read_fold(tmp_path / "none") is None
    write_fold(tmp_path, make_fold("1", 0, rows), rows)
    found = read_fold(tmp_path, CLASSES)
    assert found is not None
    assert found.rows == rows
    assert found.result["metrics"]["accuracy"] == 5 / 8
    (tmp_path / "fold.json").unlink()
    assert read_fold(tmp_path) is None


def test_a_damaged_or_foreign_fold_is_an_error(tmp_path):
    rows = make_rows("1", 0, 5)
    write_fold(tmp_path, make_fold("1", 0, rows), rows)
    with pytest.raises(UserError, match="header"):
        read_fold(tmp_path, ["neutral", "happy"])
    (tmp_path / "predictions.csv").write_text(
        (tmp_path / "predictions.csv").read_text().replace("f1_u7,1,0", "f1_u7,2,0")
    )
    with pytest.raises(UserError, match="another fold or seed"):
        read_fold(tmp_path)
    (tmp_path / "fold.json").write_text('{"fold": "1", "se')
    with pytest.raises(UserError, match=r"fold\.json is not valid JSON"):
        read_fold(tmp_path)


def test_a_fold_that_contradicts_itself_is_not_written(tmp_path):
    rows = make_rows("1", 0, 5)
    with pytest.raises(UserError, match="accuracy is recorded"):
        write_fold(tmp_path, make_fold("1", 0, make_rows("1", 0, 6)), rows)
    with pytest.raises(UserError, match="another fold or seed"):
        write_fold(tmp_path, make_fold("2", 0, rows), rows)
    with pytest.raises(UserError, match="predicted twice"):
        twice = [*rows, rows[0]]
        write_fold(tmp_path, make_fold("1", 0, twice), twice)
    with pytest.raises(UserError, match=r"'dev.loss' is nan"):
        write_fold(tmp_path, make_fold("1", 0, rows) | {"dev": {"loss": math.nan}}, rows)
    with pytest.raises(UserError, match="diverged"):
        broken = [*rows[:-1], make_nan(rows[-1])]
        write_fold(tmp_path, make_fold("1", 0, rows), broken)
    assert list(tmp_path.iterdir()) == []


def make_nan(row):
    return Prediction(
        row.id, row.fold, row.seed, row.speaker, row.truth, row.prediction,
        dict.fromkeys(row.scores, math.nan),
    )  # fmt: skip


def test_a_fold_name_cannot_leave_the_run(tmp_path):
    assert fold_folder(tmp_path, "1", 0) == tmp_path / "fold1_seed0"
    names = ("../x", "..%2Fx", "a/b", "a b", "ü", "ü" * 99, "ü" * 99 + "/", "ü" * 98)
    places = [fold_folder(tmp_path, name, 0) for name in names]
    assert all(len(place.name) < 120 for place in places)
    assert all(place.parent == tmp_path for place in places)
    assert len(set(places)) == len(places)
    make_record(tmp_path / "run", folds=("a/b", "../../c", "d"))
    assert recount(read_record(tmp_path / "run")) == []


def test_summary_by_hand():
    def entry(fold, seed, value):
        metrics = {"accuracy": value, "uar": value, "macro_f1": value}
        return {"fold": fold, "seed": seed, "metrics": metrics}

    one = summarise([entry("1", 0, 0.2), entry("2", 0, 0.6)])["uar"]
    assert one == {"mean": pytest.approx(0.4), "std": pytest.approx(0.4 / math.sqrt(2)), "n": 2}

    grid = [("1", 0, 0.2), ("2", 0, 0.6), ("1", 1, 0.4), ("2", 1, 1.0)]
    two = summarise([entry(*cell) for cell in grid])["uar"]
    # fold means 0.3 and 0.8; seed means 0.4 and 0.7
    assert two["mean"] == pytest.approx(0.55)
    assert two["std"] == pytest.approx(0.5 / math.sqrt(2))
    assert two["seed_std"] == pytest.approx(0.3 / math.sqrt(2))
    assert two["n"] == 2
    # with a hole the seeds' means are of different folds: no spread is given
    assert "seed_std" not in summarise([entry(*cell) for cell in grid[:3]])["uar"]


def test_status_needs_every_fold_of_every_seed():
    pairs = [{"fold": f, "seed": s} for s in (0, 1) for f in FOLDS]
    assert status(FOLDS, pairs) == "finished"
    assert status(FOLDS, pairs, [0, 1]) == "finished"
    assert status(FOLDS, pairs[:5]) == "incomplete"
    assert status(FOLDS, pairs[:3]) == "finished"
    assert status(FOLDS, pairs[:3], [0, 1]) == "incomplete"
    assert status(FOLDS, []) == "incomplete"


def test_a_failure_leaves_the_old_record(tmp_path, monkeypatch):
    run = tmp_path / "run"
    old = make_record(run, present=("1", "2"))
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}

    def full(path, rows, classes):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    rows = make_rows("3", 0, 4)
    write_fold(fold_folder(run, "3", 0), make_fold("3", 0, rows), rows)
    folds = [*old["folds"], make_fold("3", 0, rows)]
    new = old | {"folds": folds, "summary": summarise(folds), "status": "finished"}
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "write_predictions", full)
        with pytest.raises(UserError, match="No space left"):
            write_record(run, new)
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    write_record(run, new)
    assert read_record(run).data["status"] == "finished"


def test_never_a_result_beside_other_predictions(tmp_path, monkeypatch):
    """Killed between the two renames, there is no result rather than a wrong one."""
    run = tmp_path / "run"
    record = make_record(run)
    original = type(run).replace

    def killed(self, target):
        if str(target).endswith("result.json"):
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(type(run), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_record(run, record)
    assert not (run / "result.json").exists()
    assert (run / "predictions.csv").exists()


def test_a_false_record_is_not_written(tmp_path):
    record = make_record(tmp_path / "run")
    fresh = make_record(tmp_path / "fresh")
    for change, words in (
        ({"summary": make_record(tmp_path / "c", (8, 8, 8))["summary"]}, "summary.accuracy.mean"),
        ({"folds": record["folds"][:2]}, "'status' is finished"),
        ({"task": "speech"}, "'task' must be"),
        ({"training": {"lr": math.inf}}, "'training.lr' is inf"),
        ({"parameters": fresh["parameters"] | {"share": 0.02}}, "parameters.share"),
    ):
        with pytest.raises(UserError, match=words):
            write_record(tmp_path / "run", record | change)
    (fold_folder(tmp_path / "run", "2", 0) / "predictions.csv").unlink()
    with pytest.raises(UserError, match="fold2_seed0"):
        write_record(tmp_path / "run", record)
    assert read_record(tmp_path / "run").data == record


def delete(*path):
    def change(record):
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return change


def put(value, *path):
    def change(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


DAMAGE = {
    "no schema": (delete("schema"), "'schema' is missing"),
    "other schema": (put(2, "schema"), "'schema' must be 1"),
    "true is not 1": (put(True, "schema"), "'schema' must be 1"),
    "no classes": (delete("protocol", "classes"), "'protocol.classes' is missing"),
    "class twice": (put(["a", "a"], "protocol", "classes"), "'protocol.classes' names something"),
    "hash is no hash": (put("../..", "protocol", "hash"), "'protocol.hash' must be"),
    "folds is a text": (put("1", "folds"), "'folds' must be a list"),
    "no fold": (put([], "folds"), "'folds' must be a list of at least 1"),
    "metric is a text": (put("0.5", "folds", 1, "metrics", "uar"), r"'folds\[1\].metrics.uar'"),
    "metric above 1": (put(58.1, "folds", 0, "metrics", "uar"), r"'folds\[0\].metrics.uar'"),
    "NaN": (put(math.nan, "folds", 2, "metrics", "uar"), r"'folds\[2\].metrics.uar' is nan"),
    "NaN in a corner": (put([{"x": math.inf}], "training", "y"), r"'training.y\[0\].x' is inf"),
    "confusion too small": (put([[1]], "folds", 0, "metrics", "confusion"), "confusion"),
    "confusion ragged": (put([[1], [], [], []], "folds", 0, "metrics", "confusion"), "confusion"),
    "confusion below 0": (put(-1, "folds", 0, "metrics", "confusion", 0, 0), "confusion"),
    "bool as number": (put(True, "folds", 0, "metrics", "uar"), r"'folds\[0\].metrics.uar'"),
    "unknown fold": (put("9", "folds", 0, "fold"), r"'folds\[0\].fold' is '9'"),
    "fold twice": (put("2", "folds", 0, "fold"), "repeats fold 2"),
    "seed text": (put("0", "folds", 0, "seed"), r"'folds\[0\].seed'"),
    "falsely finished": (delete("folds", 1), "these folds are missing: 2"),
    "share": (put(1.5, "parameters", "share"), "'parameters.share'"),
    "trainable": (put(10**12, "parameters", "trainable"), "'parameters.trainable' is more"),
    "no parameters": (put(0, "parameters", "total"), "'parameters.total'"),
    "huge": (put(10**400, "cost", "cache_bytes"), "'cost.cache_bytes' is too large"),
    "date": (put("yesterday", "created"), "'created' must be a date"),
    "date type": (put(5, "created"), "'created' must be a date"),
    "date of year 1": (put("0001-01-01T00:00:00+14:00", "created"), "'created' must be a date"),
    "upstream is a list": (put([], "upstream"), "'upstream' must be an object"),
    "surrogate": (put("\ud800", "name"), "not valid Unicode"),
    "surrogate key": (put(1, "training", "\ud800"), "not valid Unicode"),
    "seed_std": (put("x", "summary", "uar", "seed_std"), "'summary.uar.seed_std'"),
    "empty name": (put("", "name"), "'name' must be a text"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record_is_refused_by_key(tmp_path, case):
    change, words = DAMAGE[case]
    make_record(tmp_path)
    tamper(tmp_path, change)
    with pytest.raises(UserError, match=words) as caught:
        read_record(tmp_path)
    assert "result.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ('{"schema": 1, "stat', "not valid JSON"),
        ("[]", "must be an object"),
        ("null", "must be an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply|missing"),
        ("1" * 5000, "not valid JSON|too large"),
        (b"\xff\xfe{}", "not valid JSON"),
    ],
)
def test_what_is_not_a_record_at_all(tmp_path, text, words):
    path = tmp_path / "result.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words):
        read_record(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        read_record(tmp_path)


def lines_of(folder):
    return (folder / "predictions.csv").read_text().splitlines()


CSV_DAMAGE = {
    "empty": (lambda lines: [], "line 1: the header"),
    "no scores": (lambda lines: [",".join(COLUMNS)], "line 1: the header"),
    "other class": (lambda lines: [lines[0].replace("sad", "mad"), *lines[1:]], "line 1"),
    "swapped": (
        lambda lines: [lines[0].replace("id,fold", "fold,id"), *lines[1:]],
        "line 1: the header must be id,fold,seed",
    ),
    "short row": (lambda lines: [*lines[:3], lines[3][:20], *lines[4:]], "line 4"),
    "blank row": (lambda lines: [*lines[:3], "", *lines[3:]], "line 4: 0 cells"),
    "no id": (lambda lines: [*lines[:2], lines[2].replace("f1_u1", ""), *lines[3:]], "line 3"),
    "seed": (lambda lines: [*lines[:2], lines[2].replace(",1,0,", ",1,x,")], "line 3: the seed"),
    "truth": (lambda lines: [lines[0], lines[1].replace("s1,neutral", "s1,calm")], "the truth"),
    "guess": (
        lambda lines: [lines[0], lines[1].replace("neutral,neutral", "neutral,calm")],
        "line 2: the prediction 'calm'",
    ),
    "guess against scores": (
        lambda lines: [lines[0], lines[1].replace("neutral,neutral", "neutral,sad")],
        "line 2: the prediction 'sad' is not the class of the highest score",
    ),
    "NaN": (lambda lines: [lines[0], lines[1].replace("0.6", "nan")], "line 2: a score"),
    "inf": (lambda lines: [lines[0], lines[1].replace("0.6", "1e999")], "line 2: a score"),
    "text": (lambda lines: [lines[0], lines[1].replace("0.6", "much")], "line 2: could not"),
    "sum": (lambda lines: [lines[0], lines[1].replace("0.6", "0.7")], "line 2: the scores add"),
    "quote": (lambda lines: [*lines[:-1], '"' + lines[-1]], "line 25"),
    "giant": (lambda lines: [*lines[:-1], "x" * 200_000], "line 25: field larger"),
}


@pytest.mark.parametrize("case", CSV_DAMAGE)
def test_damaged_predictions_are_refused_by_line(tmp_path, case):
    change, words = CSV_DAMAGE[case]
    make_record(tmp_path)
    lines = change(lines_of(tmp_path))
    (tmp_path / "predictions.csv").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(UserError, match=words) as caught:
        recount(read_record(tmp_path))
    assert "predictions.csv" in str(caught.value)


def test_predictions_that_are_no_text_or_not_there(tmp_path):
    make_record(tmp_path)
    path = tmp_path / "predictions.csv"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        recount(read_record(tmp_path))
    path.unlink()
    with pytest.raises(UserError, match="cannot read"):
        recount(read_record(tmp_path))


def test_recount_finds_what_was_altered(tmp_path):
    def problems(change=None, lines=None, **kind):
        make_record(tmp_path, **kind)
        if change:
            tamper(tmp_path, change)
        if lines:
            kept = lines(lines_of(tmp_path))
            (tmp_path / "predictions.csv").write_text("".join(f"{line}\n" for line in kept))
        return recount(read_record(tmp_path))

    assert problems() == []
    assert problems(put(0.75 + 9e-7, "folds", 1, "metrics", "accuracy")) == []
    [found] = problems(put(0.75 + 2e-6, "folds", 1, "metrics", "accuracy"))
    assert found.startswith("fold 2, seed 0: accuracy is recorded as 0.750002")
    [found] = problems(put(0.99, "folds", 1, "metrics", "uar"))
    assert found == "fold 2, seed 0: uar is recorded as 0.99, but the predictions give 0.75"
    [found] = problems(put(0.99, "summary", "macro_f1", "mean"))
    assert found.startswith("summary.macro_f1.mean is recorded as 0.99")
    assert problems(put(None, "summary", "uar", "std"))[0].startswith("summary.uar.std")
    assert problems(put(5, "summary", "uar", "n"))[0].startswith("summary.uar.n")
    [found] = problems(put(0.0, "summary", "uar", "seed_std"))
    assert found.startswith("summary.uar.seed_std")
    assert "confusion" in problems(put(9, "folds", 0, "metrics", "confusion", 0, 1))[0]
    assert "share" in problems(put(0.011, "parameters", "share"))[0]
    # a row lost, a fold lost, a fold too many, a row twice, another test set in one seed
    assert "fold 3, seed 0: accuracy" in problems(lines=lambda lines: lines[:-1])[0]
    assert problems(lines=lambda lines: lines[:17]) == ["fold 3, seed 0: there are no predictions"]
    assert problems(delete("folds", 2), present=("1", "2", "3"), status="incomplete")[0] == (
        "fold 3, seed 0: no result"
    )
    assert "twice" in problems(lines=lambda lines: [*lines, lines[-1]])[0]
    assert (
        "another test set"
        in problems(lines=lambda lines: [*lines[:-1], lines[-1].replace("u7", "u9")], seeds=(0, 1))[
            0
        ]
    )


def test_package_versions():
    versions = package_versions()
    assert versions["python"].startswith("3.")
    assert set(versions) >= {"audmetric", "numpy"}
    assert all(isinstance(version, str) for version in json.loads(json.dumps(versions)).values())
