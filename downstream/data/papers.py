"""What a paper reports, experiment by experiment: ``recipes/PAPER/experiments.yaml``.

A row is a recipe of the paper's folder, the keys in which it differs, and the paper's own numbers,
each with a mark that says where it comes from. Numbers are as result.json has them: an accuracy of
67.7 % is 0.677. Where nothing is known there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, model_validator

from emopeft.downstream.data.recipe import EXPERIMENTS, FOLDER, Recipe, from_file, shipped
from emopeft.downstream.data.resolve import resolve
from emopeft.downstream.data.yaml_reader import MAX_BYTES, load_yaml
from emopeft.downstream.protocols.fields import LongText, Plain, Text, once
from emopeft.errors import UserError, unknown
from emopeft.files import read_text
from emopeft.validation import Strict, validated

SOURCES = {
    "code": "read in the project's code or its own document",
    "run": "executed and measured",
    "fig": "read off a figure, about 0.3 points either way",
    "abs": "of the abstract",
    "later": "quoted by a later paper",
}

Source = Literal["code", "run", "fig", "abs", "later"]
Value = Annotated[float, Field(ge=-1e300, le=1e300)]
Ratio = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Recipes = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,59}\.yaml$")]
Keys = Annotated[dict[Text, Any], Field(max_length=100)]


class Relative(Strict):
    """Against another row of the table: ``speed``, how many times faster it trains; ``trainable``,
    its trainable parameters divided by the other's."""

    to: Plain
    speed: Ratio | None = None
    trainable: Ratio | None = None


class Row(Strict):
    """One experiment.

    Attributes:
        keys: of the recipe, with their dots, in which it differs from the table's.
        paper: test name (or "dev") to metric to the paper's number, as result.json has it.
        parameters: as result.json counts them; these follow from the published definitions.
        made: what a protocol that is made (``transfer:...``) is called on its corpora; runs are
            known by it. Unset: the table's.
        source: mark of ``paper`` and ``relative``; unset: the table's.
    """

    name: Plain
    keys: Keys = {}
    paper: Annotated[dict[Plain, dict[Plain, Value]], Field(max_length=20)] = {}
    parameters: dict[Literal["method", "head", "trainable", "total"], Count] = {}
    relative: Relative | None = None
    made: Plain | None = None
    source: Source | None = None
    note: Text | None = None


class Table(Strict):
    """Experiments that are compared with each other.

    Attributes:
        recipe: a file of the paper's folder. keys: what all rows change in it.
        waits: why nothing can be run yet; there is no recipe then.
    """

    name: Plain
    title: Text
    recipe: Recipes | None = None
    waits: Text | None = None
    keys: Keys = {}
    made: Plain | None = None
    source: Source | None = None
    rows: Annotated[list[Row], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _fits(self) -> Table:
        if (self.recipe is None) == (self.waits is None):
            raise ValueError("must hold 'recipe', or 'waits' where nothing can be run yet")
        names = once([row.name for row in self.rows])
        for row in self.rows:
            if (row.paper or row.relative) and not (row.source or self.source):
                raise ValueError(f"row '{row.name}' has numbers and no 'source'")
            if row.relative and row.relative.to not in names:
                raise ValueError(f"row '{row.name}' is relative to '{row.relative.to}', no row")
        return self


class Paper(Strict):
    """experiments.yaml. ``missing``: what cannot be repeated here, and why."""

    schema_version: Literal[1] = Field(alias="schema")
    title: Text
    authors: Text
    year: Annotated[int, Field(ge=1900, le=2100)] | None = None
    link: Text | None = None
    missing: Annotated[list[LongText], Field(max_length=50)] = []
    tables: Annotated[list[Table], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _once(self) -> Paper:
        once([table.name for table in self.tables])
        return self


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A row in its table; ``folder`` holds the recipes."""

    folder: Path
    table: Table
    row: Row

    @property
    def name(self) -> str:
        return f"{self.table.name}/{self.row.name}"

    @property
    def keys(self) -> dict[str, Any]:
        """What it changes in the recipe."""
        return {**self.table.keys, **self.row.keys}

    @property
    def source(self) -> str | None:
        return self.row.source or self.table.source

    @property
    def made(self) -> str | None:
        """What its protocol is called where it is made of the corpora."""
        return self.row.made or self.table.made

    def recipe(self, smoke: bool = False) -> Recipe:
        """What is run, or a small version of it. Raises UserError where it waits or is wrong."""
        if self.table.recipe is None:
            raise UserError(f"{self.name} cannot be run yet: {self.table.waits}")
        return resolve([from_file(self.folder / self.table.recipe), self.keys], smoke)


def papers() -> list[str]:
    """The papers of this package, by their folders."""
    return sorted(path.parent.name for path in shipped(".").glob(f"*/{EXPERIMENTS}"))


def folder_of(name: str) -> Path:
    """A paper's folder: of this package (``PAPER`` or ``recipes/PAPER``), or one of your own.

    Raises UserError with the nearest names.
    """
    own, short = Path(name), name.rstrip("/").removeprefix(f"{FOLDER}/")
    if (own / EXPERIMENTS).is_file():
        return own
    if short not in papers():
        raise unknown("paper", name[:100], papers())
    return shipped(short)


def read_paper(folder: Path) -> Paper:
    """The paper of a folder. Raises UserError naming file and key."""
    place = folder / EXPERIMENTS
    try:
        data = load_yaml(read_text(place, MAX_BYTES), str(place))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{place} is not valid YAML: {ascii(reason)[1:-1]}") from None
    return validated(place, Paper, data)


def experiments(folder: Path, paper: Paper) -> Iterator[Experiment]:
    """All rows of all tables, in their order."""
    for table in paper.tables:
        for row in table.rows:
            yield Experiment(folder, table, row)
