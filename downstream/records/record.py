"""The record of a run: fold.json and predictions.csv per fold, result.json over all of them.

::

    RUN/recipe.yaml                      what was run (the trainer's)
    RUN/fold1_seed0/predictions.csv      one row per test utterance, see predictions.py
    RUN/fold1_seed0/fold.json            one entry of result.json's "folds"; written last: when it
                                         is there, the fold is done
    RUN/predictions.csv                  all folds' rows
    RUN/result.json                      schema in record_schema.py; written last

Every reader treats its file as untrusted. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import platform
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.records.predictions import (
    Prediction,
    check_finite,
    read_predictions,
    write_predictions,
)
from emopeft.downstream.records.schema import Mismatch, check_fold, check_record, missing
from emopeft.downstream.tasks.metrics import NAMES, emotion_metrics, mean_std
from emopeft.errors import UserError
from emopeft.files import digest, read_json, writing

__all__ = [
    *("FoldResult", "Prediction", "Record", "fold_folder", "package_versions"),
    *("read_fold", "read_predictions", "read_record", "recount", "recounted_folds"),
    *("status", "summarise", "write_fold", "write_record"),
]

TOLERANCE = 1e-6  # how far a recorded metric may lie from the recounted one, absolute
PACKAGES = (
    *("emopeft", "torch", "transformers", "s3prl", "peft", "accelerate", "safetensors"),
    *("numpy", "scipy", "scikit-learn", "audmetric", "soundfile", "soxr", "opensmile"),
)


@dataclasses.dataclass(frozen=True)
class FoldResult:
    """A finished fold: ``result`` is its entry of result.json, ``rows`` its predictions."""

    result: dict[str, Any]
    rows: list[Prediction]


@dataclasses.dataclass(frozen=True)
class Record:
    """A checked result.json and where it lies; the predictions are read when asked for."""

    folder: Path
    data: dict[str, Any]

    @functools.cached_property
    def rows(self) -> list[Prediction]:
        """All rows of predictions.csv; raises UserError as ``read_predictions``."""
        return read_predictions(self.folder / "predictions.csv", self.data["protocol"]["classes"])


def fold_folder(run: Path, fold: str, seed: int) -> Path:
    """Where a fold of a run lies; a manifest's fold names may hold slashes or be very long."""
    name = urllib.parse.quote(fold, safe=" ")
    if len(name) > 100:
        name = f"{name[:60]}~{digest(fold)[:16]}"
    return run / f"fold{name}_seed{seed}"


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def write_fold(folder: Path, fold_result: dict[str, Any], rows: Sequence[Prediction]) -> None:
    """Write a finished fold to ``fold_folder(run, fold, seed)``: predictions first, fold.json last.

    ``fold_result`` is one entry of result.json's "folds". Raises UserError when it does not fit
    the schema (a NaN in it, for instance) or its metrics are not those of ``rows``.
    """
    path = folder / "fold.json"
    classes = list(rows[0].scores) if rows else []
    check_finite(rows)
    _conform(path, check_fold, fold_result, len(classes))
    _refuse(path, _fold_problems(fold_result, rows, classes))
    _write_pair(folder / "predictions.csv", rows, classes, path, fold_result)


def read_fold(folder: Path, classes: Sequence[str] | None = None) -> FoldResult | None:
    """A finished fold, or None when it is not finished.

    Raises UserError when its files are damaged, disagree with each other or hold other classes.
    """
    path = folder / "fold.json"
    if not path.exists():
        return None
    result = _load(path)
    rows = read_predictions(folder / "predictions.csv", classes)
    names = list(classes or (rows[0].scores if rows else []))
    _conform(path, check_fold, result, len(names))
    problems = _fold_problems(result, rows, names)
    if problems:
        raise UserError(f"{path}: {problems[0]}; delete {folder} and run the fold again")
    return FoldResult(result, rows)


def summarise(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each metric over folds, from the "folds" of a record.

    The seeds of one fold are averaged first; std is the sample one over those fold means, None
    for a single fold; n is the number of folds. Where every one of several seeds has the same
    folds, ``seed_std`` is the sample standard deviation of the per-seed means.
    """
    summary = {}
    for name in NAMES:
        by_fold: dict[str, list[float]] = {}
        by_seed: dict[int, dict[str, float]] = {}
        for entry in folds:
            value = entry["metrics"][name]
            by_fold.setdefault(entry["fold"], []).append(value)
            by_seed.setdefault(entry["seed"], {})[entry["fold"]] = value
        summary[name] = mean_std([mean_std(values)["mean"] for values in by_fold.values()])
        if len(by_seed) > 1 and all(set(of) == set(by_fold) for of in by_seed.values()):
            means = [mean_std(list(of.values()))["mean"] for of in by_seed.values()]
            summary[name]["seed_std"] = mean_std(means)["std"]
    return summary


def status(
    expected: Sequence[str], folds: Sequence[Mapping[str, Any]], seeds: Sequence[int] | None = None
) -> str:
    """ "finished" when every fold of the protocol is there for each seed of the run.

    ``expected``: the protocol's fold names; ``seeds``: those of the run, else those in ``folds``.
    """
    return "incomplete" if not folds or missing(expected, folds, seeds) else "finished"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Check a record, then write the merged predictions.csv and, last, result.json.

    The predictions are taken from the fold folders of ``record["folds"]``.

    Raises:
        UserError: a key that does not fit the schema, a fold folder that is missing or damaged,
            numbers that its predictions do not give, or a file that cannot be written.
    """
    path = folder / "result.json"
    _conform(path, check_record, record)
    classes = record["protocol"]["classes"]
    rows: list[Prediction] = []
    for entry in record["folds"]:
        place = fold_folder(folder, entry["fold"], entry["seed"])
        rows += read_predictions(place / "predictions.csv", classes)
    _refuse(path, _problems(record, rows))
    _write_pair(folder / "predictions.csv", rows, classes, path, record)


def read_record(folder: Path) -> Record:
    """Read and check result.json as untrusted data; raises UserError naming file and key."""
    path = folder / "result.json"
    data = _load(path)
    _conform(path, check_record, data)
    return Record(folder, data)


def recounted_folds(record: Record) -> list[dict[str, Any]]:
    """``{"fold", "seed", "metrics"}`` of each fold that has predictions, from these alone.

    In the order of the protocol's folds, then seeds. Raises UserError as ``read_predictions``.
    """
    protocol = record.data["protocol"]
    return _recounted(record.rows, protocol["classes"], protocol["folds"])


def recount(record: Record) -> list[str]:
    """What the record says that its predictions do not: one sentence each, none when all agree.

    Every metric of every fold, the summary and the trainable share may differ by ``TOLERANCE``
    (1e-6, absolute); counts and the set of folds not at all. Raises UserError when
    predictions.csv cannot be read.
    """
    return _problems(record.data, record.rows)


def _write_pair(
    table: Path, rows: Sequence[Prediction], classes: Sequence[str], path: Path, value: Any
) -> None:
    """Write the table and the JSON that vouches for it.

    Both are written in full before either gets its name, and an older JSON goes first, so that
    no moment shows a result beside predictions that are not its own.
    """
    with writing(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        with writing(table) as temporary_table:
            write_predictions(temporary_table, rows, classes)
            path.unlink(missing_ok=True)


def _load(path: Path) -> Any:
    try:
        return read_json(path)
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; restore it or run again") from error


def _conform(path: Path, check: Callable[..., None], *values: Any) -> None:
    """Run a schema check; its finding becomes the user's error."""
    try:
        check(*values)
    except Mismatch as error:
        raise UserError(f"{path}: {error}; restore it or run again") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; restore it or run again") from error


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        raise UserError(f"{path} is not written, because it would be wrong: {problems[0]}")


def _recounted(
    rows: Sequence[Prediction], classes: Sequence[str], order: Sequence[str]
) -> list[dict[str, Any]]:
    index = {name: number for number, name in enumerate(classes)}
    place = {name: number for number, name in enumerate(order)}
    groups: dict[tuple[str, int], list[Prediction]] = {}
    for row in rows:
        groups.setdefault((row.fold, row.seed), []).append(row)
    folds = []
    for fold, seed in sorted(groups, key=lambda pair: (place.get(pair[0], len(place)), pair)):
        truth = [index[row.truth] for row in groups[fold, seed]]
        prediction = [index[row.prediction] for row in groups[fold, seed]]
        metrics = emotion_metrics(truth, prediction, len(classes))
        folds.append({"fold": fold, "seed": seed, "metrics": metrics})
    return folds


def _fold_problems(
    entry: Mapping[str, Any], rows: Sequence[Prediction], classes: Sequence[str]
) -> list[str]:
    """Where one fold's entry and its rows disagree."""
    where = f"fold {entry['fold']}, seed {entry['seed']}"
    if not rows:
        return [f"{where}: there are no predictions"]
    if any((row.fold, row.seed) != (entry["fold"], entry["seed"]) for row in rows):
        return [f"{where}: its predictions.csv holds rows of another fold or seed"]
    if len({row.id for row in rows}) != len(rows):
        return [f"{where}: an utterance is predicted twice"]
    recorded, counted = entry["metrics"], _recounted(rows, classes, ())[0]["metrics"]
    problems = [_differ(f"{where}: {name}", recorded[name], counted[name]) for name in NAMES]
    if recorded["confusion"] != counted["confusion"]:
        problems.append(f"{where}: the confusion matrix is not that of the predictions")
    return [problem for problem in problems if problem]


def _differ(what: str, recorded: float | None, counted: float | None) -> str:
    """The sentence about two numbers that are not equal, else nothing."""
    if recorded is None or counted is None:
        same = recorded is counted
    else:
        same = abs(recorded - counted) <= TOLERANCE
    return "" if same else f"{what} is recorded as {recorded}, but the predictions give {counted}"


def _problems(data: Mapping[str, Any], rows: Sequence[Prediction]) -> list[str]:
    """Where a record and its rows disagree."""
    protocol = data["protocol"]
    groups: dict[tuple[str, int], list[Prediction]] = {}
    tests: dict[str, dict[str, str]] = {}
    problems = []
    for row in rows:
        groups.setdefault((row.fold, row.seed), []).append(row)
    for (fold, seed), group in groups.items():
        test = {row.id: row.truth for row in group}
        if tests.setdefault(fold, test) != test:
            problems.append(f"fold {fold}: seed {seed} has another test set than the first seed")
    for entry in data["folds"]:
        own = groups.pop((entry["fold"], entry["seed"]), [])
        problems += _fold_problems(entry, own, protocol["classes"])
    problems += [f"fold {fold}, seed {seed}: no result" for fold, seed in sorted(groups)]
    if not problems:
        counted = summarise(_recounted(rows, protocol["classes"], protocol["folds"]))
        for name in NAMES:
            for key in ("mean", "std", "n", "seed_std"):
                what = f"summary.{name}.{key}"
                problems.append(
                    _differ(what, data["summary"][name].get(key), counted[name].get(key))
                )
    numbers = data["parameters"]
    share = numbers["trainable"] / numbers["total"]
    if abs(share - numbers["share"]) > TOLERANCE:
        problems.append(f"parameters.share is {numbers['share']}, trainable / total is {share}")
    return [problem for problem in problems if problem]
