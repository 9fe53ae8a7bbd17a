"""Where corpora lie, as ``--data`` says it: a place, or NAME=DIR for each of several corpora."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emopeft.downstream.corpora.base import CORPORA, Corpus
from emopeft.errors import UserError, unknown


def corpora_of(name: str) -> list[Corpus]:
    """The corpora of ``ravdess+emodb``; raises UserError for one that is unknown or named twice."""
    names = [part.strip() for part in name.split("+")]
    if len(set(names)) < len(names):
        raise UserError(f"{name} names a corpus twice; give each once")
    return [CORPORA[part] for part in names]


def places_of(words: Sequence[str], corpora: Sequence[str]) -> str | dict[str, str]:
    """What stands in the key ``corpus.data``: one place, or that of each corpus by its name.

    Args:
        words: as ``--data`` was given, each DIR or NAME=DIR. What stands before the = is a name
            only where it is one of the corpora: a path may hold a =, too.
        corpora: the names of those that are chosen.

    Raises:
        UserError: a corpus is placed twice, a place is empty, or one of several has no name.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or name not in corpora:
            if len(words) == 1:
                return word
            if equals and "/" not in name:
                raise unknown("corpus before =", name[:60], corpora)
            raise UserError(
                f"{word} does not say whose place it is: given several times, each is NAME=DIR, of "
                f"{', '.join(corpora)}; one DIR alone holds a folder for each corpus"
            )
        if not place.strip():
            raise UserError(f"{word} names no place; give {name}=DIR")
        if name in found:
            raise UserError(f"{name}=DIR is given twice; give it once")
        found[name] = place
    return found[corpora[0]] if len(corpora) == 1 else found


def placed(corpora: Sequence[Corpus], words: Sequence[str]) -> list[tuple[Corpus, Path]]:
    """Each corpus with its place; raises UserError for one that has none, or as `places_of`."""
    places = places_of(words, [c.name for c in corpora])
    found = []
    for corpus in corpora:
        place = places if isinstance(places, str) else places.get(corpus.name)
        if place is None:
            raise UserError(f"where {corpus.title} lies is not said; give {corpus.name}=DIR, too")
        several = isinstance(places, str) and len(corpora) > 1
        path = Path(place).expanduser()
        found.append((corpus, path / corpus.folder_name if several else path))
    return found
