"""The numbers of each group in finished runs, against those with a frozen encoder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from emopeft.downstream.measures.by_group import (
    Chance,
    Numbers,
    Quantity,
    Tallies,
    by_chance,
    ccc_of_sums,
    class_tallies,
    lacking,
    numbers,
    rating_tallies,
    strata,
)
from emopeft.downstream.measures.weighted import uar
from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.reports.group_runs import OneRun, Part, Runs
from emopeft.downstream.reports.grouping import Grouping

LEAST = 5  # speakers of a group


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a run has of a part of its task, in one grouping.

    Attributes:
        clips, speakers: of each group, that have a truth.
        kept: the groups with enough speakers, which alone have numbers.
        numbers: by the places of groups. more: against the run with a frozen encoder.
        chances: of what is measured between groups, what chance gives.
        pairs: by measure the best and the worst group. lacks: classes of which one has no clip.
    """

    clips: Sequence[int]
    speakers: Sequence[int]
    kept: Sequence[int]
    numbers: Numbers
    more: Numbers
    chances: Mapping[Quantity, Chance]
    pairs: Mapping[str, tuple[int, int]]
    lacks: Mapping[int, Sequence[str]]


def compare(runs: Runs, part: Part, grouping: Grouping, least: int = LEAST) -> list[Measured]:
    """The numbers of a grouping's groups in every run; groups of fewer than ``least`` speakers
    have none."""
    counted = [_Counted.of(part, run, grouping, least) for run in runs.runs]
    found = []
    for i, own in enumerate(counted):
        base = counted[runs.base[i]].tallies if i in runs.base else None
        both: tuple[Numbers, Numbers] = ({}, {})
        if own.tallies is not None:
            both = numbers([own.tallies], None if base is None else [base], own.parted)
        found.append(own.measured(part, both))
    return found


def _placed(found: Numbers, kept: Sequence[int]) -> Numbers:
    """The numbers by the places of groups among all."""
    return {
        quantity if quantity.group is None else quantity._replace(group=kept[quantity.group]): of
        for quantity, of in found.items()
    }


@dataclasses.dataclass(frozen=True)
class _Counted:
    """A run's clips in a grouping: as `Measured`, with what its numbers are made of; None where no
    group has enough speakers."""

    clips: list[int]
    speakers: list[int]
    kept: list[int]
    tallies: Tallies | None
    parted: list[list[int]]

    @classmethod
    def of(cls, part: Part, run: OneRun, grouping: Grouping, least: int) -> _Counted:
        rows = [r for r in _usable(part, run) if r.id in grouping.of]
        clips: list[set[str]] = [set() for _ in grouping.names]
        speakers: list[set[str]] = [set() for _ in grouping.names]
        for row in rows:
            clips[grouping.of[row.id]].add(row.id)
            speakers[grouping.of[row.id]].add(row.speaker)
        kept = [place for place, who in enumerate(speakers) if len(who) >= least]
        place = {of: i for i, of in enumerate(kept)}
        rows = [row for row in rows if grouping.of[row.id] in place]
        names = {name: i for i, name in enumerate(sorted({row.speaker for row in rows}))}
        who = np.array([names[row.speaker] for row in rows], dtype=np.intp)
        group = np.array([place[grouping.of[row.id]] for row in rows], dtype=np.intp)
        tallies = _tallies(part, rows, who, group, (len(names), len(kept))) if kept else None
        parted = strata(who, group, len(names)) if kept else []
        return cls([len(of) for of in clips], [len(of) for of in speakers], kept, tallies, parted)

    def measured(self, part: Part, both: tuple[Numbers, Numbers]) -> Measured:
        """With its numbers."""
        chances, pairs = {}, {}
        if self.tallies is not None:
            chances = by_chance(self.tallies, both[0])
            pairs = {
                name: (self.kept[best], self.kept[worst])
                for name, (best, worst) in self.tallies.pairs.items()
            }
        own, more = (_placed(of, self.kept) for of in both)
        return Measured(
            self.clips, self.speakers, self.kept, own, more, chances, pairs, self._lacks(part)
        )

    def _lacks(self, part: Part) -> dict[int, list[str]]:
        """The classes of which a kept group has no clip."""
        if self.tallies is None or not part.classes:
            return {}
        each = zip(self.kept, lacking(self.tallies), strict=True)
        named = {g: [c for c, no in zip(part.classes, row, strict=True) if no] for g, row in each}
        return {group: classes for group, classes in named.items() if classes}


def _usable(part: Part, run: OneRun) -> list[Prediction]:
    """The rows that have a truth."""
    if part.classes:
        return [row for row in run.rows if row.values[part.truth]]
    return [row for row in run.rows if not math.isnan(row.values[part.truth])]


def _tallies(
    part: Part,
    rows: Sequence[Prediction],
    who: np.ndarray,
    group: np.ndarray,
    shape: tuple[int, int],
) -> Tallies:
    cells = [[row.values[column] for row in rows] for column in (part.truth, part.prediction)]
    if part.classes:
        place = {name: i for i, name in enumerate(part.classes)}
        truth, said = (np.array([place[x] for x in column], dtype=np.intp) for column in cells)
        return class_tallies(who, group, truth, said, part.classes, shape)
    ratings, predicted = (np.array(column, dtype=np.float64) for column in cells)
    seeds = np.array([row.seed for row in rows])
    return rating_tallies(who, group, seeds, ratings, predicted, part.dimension, shape)


def of_speakers(part: Part, run: OneRun) -> dict[str, float]:
    """The main measure of each speaker, the mean over seeds where it is a CCC; NaN of one whose
    clips give none."""
    rows = _usable(part, run)
    names = sorted({row.speaker for row in rows})
    place = {name: i for i, name in enumerate(names)}
    group = np.array([place[row.speaker] for row in rows], dtype=np.intp)
    sums = _tallies(part, rows, np.zeros_like(group), group, (1, len(names))).sums[0]
    values = uar(sums) if part.classes else ccc_of_sums(sums).mean(-1)
    return dict(zip(names, values.tolist(), strict=True))
