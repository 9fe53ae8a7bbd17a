"""What calibration reports on: measures of finished runs before and after a temperature that dev
chose, their intervals over speakers, and differences to the frozen probe. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emopeft.downstream.measures.calibration import (
    BINS,
    Bin,
    Ranked,
    Temperature,
    brier_scores,
    calibrated_error,
    entropies,
    fit_temperature,
    log_losses,
    log_probabilities,
    lost,
    reliability,
    tempered,
)
from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.records.checks import FoldResult
from emopeft.downstream.records.predictions import DEV
from emopeft.downstream.records.scores import Scores, scores_of, tested
from emopeft.downstream.reports.class_runs import (
    ClassRun,
    ClassRuns,
    Number,
    numbers_of,
    read_class_runs,
)
from emopeft.downstream.tasks.base import Task

STATES = ("before", "after")  # the temperature
SURE = (0.8, 0.5)  # of the clips, the surest
MEASURES = (
    Metric("accuracy", "right %"),
    Metric("confidence", "confidence %"),
    Metric("over", "confidence - right, points", low=-1.0, better="lower"),
    Metric("ece", "ECE %", better="lower"),
    Metric("nll", "NLL", high=math.inf, better="lower", percent=False),
    Metric("brier", "Brier", high=2.0, better="lower", percent=False),
    Metric("aurc", "AURC %", better="lower"),
    *(Metric(f"right{100 * s:.0f}", f"right % of the surest {100 * s:.0f} %") for s in SURE),
)
BUSY = 64  # numbers per row that are held at once, so that they stay in the processor's cache
COVERED = np.linspace(0.04, 1, 49)  # where the picture of coverage has points


@dataclasses.dataclass(frozen=True)
class Fold:
    """What dev chose in a fold and seed, and what that does.

    Attributes:
        clips, speakers: of dev (0 speakers: unknown); accuracy: on it.
        heard: how many of dev's speakers are trained on.
        dev, test: NLL before and after. error: ECE of the test before and after.
    """

    fold: str
    seed: int
    temperature: Temperature
    clips: int
    speakers: int
    heard: int
    accuracy: float
    dev: tuple[float, float]
    test: tuple[float, float]
    error: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A run.

    Attributes:
        numbers: state and measure -> on all folds together, the mean over seeds.
        gains: the same less the frozen probe's; None where there is none to compare with.
        chance: state -> ECE that is left where confidences are right (`calibrated_error`).
        bins, curve: state -> bins of the reliability picture; what is right of the surest.
        lost: rows whose own class has score 0. floor: the entropy of votes, in nats; 0 of classes.
    """

    run: ClassRun
    folds: Sequence[Fold]
    numbers: Mapping[tuple[str, str], Number]
    gains: Mapping[tuple[str, str], Number] | None
    chance: Mapping[str, float]
    bins: Mapping[str, Sequence[Bin]]
    curve: Mapping[str, Sequence[float]]
    lost: int
    floor: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Runs of one plan, in the order they were named. bins: of ECE."""

    read: ClassRuns
    runs: Sequence[Calibrated]
    bins: int


def calibrated(places: Sequence[Path], bins: int = BINS, test: str | None = None) -> Calibration:
    """Measure finished runs on one of their tests, None: the first; raises UserError as
    `read_class_runs`."""
    read = read_class_runs(places, test)
    folds = [_folds(run, read.task, read.test, bins) for run in read.runs]
    own = [
        _Measured(run, of, read.speakers, bins) for run, of in zip(read.runs, folds, strict=True)
    ]
    pairs = [(i, base) for i, base in enumerate(read.bases) if base is not None]

    def statistics(times: np.ndarray) -> np.ndarray:
        values = [one.values(times) for one in own]
        return np.concatenate([*values, *(values[i] - values[base] for i, base in pairs)])

    size = BUSY * max(one.rows for one in own)
    numbers = numbers_of(statistics, len(read.speakers), size)
    keys = [(state, metric.name) for state in STATES for metric in MEASURES]
    tables = [
        dict(zip(keys, numbers[i : i + len(keys)], strict=True))
        for i in range(0, len(numbers), len(keys))
    ]
    gains = {i: tables[len(own) + at] for at, (i, _) in enumerate(pairs)}
    runs = [
        _run(run, of, tables[i], gains.get(i), bins)
        for i, (run, of) in enumerate(zip(read.runs, folds, strict=True))
    ]
    return Calibration(read, runs, bins)


def _folds(run: ClassRun, task: Task, test: str, bins: int) -> list[Fold]:
    return [_fold(fold, task, test, bins) for fold in run.folds]


def _fold(fold: FoldResult, task: Task, test: str, bins: int) -> Fold:
    dev, on = (scores_of(tested(fold, name), task) for name in (DEV, test))
    logs = log_probabilities(dev.scores)
    chosen = (
        fit_temperature(logs, dev.targets)
        if len(dev.scores)
        else Temperature(1.0, "dev has no target: not fitted")
    )
    trained = {row.speaker for row in fold.examples if row.part == "train"}
    speakers = {name for name in dev.speakers if name}
    certain = dev.certain
    hits = dev.said[certain] == dev.truth[certain]

    def losses(of: Scores) -> tuple[float, float]:
        at = [tempered(log_probabilities(of.scores), t) for t in (1.0, chosen.value)]
        means = [float(log_losses(a, of.targets).mean()) if len(a) else math.nan for a in at]
        return means[0], means[1]

    def error(temperature: float) -> float:
        ranked = _ranked(on, tempered(log_probabilities(on.scores), temperature))
        return float(ranked.once().calibration_error(bins)[0])

    return Fold(
        fold.facts.fold, fold.facts.seed, chosen, len(dev.scores), len(speakers),
        len(speakers & trained), float(hits.mean()) if len(hits) else math.nan, losses(dev),
        losses(on), (error(1.0), error(chosen.value)),
    )  # fmt: skip


def _confidence(scores: Scores, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows whose class is known: probability of what is said, and if it is right."""
    rows = scores.certain
    return np.exp(logs[rows, scores.said[rows]]), scores.said[rows] == scores.truth[rows]


def _ranked(scores: Scores, logs: np.ndarray) -> Ranked:
    return Ranked(*_confidence(scores, logs))


def _states(scores: Scores, folds: Sequence[Fold]) -> list[np.ndarray]:
    """log p (rows, classes) as it was predicted, and at the temperature of each row's fold."""
    of = {(fold.fold, fold.seed): fold.temperature.value for fold in folds}
    rows = zip(scores.folds, scores.seeds, strict=True)
    temperatures = np.array([of[row] for row in rows])[:, None]
    logs = log_probabilities(scores.scores)
    return [logs, tempered(logs, temperatures)]


class _Measured:
    """What is measured of a run, by how often each speaker counts.

    Attributes:
        rows: how many rows are measured at once.
    """

    def __init__(self, run: ClassRun, folds: Sequence[Fold], speakers: Sequence[str], bins: int):
        place = {name: i for i, name in enumerate(speakers)}
        self._seeds = []
        self._bins = bins
        for seed in run.seeds:
            scores = run.of_seed(seed)
            who = np.array([place.get(name, 0) for name in scores.speakers], dtype=np.intp)
            for logs in _states(scores, folds):
                sums = [
                    np.bincount(who, of(logs, scores.targets), max(1, len(speakers)))
                    for of in (log_losses, brier_scores)
                ]
                count = np.bincount(who, minlength=max(1, len(speakers)))
                self._seeds.append((who[scores.certain], _ranked(scores, logs), count, sums))
        self.rows = max(len(who) for who, *_ in self._seeds)

    def values(self, times: np.ndarray) -> np.ndarray:
        """(draws, speakers) to (states * measures, draws), the mean over seeds."""
        each = [self._of_state(times, *one) for one in self._seeds]
        states = [np.mean(each[i :: len(STATES)], 0) for i in range(len(STATES))]
        return np.concatenate(states)

    def _of_state(
        self,
        times: np.ndarray,
        who: np.ndarray,
        ranked: Ranked,
        count: np.ndarray,
        sums: Sequence[np.ndarray],
    ) -> np.ndarray:
        """`MEASURES` (measures, draws) of a seed in one state."""
        counts = ranked.counts(times, who)
        share, confidence = counts.accuracy(), counts.confidence()
        with np.errstate(invalid="ignore"):
            loss, brier = ((times @ of) / (times @ count) for of in sums)
        return np.stack([
            share, confidence, confidence - share, counts.calibration_error(self._bins), loss,
            brier, counts.risk_coverage_area(), *(counts.right_of_surest(s) for s in SURE),
        ])  # fmt: skip


def _run(
    run: ClassRun,
    folds: Sequence[Fold],
    numbers: Mapping[tuple[str, str], Number],
    gains: Mapping[tuple[str, str], Number] | None,
    bins: int,
) -> Calibrated:
    """With the pictures' numbers: bins of the rows of all seeds, curves in the mean over seeds."""
    chance: dict[str, float] = {}
    curve: dict[str, list[float]] = {}
    of_all = dict(zip(STATES, _states(run.scores, folds), strict=True))
    pooled = {
        state: reliability(*_confidence(run.scores, logs), bins) for state, logs in of_all.items()
    }
    for at, state in enumerate(STATES):
        own, chances = [], []
        for seed in run.seeds:
            scores = run.of_seed(seed)
            sure, hits = _confidence(scores, _states(scores, folds)[at])
            counts = Ranked(sure, hits).once()
            own.append([float(counts.right_of_surest(share)[0]) for share in COVERED])
            chances.append(calibrated_error(sure, bins))
        curve[state] = np.mean(own, 0).tolist()
        chance[state] = float(np.mean(chances))
    floor = float(entropies(run.scores.targets).mean())
    return Calibrated(
        run, folds, numbers, gains, chance, pooled, curve,
        lost(run.scores.scores, run.scores.targets), floor,
    )  # fmt: skip
