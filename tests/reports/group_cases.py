"""Hand-made runs of a corpus of women and men, and what is written of their groups."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.records.predictions import Prediction
from emopeft.downstream.records.record import write_record
from tests.records.cases import CLASSES, FOLDS, make_fold, plan_rows

PEOPLE = 14  # the even ones are women
TOY = [{"name": "toy", "title": "The Toy Corpus", "licence": "CC0 1.0", "utterances": 200,
        "hours": 0.02}]  # fmt: skip
Right = Callable[[int], int]  # of whom -> how many of their 8 clips are right


def rows_of(fold: str, right: Right, seed: int, traits: Callable[[int, int], Mapping[str, str]]):
    """Every third speaker is tested in a fold, on 8 clips, two of each class."""
    rows = []
    for who in range(int(fold) - 1, PEOPLE, 3):
        for number in range(8):
            truth = number % 4
            guess = truth if number < right(who) else (truth + 1) % 4
            scores = {f"score_{c}": 0.7 if i == guess else 0.1 for i, c in enumerate(CLASSES)}
            values = {"truth": CLASSES[truth], "prediction": CLASSES[guess], **scores}
            rows.append(
                Prediction(f"toy/s{who:02}_{number}", fold, seed, "test", f"toy/s{who:02}",
                           {k: v for k, v in traits(who, number).items() if v}, values)
            )  # fmt: skip
    return rows


def by_sex(who: int, number: int) -> dict[str, str]:
    return {"sex": "male" if who % 2 else "female"}


def make(
    place: Path,
    right: Right,
    method: str = "lora",
    *,
    seeds: Sequence[int] = (0,),
    folds: Sequence[str] = FOLDS,
    traits: Callable[[int, int], Mapping[str, str]] = by_sex,
    **facts: Any,
) -> Path:
    """A finished run."""
    every = {fold: rows_of(fold, right, 0, traits) for fold in FOLDS}
    planned = {fold: plan_rows(fold, tests={"test": rows}) for fold, rows in every.items()}
    facts |= {"corpora": TOY, "name": place.name, "method": method}
    for seed in seeds:
        for fold in folds:
            own = rows_of(fold, (lambda who, s=seed: right(who) - s), seed, traits)
            make_fold(place, fold, seed, rows=own, planned=planned, seeds=seeds, **facts)
    write_record(place)
    return place


def probe(who: int) -> int:
    return 6


def unfair(who: int) -> int:
    """Three more of a woman's clips, one less of a man's; some speakers differ."""
    return (5 if who % 4 == 1 else 4) if who % 2 else 8


def make_other_plan(place: Path) -> Path:
    for fold in FOLDS:
        make_fold(place, fold)
    write_record(place)
    return place


def table(place: Path) -> list[dict[str, str]]:
    with (place / "groups.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def find(rows: Sequence[Mapping[str, str]], **wanted: str) -> dict[str, str]:
    (one,) = (r for r in rows if all(r[name] == value for name, value in wanted.items()))
    return dict(one)
