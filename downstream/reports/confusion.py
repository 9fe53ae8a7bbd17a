"""Class by class: recall, precision, F1, EER, and what is taken for what. From predictions alone;
records do not have these numbers. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emopeft.downstream.measures.columns import NONE
from emopeft.downstream.measures.detection import (
    DETAILS,
    equal_error_rates,
    f_means,
    f_scores,
    macro,
    precisions,
    shares_of_truth,
    top_right,
)
from emopeft.downstream.measures.weighted import confusions, recalls
from emopeft.downstream.records.details import details_over_folds
from emopeft.downstream.records.scores import Scores
from emopeft.downstream.reports.class_runs import ClassRuns, Number, numbers_of, read_class_runs
from emopeft.downstream.reports.csv_files import Cell, write_csv
from emopeft.downstream.reports.numbers import statistic
from emopeft.downstream.reports.pictures import HeatMap, heat_maps
from emopeft.downstream.reports.sections import Grid, Picture, Section
from emopeft.text import plain

PER_CLASS = ("recall", "precision", "F1", "EER")
BUSY = 8  # numbers per row and class that are held at once
MOST = 3  # confusions that are named


@dataclasses.dataclass(frozen=True)
class Classes:
    """A run, class by class, on the clips of all folds together, the mean over seeds.

    Attributes:
        names: of the classes, as tables show them. clips: of each, of all seeds.
        per_class: what -> a number of each class. means: of `DETAILS`, by name.
        over_folds: of `DETAILS`, mean and deviation, as a record's summary has it.
        confusion: clips of all seeds (classes of the truth, classes said).
    """

    read: ClassRuns
    names: Sequence[str]
    clips: Sequence[int]
    per_class: Mapping[str, Sequence[Number]]
    means: Mapping[str, Number]
    over_folds: Mapping[str, Mapping[str, Any]]
    confusion: np.ndarray


def class_by_class(place: Path, test: str | None = None) -> Classes:
    """Count a finished run on one of its tests, None: the first; raises UserError as
    `read_class_runs`."""
    read = read_class_runs([place], test)
    [run] = read.runs
    seeds = [_Seed(run.of_seed(seed), read.speakers) for seed in run.seeds]

    def statistics(times: np.ndarray) -> np.ndarray:
        return np.mean([seed.values(times) for seed in seeds], 0)

    size = len(run.scores.classes)
    busy = BUSY * size * max(seed.rows for seed in seeds)
    numbers = numbers_of(statistics, len(read.speakers), busy)
    certain = run.scores.of(run.scores.certain)
    counted = confusions(certain.truth, certain.said, size)(np.ones((1, len(certain.truth))))[0]
    means = numbers[len(PER_CLASS) * size :]
    return Classes(
        read,
        [plain(name, 30) for name in run.scores.classes],
        counted.sum(-1).astype(int).tolist(),
        {name: numbers[i * size : (i + 1) * size] for i, name in enumerate(PER_CLASS)},
        {metric.name: number for metric, number in zip(DETAILS, means, strict=True)},
        details_over_folds(run.folds, read.task, read.test),
        counted.astype(int),
    )


class _Seed:
    """What is measured of the rows of a seed, by how often each speaker counts."""

    def __init__(self, scores: Scores, speakers: Sequence[str]):
        known = scores.of(scores.certain)
        place = {name: i for i, name in enumerate(speakers)}
        self._who = np.array([place.get(name, 0) for name in known.speakers], dtype=np.intp)
        self._count = confusions(known.truth, known.said, len(known.classes))
        self._errors = equal_error_rates(known.truth, known.scores)
        self._top = top_right(known.truth, known.scores)
        self.rows = len(known.truth)

    def values(self, times: np.ndarray) -> np.ndarray:
        """(draws, speakers) to `PER_CLASS` of each class and then `DETAILS`, (values, draws)."""
        weights = times[:, self._who].astype(np.float64)
        confusion, errors = self._count(weights), self._errors(weights)
        means = f_means(confusion)
        with np.errstate(invalid="ignore"):
            means |= {"eer": macro(errors), "top2": weights @ self._top / weights.sum(-1)}
        of_classes = [recalls(confusion), precisions(confusion), f_scores(confusion), errors]
        of_all = np.stack([means[metric.name] for metric in DETAILS])
        return np.concatenate([*(of.T for of in of_classes), of_all])


def confusion_sections(found: Classes) -> list[Section]:
    """Class by class, over classes, and the confusion with its picture."""
    about = (
        "On the clips of all folds together, the mean over seeds; in brackets 95 % intervals, "
        "speakers drawn 9999 times; none where some draw holds no clip of the class, or predicts "
        "none. Recall, precision and F1 of what was said; EER of a class' score alone, its clips "
        "against all others, where as many are missed as are taken wrongly."
    )
    over = (
        "Macro: the mean over classes that the test holds; micro: of all clips, which with one "
        "answer a clip is the share right; weighted: by clips of each class. Top-2: the truth is "
        "one of the two highest scores, of equal ones in proportion. Of all folds together, EER "
        "has one threshold for the scores of several trained models, and is rather higher."
    )
    run = found.read.runs[0]
    return [
        Section(
            "Classes",
            [f"{run.name}: {found.read.title}.", about, *found.read.notes, _per_class(found)],
        ),
        Section("Over classes", [over, _over_classes(found)]),
        Section("What is taken for what", [*_most(found), _confusion(found), _picture(found)]),
    ]


def _shown(number: Number) -> str:
    """``65.62 [60.28, 70.76]``, in percent."""
    if math.isnan(number.value):
        return NONE
    text = f"{100 * number.value:.2f}"
    if number.interval is None:
        return text
    return f"{text} [{100 * number.interval[0]:.2f}, {100 * number.interval[1]:.2f}]"


def _per_class(found: Classes) -> Grid:
    rows = [
        [name, f"{found.clips[i]:,}", *(_shown(found.per_class[what][i]) for what in PER_CLASS)]
        for i, name in enumerate(found.names)
    ]
    clips = "clips" if len(found.read.runs[0].seeds) == 1 else "clips, all seeds"
    return Grid(["class", clips, *(f"{what} %" for what in PER_CLASS)], rows, "Each class")


def _over_classes(found: Classes) -> Grid:
    rows = [
        [metric.title, statistic(metric, found.over_folds[metric.name]),
         _shown(found.means[metric.name])]
        for metric in DETAILS
    ]  # fmt: skip
    return Grid(["", "mean ± std of folds", "all folds together"], rows, "Over classes")


def _most(found: Classes) -> list[str]:
    """The confusions of the largest shares, in a sentence."""
    shares = np.nan_to_num(shares_of_truth(found.confusion.astype(np.float64)))
    np.fill_diagonal(shares, 0.0)
    order = np.argsort(-shares, axis=None, kind="stable")[:MOST]
    places = [(i, j) for i, j in zip(*np.unravel_index(order, shares.shape), strict=True)]
    parts = [
        f"{found.names[i]} for {found.names[j]} ({100 * shares[i, j]:.1f} %)"
        for i, j in places
        if shares[i, j] > 0
    ]
    return [f"Most often taken: {', '.join(parts)}."] if parts else ["Nothing is confused."]


def _texts(found: Classes, between: str) -> list[list[str]]:
    """Share of the truth and count of each cell; nothing of an absent class."""
    shares = shares_of_truth(found.confusion.astype(np.float64))
    return [
        [NONE if math.isnan(share) else f"{100 * share:.1f}{between}({count:,})"
         for share, count in zip(row, counts, strict=True)]
        for row, counts in zip(shares.tolist(), found.confusion.tolist(), strict=True)
    ]  # fmt: skip


def _confusion(found: Classes) -> Grid:
    rows = [[name, *cells] for name, cells in zip(found.names, _texts(found, " "), strict=True)]
    several = len(found.read.runs[0].seeds) > 1
    caption = "Rows: the truth; % of it, and clips" + (" of all seeds" if several else "")
    return Grid(["truth \\ said", *found.names], rows, caption)


def _picture(found: Classes) -> Picture:
    values = (100 * shares_of_truth(found.confusion.astype(np.float64))).tolist()
    run = found.read.runs[0]
    title = f"{run.name}: {found.read.title}".replace(" on ", "\non ", 1)
    return Picture(
        "classes-confusion",
        "Heat map of the confusion: each row a true class, shares of it by what was said",
        functools.partial(
            heat_maps, panels=[HeatMap("", values, _texts(found, "\n"))], title=title,
            rows=found.names, columns=found.names, axes=("truth", "said"), scale="% of the truth",
        ),
    )  # fmt: skip


def write_class_numbers(found: Classes, out: Path) -> list[Path]:
    """classes.csv, classes-over.csv and classes-confusion.csv in a folder, every digit, no percent;
    raises UserError where one cannot be written."""
    each: list[list[Cell]] = [
        [name, found.clips[i], what, number.value, *(number.interval or (None, None))]
        for i, name in enumerate(found.names)
        for what in PER_CLASS
        for number in [found.per_class[what][i]]
    ]
    over: list[list[Cell]] = [
        [metric.name, *(found.over_folds[metric.name][key] for key in ("mean", "std", "n")),
         number.value, *(number.interval or (None, None))]
        for metric in DETAILS
        for number in [found.means[metric.name]]
    ]  # fmt: skip
    cells: list[list[Cell]] = [
        [truth, *counts]
        for truth, counts in zip(found.names, found.confusion.tolist(), strict=True)
    ]
    return [
        write_csv(out / "classes.csv", ["class", "clips", "measure", "value", "low", "high"], each),
        write_csv(out / "classes-over.csv", ["measure", "folds_mean", "folds_std", "folds",
                                             "together", "low", "high"], over),
        write_csv(out / "classes-confusion.csv", ["truth", *found.names], cells),
    ]  # fmt: skip
