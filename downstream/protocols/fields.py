"""What stands in a protocol file: names, texts, lists and rules, each of them bounded."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from emopeft.downstream.views.base import parse_view
from emopeft.errors import UserError
from emopeft.validation import Strict

MOST_FOLDS = 1000
NAME = r"[a-z0-9]+([.-][a-z0-9]+)*"
PLAIN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"  # it becomes part of the name of a folder

# A part that shares speakers with train, by the words one of which the protocol's name must hold.
# Where test leaks nothing is kept apart, so that ``leaks`` is said of dev, too.
OVERLAPS = {"dev": ("random-dev", "leaks"), "test": ("leaks",)}

T = TypeVar("T")


def _printable(text: str) -> str:
    if not text.strip():
        raise ValueError("must be a non-empty text")
    if not text.replace("\n", " ").isprintable():
        raise ValueError("must hold no control characters")
    return text


def _one_line(text: str) -> str:
    return _printable(text.replace("\n", "\0"))


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError(f"{text!r:.60} must be small letters, digits and single hyphens")
    return text


def _plain(text: str) -> str:
    if not re.fullmatch(PLAIN, text):
        raise ValueError(f"{text!r:.60} must be up to 60 letters, digits, '.', '_' or '-'")
    return text


def once(items: list[T]) -> list[T]:
    """The items; ValueError where one stands twice."""
    if twice := [item for item, number in Counter(items).items() if number > 1]:
        raise ValueError(f"'{twice[0]}' stands twice")
    return items


def declared(name: str, overlap: Iterable[str]) -> tuple[str, ...]:
    """The parts that share speakers with train, as the file says *and* the protocol's name."""
    words = f"-{name}-"
    return tuple(p for p in overlap if any(f"-{w}-" in words for w in OVERLAPS.get(p, ())))


def _places(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else ""
    return "places" if isinstance(first, int) and not isinstance(first, bool) else "names"


def _rule_or_members(value: Any) -> str:
    return "rule" if isinstance(value, dict) else "members"


def nested_or_flat(value: Any) -> str:
    """Whether labels are given per corpus."""
    nested = isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())
    return "nested" if nested else "flat"


def list_or_other(value: Any) -> str:
    """Whether a list is meant."""
    return "list" if isinstance(value, list) else "other"


def _filled(items: list[T]) -> list[T]:
    if not items:
        raise ValueError("is empty; every fold needs train, dev and test")
    return items


def _view(text: str) -> str:
    try:
        view = parse_view(text)
    except UserError as error:
        raise ValueError(f"is no view: {error}") from None
    if view.crowded or any(t.options().get("folder") for t in view.transforms):
        raise ValueError(
            f"is {text[:60]!r}, which is made of other recordings: a protocol names none"
        )
    return view.spelling


Text = Annotated[str, StringConstraints(max_length=300), AfterValidator(_one_line)]
LongText = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_printable)]
Texts = Annotated[list[Text], AfterValidator(once)]
Places = Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(once)]
Name = Annotated[
    str,
    StringConstraints(max_length=100),
    AfterValidator(_name),
    Field(json_schema_extra={"pattern": f"^{NAME}$"}),
]
Plain = Annotated[str, AfterValidator(_plain), Field(json_schema_extra={"pattern": f"^{PLAIN}$"})]
# Which of two shapes is meant is seen before it is checked, so that the error is of that one.
Members = Annotated[
    Annotated[Texts, AfterValidator(_filled), Tag("names")]
    | Annotated[Places, AfterValidator(_filled), Tag("places")],
    Discriminator(_places),
]
Count = Annotated[int, Field(ge=0, le=10**9)]
View = Annotated[str, AfterValidator(_view)]


class HashRule(Strict):
    """A frozen choice of utterances by name, for corpora whose id list cannot be shipped.

    An utterance is chosen when the SHA-256 of part ``part`` of its id (counted from 0, parts
    separated by "_"; None: the whole id), read as a big-endian integer, leaves ``remainder``
    modulo ``modulus``. Nothing is drawn: the choice is the same everywhere.
    """

    part: Annotated[int, Field(ge=0, le=1000)] | None = None
    modulus: Annotated[int, Field(ge=2, le=10**6)]
    remainder: Count

    @model_validator(mode="after")
    def _below(self) -> HashRule:
        if self.remainder >= self.modulus:
            raise ValueError("'remainder' must be below 'modulus'")
        return self

    def chooses(self, utterance_id: str) -> bool:
        """Whether the utterance belongs to the chosen ones."""
        parts = utterance_id.split("_")
        whole = self.part is None or self.part >= len(parts)
        text = utterance_id if whole else parts[self.part or 0]
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return int.from_bytes(digest, "big") % self.modulus == self.remainder


class GroupRule(Strict):
    """Folds from what the data say: by speaker, by session, by the data's own split, or by id.

    Speakers (or sessions) get a fold each while there are at most ``one_each_up_to``; more of
    them are grouped into ``folds`` groups of about equal numbers of them, of each class and of
    utterances. At least 3 of each: train, dev and test. A split makes one fold; what it calls
    test1, test-phone and the like are tests of their own, by these names in small letters.

    By id, an utterance is tested in fold 1 + (SHA-256 of corpus/id, a big-endian integer, modulo
    ``folds``): as if drawn at random, and the same everywhere, whatever else is there. Speakers
    are then on all sides, which the protocol's name must say (leaks).
    """

    by: Literal["speaker", "session", "split", "id"]
    one_each_up_to: Annotated[int, Field(ge=3, le=MOST_FOLDS)] = 10
    folds: Annotated[int, Field(ge=3, le=MOST_FOLDS)] = 5


Dev = Annotated[
    Annotated[HashRule, Tag("rule")] | Annotated[Members, Tag("members")],
    Discriminator(_rule_or_members),
]
