"""From a recipe to a plan: which corpora, where they lie, which utterances on which side."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import CORPORA, Corpus, TreeError, Utterance
from emopeft.downstream.corpora.scan import scan
from emopeft.downstream.data.places import corpora_of
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.protocols.makers.base import MAKERS, is_made, make
from emopeft.downstream.protocols.parting import parted
from emopeft.downstream.protocols.protocol import Protocol, load_protocol, parse
from emopeft.downstream.tasks.base import make_task, task_classes
from emopeft.downstream.tasks.keys import Settings
from emopeft.errors import UserError, unknown
from emopeft.files import cache_root

DEFAULT_CORPUS = "iemocap"


@dataclasses.dataclass(frozen=True)
class Data:
    """Corpora, where they lie (in their order), and what is done with them."""

    corpora: list[Corpus]
    roots: list[Path]
    plan: Plan


def choose_corpora(recipe: Recipe) -> list[Corpus]:
    """The recipe's corpora; unset: the only one whose place the environment holds, else IEMOCAP."""
    if recipe.corpus.name is not None:
        return corpora_of(recipe.corpus.name)
    placed = [c for _, c in CORPORA.items() if os.environ.get(c.environment)]
    if recipe.corpus.data is None and len(placed) == 1:
        return placed
    return [CORPORA[DEFAULT_CORPUS]]


def protocol_name(recipe: Recipe) -> str:
    """The recipe's protocol, else the corpus' own; several corpora are pooled.

    A corpus' options may decide: ESD has one for each language.
    """
    if recipe.protocol is not None:
        return recipe.protocol
    corpora = choose_corpora(recipe)
    if len(corpora) > 1:
        return "pool"
    return corpora[0].with_options(**recipe.corpus.options).protocol


def place_of(corpus: Corpus, recipe: Recipe, several: bool = False) -> Path:
    """Where a corpus lies: the recipe's place, else its environment variable.

    Args:
        several: whether it is one of several; one folder in the recipe then holds a folder, or
            link, for each, called as the corpus is (as its NAME, where it is FORMAT:NAME).
    """
    place = recipe.corpus.data
    if isinstance(place, Mapping):
        place = place.get(corpus.name)
    elif several and place:
        place = str(Path(place) / corpus.folder_name)
    place = place or os.environ.get(corpus.environment)
    if not place:
        how = f"--data {corpus.name}=DIR" if several else f"--corpus {corpus.name} --data DIR"
        raise UserError(
            f"where {corpus.title} lies is not known: give {how}, or set {corpus.environment}; "
            f"{'DIR' if several else '--data'} must name {corpus.folder}"
        )
    return Path(place).expanduser()


def prepare(recipe: Recipe) -> Data:
    """Read the corpora and all their audio, make the plan, and audit it for leaks.

    Raises:
        UserError: whatever is wrong with corpora, audio, protocol or fold names, all problems at
            once.
    """
    corpora, name = choose_corpora(recipe), protocol_name(recipe)
    incomplete = recipe.corpus.allow_incomplete
    protocol: Protocol | None = None
    if not is_made(name):  # what does not fit is told before a tree is read
        protocol = _protocol(name, recipe, corpora)
        corpora = _in_order(corpora, protocol, incomplete)
        _check_tasks(protocol, recipe)
    options = _options(recipe, corpora)
    roots = {c.name: place_of(c, recipe, len(corpora) > 1) for c in corpora}
    if isinstance(recipe.corpus.data, Mapping):
        for place in recipe.corpus.data:
            if place not in roots:
                raise unknown("corpus in corpus.data", place, roots)
    utterances: list[Utterance] = []
    for corpus in corpora:
        utterances += _load(corpus, roots[corpus.name], options[corpus.name], incomplete)
    if protocol is None:
        placed = [_placed(c, roots[c.name], options[c.name]) for c in corpora]
        protocol = make(name, placed, utterances)
        corpora = _in_order(corpora, protocol)
        _check_tasks(protocol, recipe)
    scales = {c.name: c.with_options(**options[c.name]).scales for c in corpora}
    settings = Settings(recipe.labels, recipe.loss, scales)
    plan = Plan.of(
        protocol,
        make_task(recipe.task, protocol, parted(protocol, utterances)[0], settings),
        utterances,
        allow_incomplete=incomplete,
    )
    plan.choose(recipe.folds)  # a wrong name is an error before hours of audio are read
    plan.check_leaks()  # as is a speaker on two sides; the same recording is seen below
    scanned = scan(
        list({e.uid: e.utterance for e in plan.examples()}.values()),
        store=cache_root(recipe.cache.dir),
    )
    scanned.raise_if_broken()
    plan = plan.with_audio(scanned.audio, scanned.seconds)
    plan.check_leaks()
    return Data(corpora, [roots[c.name] for c in corpora], plan)


def read_corpora(recipe: Recipe) -> list[tuple[Corpus, list[Utterance]]]:
    """Each of the recipe's corpora as it lies, with its utterances; no protocol, no audio.

    Raises:
        UserError: a place that is not known, or a tree that is not the corpus.
    """
    corpora = choose_corpora(recipe)
    options = _options(recipe, corpora)
    found = []
    for corpus in corpora:
        root, given = place_of(corpus, recipe, len(corpora) > 1), options[corpus.name]
        utterances = _load(corpus, root, given, recipe.corpus.allow_incomplete)
        found.append((_placed(corpus, root, given), utterances))
    return found


def _check_tasks(protocol: Protocol, recipe: Recipe) -> None:
    for task in task_classes(recipe.task):
        if task.name not in protocol.tasks and not task.auxiliary:
            raise UserError(
                f"protocol {protocol.name} is for -d {' or '.join(protocol.tasks)}, not "
                f"{task.name}; choose another protocol (see --list protocols), or name the task in "
                "the key 'task' of a protocol file of your own"
            )


def _protocol(name: str, recipe: Recipe, corpora: Sequence[Corpus]) -> Protocol:
    """The protocol of a name: shipped, a file, or folds that came with the corpus itself."""
    corpus = corpora[0]
    if len(corpora) > 1 or corpus.folds is None or not own(name, corpus):
        protocol = load_protocol(name, MAKERS)
        alike = len(corpora) == 1 and not protocol.prefixed and protocol.corpora == (corpus.like,)
        return protocol.on(corpus.name) if alike else protocol
    options = _options(recipe, corpora)[corpus.name]
    data = corpus.folds(name, place_of(corpus, recipe), **options)
    return parse(data, f"protocol {name}")


def own(name: str, corpus: Corpus) -> bool:
    """Whether a protocol's name is one of those that a corpus with folds of its own makes."""
    return name == corpus.protocol or name.startswith(f"{corpus.protocol}-")


def _in_order(
    corpora: Sequence[Corpus], protocol: Protocol, incomplete: bool = False
) -> list[Corpus]:
    """The corpora as the protocol orders them; UserError where they are not the same.

    Args:
        incomplete: some of the protocol's corpora will do.
    """
    by_name = {corpus.name: corpus for corpus in corpora}
    some = set(by_name) < set(protocol.corpora)
    if set(by_name) != set(protocol.corpora) and not (some and incomplete):
        names = "+".join(by_name)
        what = "corpora" if len(protocol.corpora) > 1 else "corpus"
        way_out = (
            f"leave --protocol out for {corpora[0].protocol}, or see --list protocols"
            if len(by_name) == 1 and not protocol.prefixed
            else f"give --corpus {protocol.corpus}"
        )
        if some:
            way_out += f", or run on {names} alone with -o corpus.allow_incomplete=true"
        raise UserError(
            f"protocol {protocol.name} is for {what} {protocol.corpus}, not {names}; {way_out}"
        )
    return [by_name[name] for name in protocol.corpora if name in by_name]


def _options(recipe: Recipe, corpora: Sequence[Corpus]) -> dict[str, dict[str, Any]]:
    """Per corpus, what its reader takes; of several corpora ``{name: {option: value}}``."""
    per_corpus: Mapping[str, Any] = recipe.corpus.options
    if len(corpora) == 1:
        per_corpus = {corpora[0].name: per_corpus}
    known = {corpus.name: corpus for corpus in corpora}
    for name, options in per_corpus.items():
        if name not in known:
            raise unknown("corpus in corpus.options", str(name), known)
        if not isinstance(options, Mapping):
            raise UserError(f"corpus.options.{name} must be options of that corpus, as key: value")
        for option in options:
            if option not in known[name].options:
                raise unknown(f"option of corpus {name}", str(option), known[name].options)
    return {name: dict(per_corpus.get(name, {})) for name in known}


def _placed(corpus: Corpus, root: Path, options: Mapping[str, Any]) -> Corpus:
    """The corpus with what its options change, and its folds read where it lies."""
    folds = corpus.folds and functools.partial(corpus.folds, root=root, **options)
    return dataclasses.replace(corpus.with_options(**options), folds=folds)


def _load(
    corpus: Corpus, root: Path, options: Mapping[str, Any], allow_incomplete: bool
) -> list[Utterance]:
    try:
        return corpus.load(root, **options)
    except TreeError as error:
        if not allow_incomplete or not error.utterances:
            raise
        return error.utterances
