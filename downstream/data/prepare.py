"""From a recipe to resolved folds: which corpus, where it lies, which utterances on which side."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from emopeft.downstream.corpora.base import CORPORA, Corpus, TreeError, Utterance
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.protocols.protocol import Fold, Resolved, load_protocol
from emopeft.errors import UserError, unknown

DEFAULT_CORPUS = "iemocap"


@dataclasses.dataclass
class Data:
    """A corpus under a protocol, with the folds that are to be run."""

    corpus: Corpus
    root: Path
    resolved: Resolved
    folds: list[Fold]

    def utterances(self) -> list[Utterance]:
        """All utterances of the chosen folds, each once, in a fixed order."""
        found = {u.id: u for f in self.folds for u in (*f.train, *f.dev, *f.test)}
        return [found[name] for name in sorted(found)]


def choose_corpus(recipe: Recipe) -> Corpus:
    """The recipe's corpus; unset: the only one whose place the environment holds, else IEMOCAP."""
    if recipe.corpus.name is not None:
        return CORPORA[recipe.corpus.name]
    placed = [c for _, c in CORPORA.items() if os.environ.get(c.environment)]
    if recipe.corpus.data is None and len(placed) == 1:
        return placed[0]
    return CORPORA[DEFAULT_CORPUS]


def place_of(corpus: Corpus, recipe: Recipe) -> Path:
    """Where the corpus lies: the recipe's place, else its environment variable."""
    place = recipe.corpus.data or os.environ.get(corpus.environment)
    if not place:
        raise UserError(
            f"where {corpus.title} lies is not known: give --corpus {corpus.name} --data DIR, or "
            f"set {corpus.environment}; --data must name {corpus.folder}"
        )
    return Path(place).expanduser()


def prepare(recipe: Recipe) -> Data:
    """Read the corpus, resolve the protocol, audit it for leaks, and choose the folds.

    Raises:
        UserError: whatever is wrong with corpus, protocol or fold names, all problems at once.
    """
    corpus = choose_corpus(recipe)
    for name in recipe.corpus.options:
        if name not in corpus.options:
            raise unknown(f"option of corpus {corpus.name}", str(name), corpus.options)
    protocol = load_protocol(recipe.protocol or corpus.protocol)
    if protocol.corpus not in (corpus.name, "manifest") or (
        protocol.corpus == "manifest" and corpus.name != "manifest"
    ):
        raise UserError(
            f"protocol {protocol.name} is for corpus {protocol.corpus}, not {corpus.name}; leave "
            f"--protocol out for {corpus.protocol}, or see --list protocols"
        )
    root = place_of(corpus, recipe)
    try:
        utterances = corpus.load(root, **recipe.corpus.options)
    except TreeError as error:
        if not recipe.corpus.allow_incomplete or not error.utterances:
            raise
        utterances = error.utterances
    resolved = protocol.resolve(utterances, allow_incomplete=recipe.corpus.allow_incomplete)
    resolved.check_leaks()
    return Data(corpus, root, resolved, choose_folds(resolved, recipe.folds))


def choose_folds(resolved: Resolved, text: str) -> list[Fold]:
    """``all`` or names such as ``1,3``."""
    by_name = {f.name: f for f in resolved.folds}
    if text == "all":
        return list(by_name.values())
    names = list(dict.fromkeys(x.strip() for x in str(text).split(",")))
    for name in names:
        if name not in by_name:
            raise unknown("fold", name, by_name)
    return [by_name[name] for name in names]
