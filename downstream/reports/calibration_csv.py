"""The numbers of calibration as CSV."""

from __future__ import annotations

from pathlib import Path

from emopeft.downstream.reports.calibration_numbers import STATES, Calibration
from emopeft.downstream.reports.csv_files import Cell, write_csv


def write_numbers(found: Calibration, out: Path) -> list[Path]:
    """calibration.csv, calibration-folds.csv and calibration-bins.csv in a folder, every digit, no
    percent; raises UserError where one cannot be written."""
    numbers: list[list[Cell]] = []
    for run, base in zip(found.runs, found.read.bases, strict=True):
        against = found.runs[base].run.name if run.gains and base is not None else ""
        for less, table in (("", run.numbers), (against, run.gains or {})):
            for (state, name), number in table.items():
                ends = number.interval or (None, None)
                numbers.append(
                    [run.run.name, found.read.test, state, name, less, number.value, *ends]
                )
        numbers += [
            [
                run.run.name,
                found.read.test,
                state,
                "ece_by_chance",
                "",
                run.chance[state],
                None,
                None,
            ]
            for state in STATES
        ]
    folds: list[list[Cell]] = [
        [
            run.run.name, fold.fold, fold.seed, fold.temperature.value, fold.temperature.note,
            fold.clips, fold.speakers, fold.heard, fold.accuracy, *fold.dev, *fold.test,
            *fold.error,
        ]
        for run in found.runs
        for fold in run.folds
    ]  # fmt: skip
    bins: list[list[Cell]] = [
        [run.run.name, state, number, of.rows, of.confidence, of.right]
        for run in found.runs
        for state in STATES
        for number, of in enumerate(run.bins[state], 1)
    ]
    both = [f"{what}_{state}" for what in ("dev_nll", "test_nll", "test_ece") for state in STATES]
    return [
        write_csv(out / "calibration.csv", ["run", "test", "temperature", "measure", "less",
                                            "value", "low", "high"], numbers),
        write_csv(out / "calibration-folds.csv", ["run", "fold", "seed", "temperature", "note",
                                                  "dev_clips", "dev_speakers", "dev_in_train",
                                                  "dev_accuracy", *both], folds),
        write_csv(out / "calibration-bins.csv", ["run", "temperature", "bin", "rows",
                                                 "confidence", "right"], bins),
    ]  # fmt: skip
