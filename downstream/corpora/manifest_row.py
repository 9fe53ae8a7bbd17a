"""A row of a manifest: what its cells may hold, and its JSON Schema."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, model_validator

from emopeft.downstream.corpora.audio import AUDIO_SUFFIXES, is_audio
from emopeft.validation import Strict

LONGEST = 1000  # characters of a cell
RATINGS = ("valence", "arousal", "dominance")  # ratings with columns of their own
# Columns that are called anything, by what stands before the ":", with where a row has them.
NAMED = {"rating": "ratings", "label": "votes", "trait": "traits"}
# What records call something else; a trait of that name could not be told from it.
TAKEN = (
    "id", "fold", "seed", "test", "speaker", "sex", "session", "style", "split", "truth",
    "prediction",
)  # fmt: skip
LONGEST_NAME = 60
TOLERANCE = 0.02  # by which shares may miss 1: they were rounded


def _cell(raw: Any) -> str | None:
    """A cell as text, None when it is empty; ValueError with a sentence when it is neither.

    Line breaks and other white space within it become spaces: names stand in tables of one line.
    """
    text = _text_of(raw)
    if text is None:
        return None
    text = "".join(" " if c.isspace() else c for c in text)
    if not text.isprintable():  # NUL, ESC, halves of characters
        raise ValueError(f"{text!r:.60} holds a character that cannot be shown")
    return text


def _text_of(raw: Any) -> str | None:
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(f"{raw!r:.60} is neither text nor a number")
    text = str(raw).strip()
    if len(text) > LONGEST:
        raise ValueError(f"{text[:20]!r}… has {len(text)} characters, more than {LONGEST}")
    return text


def _required(raw: Any) -> str:
    text = _cell(raw)
    if text is None:
        raise ValueError("a value is required")
    return text


def _audio_path(raw: Any) -> str:
    text = _text_of(raw)
    if text is None:
        raise ValueError("a value is required")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError(f"{text!r:.60} holds a character that no file name should have")
    if not is_audio(Path(text)):
        raise ValueError(f"'{text}' does not end in {' or '.join(AUDIO_SUFFIXES)}")
    return text


def _number(raw: Any) -> float | None:
    text = _cell(raw)
    try:
        number = None if text is None else float(text)
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ValueError(f"'{text}' is not a number")
    return number


def _vote(raw: Any) -> float | None:
    number = _number(raw)
    if number is not None and number < 0:
        raise ValueError(f"'{number:g}' is negative; votes are counts or shares")
    return number


def _choice(*names: str, short: bool = False) -> BeforeValidator:
    """One of ``names``, in any case, or (``short``) its first letter."""
    known = {name: name for name in names} | {name[0]: name for name in names if short}

    def check(raw: Any) -> str | None:
        text = _cell(raw)
        if text is not None and text.lower() not in known:
            raise ValueError(f"'{text}' is not {' or '.join(names)}")
        return None if text is None else known[text.lower()]

    return BeforeValidator(check)


Required = Annotated[str, BeforeValidator(_required, json_schema_input_type=str | float)]
Cell = Annotated[str | None, BeforeValidator(_cell, json_schema_input_type=str | float | None)]
Rating = Annotated[
    float | None, BeforeValidator(_number, json_schema_input_type=str | float | None)
]


Vote = Annotated[float | None, BeforeValidator(_vote, json_schema_input_type=str | float | None)]


def column_problem(column: str) -> str | None:
    """What is wrong with the name of a column ``rating:``, ``label:`` or ``trait:``, if anything.

    None also for columns that are called otherwise.
    """
    kind, colon, name = column.partition(":")
    if not colon or kind not in NAMED:
        return None
    if not name or name != name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        return f"{column[:80]!r} must be {kind}:NAME, with a name of up to {LONGEST_NAME} letters"
    if kind == "rating" and name in RATINGS:
        return f"'{column}' has a column of its own; call it {name}"
    if kind == "trait" and name in TAKEN:
        return f"'{column}' is called what records call something else; choose another name"
    return None


def _published(schema: dict[str, Any]) -> None:
    """The JSON Schema of a row as it is written: columns, not what they are gathered into."""
    columns = schema["properties"]
    gathered = {kind: columns.pop(where) for kind, where in NAMED.items()}
    cells = {kind: one["additionalProperties"] for kind, one in gathered.items()}
    columns |= {name: {**cells["rating"], "default": None} for name in RATINGS}
    schema["patternProperties"] = {
        f"^{kind}:.{{1,{LONGEST_NAME}}}$": cell for kind, cell in cells.items()
    }


class ManifestRow(Strict):
    """One row, as a line of a .jsonl has it; any rating, vote or trait is a column of its own."""

    model_config = ConfigDict(json_schema_extra=_published)

    id: Required
    path: Annotated[str, BeforeValidator(_audio_path)]
    speaker: Cell = None
    label: Cell = None
    session: Cell = None
    sex: Annotated[str | None, _choice("female", "male", short=True)] = None
    style: Annotated[str | None, _choice("acted", "natural")] = None
    split: Cell = None  # any text; what it may be called is checked where folds are made of it
    ratings: dict[str, Rating] = {}
    votes: dict[str, Vote] = {}
    traits: dict[str, Cell] = {}

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, row: Any) -> Any:
        """Ratings, votes and traits from the columns of a row."""
        if not isinstance(row, Mapping):
            return row
        found: dict[str, Any] = {where: {} for where in NAMED.values()}
        for column, cell in row.items():
            kind, colon, name = str(column).partition(":")
            if column in RATINGS:
                found["ratings"][column] = cell
            elif colon and kind in NAMED:
                found[NAMED[kind]][name] = cell
            else:
                found[column] = cell
        return found

    def fields(self) -> dict[str, Any]:
        """Everything, without ratings, votes and traits that are not given.

        Raises:
            ValueError: votes that are neither counts nor shares of 1.
        """
        votes = {label: vote for label, vote in self.votes.items() if vote}
        total = sum(votes.values())
        if any(vote % 1 for vote in votes.values()):
            if abs(total - 1) > TOLERANCE:
                raise ValueError(
                    f"the votes add up to {total:g}; give whole numbers of raters, or shares that "
                    "add up to 1"
                )
            votes = {label: vote / total for label, vote in votes.items()}
        given = {name: number for name, number in self.ratings.items() if number is not None}
        traits = {name: text for name, text in self.traits.items() if text is not None}
        return {**self.model_dump(), "ratings": given, "votes": votes, "traits": traits}


def column_of(place: tuple[Any, ...]) -> str:
    """The column that a place in the row was read from."""
    kinds = {where: kind for kind, where in NAMED.items()}
    if len(place) < 2 or place[0] not in kinds or place[1] in RATINGS and place[0] == "ratings":
        return str(place[-1])
    return f"{kinds[place[0]]}:{place[1]}"
