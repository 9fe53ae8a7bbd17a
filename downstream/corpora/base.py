"""The corpus contract: one tree as its publisher ships it, read into utterances, never written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.audio import is_audio
from emopeft.errors import UserError, unknown
from emopeft.registry import Registry

LISTED = 20  # problems written out in one error message; the rest is counted


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One clip: who said what, where it is, and how it is labelled.

    ``id`` is unique in its corpus and independent of where the tree lies; ``uid`` is unique among
    all corpora, and is what everything else goes by. ``speaker`` is "" where it is not known.
    ``emotion`` is the corpus' own label in the field's plain words ("angry", "neutral"), or None
    when unlabelled or the raters found no consensus. ``ratings`` are numbers by name ("valence",
    "arousal", "intensity") on the corpus' own scale, high meaning high, never clipped to it.
    ``votes`` are how many raters chose each of the corpus' own labels, or the shares of them where
    only shares are known (then they add up to 1); empty where not known. ``traits`` are what else
    is known of speaker or recording ("age", "race").
    """

    id: str
    path: Path
    speaker: str
    emotion: str | None
    session: str | None = None
    sex: str | None = None  # "female" | "male"
    style: str | None = None  # "acted" | "natural"
    ratings: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    votes: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    split: str | None = None  # a split that came with the data, as it was called there
    corpus: str = ""  # its name, set by `Corpus.load`
    traits: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def uid(self) -> str:
        """corpus/id: one corpus' 03a01Wa is not another's."""
        return f"{self.corpus}/{self.id}" if self.corpus else self.id

    @property
    def speaker_uid(self) -> str:
        """corpus/speaker, "" where the speaker is not known."""
        return f"{self.corpus}/{self.speaker}" if self.corpus and self.speaker else self.speaker

    def all_traits(self) -> dict[str, str]:
        """What is known of speaker and recording, by name, always in one order."""
        known = {"sex": self.sex, "session": self.session, "style": self.style, "split": self.split}
        known |= {name: self.traits[name] for name in sorted(self.traits)}
        return {name: value for name, value in known.items() if value}


def printable(text: str) -> str:
    """The text with whatever a terminal would obey, or could not show, written out."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def listing(problems: Sequence[str], limit: int = LISTED) -> str:
    """One problem per line, at most ``limit`` of them, and how many more there are."""
    lines = [f"  {printable(problem)}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)


class TreeError(UserError):
    """A tree that is not the corpus it should be: all its problems at once.

    Attributes:
        problems: one sentence each, naming the file or folder.
        utterances: those that could be read all the same, for the checker.
    """

    def __init__(self, where: Path, problems: Sequence[str], utterances: Sequence[Utterance] = ()):
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        super().__init__(f"{count} in {where}:\n{listing(problems)}")
        self.problems = list(problems)
        self.utterances = list(utterances)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus as data, with the one function that reads its tree.

    Attributes:
        name: as given to ``--corpus``.
        read: ``read(root, **options) -> list[Utterance]`` in an order that does not depend on
            the file system. Only lists and parses; audio is opened by nobody here. Raises
            TreeError saying precisely what is missing where the tree is not the corpus.
        emotions: every label ``read`` may give (empty: any).
        expected: the published number of utterances per emotion (empty: not known in advance).
        utterances: the published number of utterances, where that per emotion is not known.
        speakers: the published number of speakers (None: not known).
        hours: the published hours of audio, or those that a public source measured (None: not
            known).
        homepage: where its publisher gives it away ("": nowhere).
        folder: what the published tree contains, for "is this the right folder?" messages.
        environment: the variable that may hold the root.
        protocol: the protocol used when none is named.
        scales: rating name -> (lowest, highest) nominal rating, for all ratings ``read`` may give
            whose scale is known. Ratings may lie beyond.
        hashes: optional ``hashes(place) -> {file name: (sha256, bytes)}`` of the published files;
            ``place`` is the table itself or a tree that holds it.
        ids: optional ``ids() -> published utterance ids``, where the names follow a rule.
        duplicates: groups of ids that hold the same recording in the corpus as published.
        options: what ``read`` takes beside root, as ``name -> help``.
        adjust: optional ``adjust(**options) -> {field: value}``: what the options change of the
            published numbers, and of the protocol used when none is named.
        named: a format in which many corpora come: ``named("x")`` is the corpus ``format:x``.
        folds: for a corpus whose tree brings folds: ``folds(protocol name, root, **options)``
            gives a protocol file as data, for every name that begins with ``protocol``.
        like: a corpus whose protocols fit this one, too: it has the same ids and labels, or they
            make their folds from whatever is there ("manifest").
    """

    name: str
    title: str
    licence: str
    citation: str
    read: Callable[..., list[Utterance]]
    emotions: tuple[str, ...]
    protocol: str
    folder: str
    language: str
    expected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    utterances: int | None = None
    speakers: int | None = None
    hours: float | None = None
    homepage: str = ""
    scales: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    hashes: Callable[[Path], dict[str, tuple[str, int]]] | None = None
    ids: Callable[[], Iterable[str]] | None = None
    duplicates: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    adjust: Callable[..., Mapping[str, Any]] | None = None
    named: Callable[[str], Corpus] | None = None
    folds: Callable[..., Mapping[str, Any]] | None = None
    like: str = ""

    @property
    def size(self) -> int | None:
        """The published number of utterances; None: not known."""
        return self.utterances or sum(self.expected.values()) or None

    @property
    def environment(self) -> str:
        """The environment variable that may hold the root: EMOPEFT_RAVDESS for ravdess."""
        return "EMOPEFT_" + self.name.upper().replace("-", "_").replace(":", "_")

    @property
    def folder_name(self) -> str:
        """What its folder is called among those of several corpora: ravdess for emobox:ravdess."""
        return self.name.rpartition(":")[2]

    def with_options(self, **options: Any) -> Corpus:
        """The corpus with the numbers and the protocol that hold under ``options``."""
        self._known(options)
        return dataclasses.replace(self, **self.adjust(**options)) if self.adjust else self

    def load(self, root: Path, **options: Any) -> list[Utterance]:
        """Read the tree; raises UserError when it is not there, empty, or has an id twice."""
        self._known(options)
        if not root.exists():
            raise UserError(f"{root} does not exist; --data must name {self.folder}")
        try:
            utterances = self._named(self.read(root, **options))
        except TreeError as error:
            error.utterances = self._named(error.utterances)
            raise
        if not utterances:
            raise UserError(f"no utterance of {self.title} under {root}; expected {self.folder}")
        first: dict[str, Utterance] = {}
        twice = []
        for utterance in utterances:
            if utterance.id in first:
                one, two = (_relative(u.path, root) for u in (first[utterance.id], utterance))
                twice.append(f"'{utterance.id}' stands twice: {one} and {two}")
            first.setdefault(utterance.id, utterance)
        if twice:
            hint = "keep one copy of each, or let --data name the folder that holds just one"
            raise TreeError(root, [f"{twice[0]}; {hint}", *twice[1:]], list(first.values()))
        return utterances

    def _named(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        return [dataclasses.replace(u, corpus=self.name) for u in utterances]

    def _known(self, options: Mapping[str, Any]) -> None:
        for option in options:
            if option not in self.options:
                if not self.options:
                    raise UserError(f"corpus {self.name} takes no options, but got '{option}'")
                raise unknown(f"option of corpus {self.name}", option, self.options)


class Corpora(Registry[Corpus]):
    """The corpora by name, and those of a format as ``format:name``."""

    def __getitem__(self, name: str) -> Corpus:
        form, colon, rest = name.partition(":")
        corpus = super().__getitem__(form)
        if not colon:
            return corpus
        if corpus.named is None:
            raise UserError(f"corpus {form} has no others within it: leave ':{rest[:60]}' out")
        return corpus.named(rest)

    def __contains__(self, name: object) -> bool:
        form, colon, _ = str(name).partition(":")
        return super().__contains__(form) and (not colon or self[form].named is not None)


CORPORA = Corpora("corpus", "emopeft.downstream.corpora")


def register(corpus: Corpus) -> Corpus:
    """Make a corpus known under its name."""
    return CORPORA.add(corpus.name, corpus)


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def audio_files(root: Path) -> list[Path]:
    """Every .wav and .flac under ``root``, sorted by relative path.

    Hidden files and folders (macOS leaves a ``._x.wav`` beside each x.wav) and ``__MACOSX`` are
    skipped; links are followed, each folder once.

    Raises:
        UserError: when ``root`` is not a folder or part of it cannot be listed.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")

    def fail(error: OSError) -> None:
        raise UserError(f"cannot list {error.filename}: {error.strerror}") from error

    audio: list[Path] = []
    visited: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        if (real := os.path.realpath(folder)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        paths = (Path(folder, name) for name in files if not name.startswith("."))
        audio += [path for path in paths if is_audio(path)]
    return sorted(audio, key=lambda path: path.relative_to(root).parts)


def read_names(root: Path, parse: Callable[[Path], Utterance | str | None]) -> list[Utterance]:
    """Read a corpus whose file names hold the labels, sorted by utterance id.

    Args:
        parse: gives an utterance, None for a file that is not of the corpus, or a sentence (after
            the file's name) saying what is wrong with it.

    Raises:
        TreeError: listing every file with a problem.
    """
    utterances, problems = [], []
    for path in audio_files(root):
        result = parse(path)
        if isinstance(result, str):
            problems.append(f"{path.relative_to(root)}: {result}")
        elif result is not None:
            utterances.append(result)
    utterances.sort(key=lambda u: u.id)
    if problems:
        raise TreeError(root, problems, utterances)
    return utterances
