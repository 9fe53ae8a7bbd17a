"""EmoBox's data sets: ``--corpus emobox:NAME --data FOLDER``, by EmoBox's metadata.

The clips, their labels and the folds are those of Ma et al. (2024), see `emobox_metadata`. The
files are found by name under FOLDER, whatever its folders are called and whether they are .wav
or .flac; of several of one name, the one whose folders agree longest with EmoBox's path.

The metadata lie where the option ``metadata`` or EMOPEFT_EMOBOX_METADATA says, or in FOLDER: a
checkout of emo-box/EmoBox, its folder ``data``, or the data set's own folder.

Who speaks (and sex, age, ratings, …) is what our own reader of that corpus says of the file, else
what EmoBox's ``data.seg.wrd.stm`` says, else not known.

Protocols, made from the metadata when they are asked for, K being the number of folds:

=================================== ===============================================================
emobox-NAME-Kfold                   dev: the published one; where there is none, the clips of train
                                    that the next fold tests (K of at least 3), so that dev
                                    speakers are apart wherever test speakers are
emobox-NAME-Kfold-random-dev        dev: a fifth of train, speakers on both sides, see below
…-leaks                             the same where test speakers are trained on, as they are in
                                    many of EmoBox's folds (any data set of fewer than 4 speakers,
                                    or whose speakers do not all have the same number of clips of
                                    each emotion); refused without the word, and with it where
                                    nothing leaks
emobox-NAME                         the first of these
=================================== ===============================================================

EmoBox says "random split for train valid split, with a ratio of [80, 20]" where no dev part is
published, and publishes no such split: its loader (EmoDataset.py) takes 80·n clips for training
and so leaves dev empty; its recipe (examples/sb/dataset_prepare.py) takes int(0.8 n) after a
shuffle seeded by the run, then looks dev's clips up among the others and fails. Ours is exact: of
the n clips of a fold's train, dev is the n − int(0.8 n) whose ids have the smallest SHA-256.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from emopeft.downstream.corpora.base import (
    CORPORA,
    Corpus,
    TreeError,
    Utterance,
    audio_files,
    register,
)
from emopeft.downstream.corpora.emobox_metadata import (
    Clip,
    Metadata,
    find_metadata,
    read_metadata,
)
from emopeft.errors import UserError

logger = logging.getLogger(__name__)

EMOBOX = "EMOPEFT_EMOBOX_METADATA"
CITATION = (
    "Z. Ma, M. Chen, H. Zhang, Z. Zheng, W. Chen, X. Li, J. Ye, X. Chen and T. Hain (2024), "
    "EmoBox: Multilingual Multi-corpus Speech Emotion Recognition Toolkit and Benchmark, "
    "Interspeech"
)
OPTIONS = {
    "metadata": f"EmoBox's checkout, or its folder data, when not in the tree (or set {EMOBOX})"
}
OURS = {"jlcorpus": "jl"}
# What our own reader needs to be told, to read all that EmoBox has of the corpus.
READING = {"esd": {"language": "all"}}


def metadata_of(name: str, root: Path, metadata: str | Path | None = None) -> Metadata:
    """The metadata of a data set; raises UserError where there are none."""
    named = metadata or os.environ.get(EMOBOX)
    places = [Path(named).expanduser()] if named else [root, root.absolute().parent]
    return read_metadata(name, find_metadata(name, places))


def read(name: str, root: Path, metadata: str | Path | None = None) -> list[Utterance]:
    """The utterances of a data set, sorted by id; raises TreeError for files that are not there."""
    found = metadata_of(name, root, metadata)
    paths, problems = find_files(found, root)
    known = _known_utterances(name, root)
    utterances = []
    for clip in sorted(found.clips.values(), key=lambda c: c.id):
        if clip.id not in paths:
            continue
        path, ours = paths[clip.id], known.get(paths[clip.id])
        utterances.append(
            Utterance(clip.id, path, found.speakers.get(clip.id, ""), clip.label)
            if ours is None
            else Utterance(
                clip.id, path, ours.speaker, clip.label, ours.session, ours.sex, ours.style,
                ours.ratings, traits=ours.traits,
            )
        )  # fmt: skip
    if problems:
        raise TreeError(root, problems, utterances)
    return utterances


def find_files(found: Metadata, root: Path) -> tuple[dict[str, Path], list[str]]:
    """Clip id -> its file, and a sentence for each clip that has none, or may have several."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in audio_files(root):
        by_stem[path.stem].append(path)
    stems = Counter(clip.wav.stem for clip in found.clips.values())
    paths: dict[str, Path] = {}
    problems = []
    for clip in found.clips.values():
        best = _best(clip, by_stem.get(clip.wav.stem, []), alone=stems[clip.wav.stem] == 1)
        if len(best) == 1:
            paths[clip.id] = best[0]
        elif best:
            names = " and ".join(str(path.relative_to(root)) for path in best[:3])
            problems.append(f"{clip.key}: {names} may both be it; keep one, or name its folder")
        else:
            problems.append(f"{clip.key}: there is no {clip.wav.stem}.wav or .flac")
    taken = Counter(paths.values())
    for name, path in list(paths.items()):
        if taken[path] > 1:
            problems.append(f"{found.clips[name].key}: {path.relative_to(root)} is another's, too")
            del paths[name]
    return paths, problems


def _best(clip: Clip, candidates: Sequence[Path], alone: bool) -> list[Path]:
    """Those whose folders agree longest, from the end, with EmoBox's path.

    A clip that shares its name with others of the data set must agree in one folder at least.
    """

    if alone and len(candidates) == 1:
        return list(candidates)

    def agreeing(path: Path) -> int:
        pairs = zip(reversed(path.parent.parts), reversed(clip.wav.parent.parts), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), 99)

    most = max(map(agreeing, candidates), default=0)
    return [p for p in candidates if agreeing(p) == most] if alone or most else []


def _known(name: str) -> Corpus | None:
    """Our own reader's corpus, however the two spell its name (msppodcast, msp-podcast)."""
    plain = {re.sub("[^a-z0-9]", "", other): other for other in CORPORA}
    ours = plain.get(OURS.get(name, name))
    return CORPORA[ours] if ours and CORPORA[ours].named is None else None


def _known_utterances(name: str, root: Path) -> dict[Path, Utterance]:
    """What our own reader says of each file, none where it does not know the tree."""
    corpus = _known(name)
    if corpus is None:
        return {}
    try:
        utterances = corpus.read(root, **READING.get(name, {}))
    except TreeError as error:
        utterances = error.utterances
    except UserError as error:
        logger.warning("%s does not read %s: its speakers may be unknown (%s)", name, root, error)
        return {}
    return {utterance.path: utterance for utterance in utterances}


def folds(name: str, asked: str, root: Path, metadata: Any = None) -> dict[str, Any]:
    """The protocol ``asked`` as data, see the module.

    Raises:
        UserError: there is no such one, or it has no dev part.
    """
    found = metadata_of(name, root, metadata)
    base = f"emobox-{name}-{len(found.folds)}fold"
    words = re.fullmatch(rf"{re.escape(base)}(-random-dev)?(-leaks)?", asked)
    if words is None and asked != f"emobox-{name}":
        raise UserError(
            f"unknown protocol '{asked}': EmoBox's folds of {name} are {base} and "
            f"{base}-random-dev, and with -leaks at the end where speakers are on both sides"
        )
    random, leaks = (bool(words and words[i]) for i in (1, 2))
    overlap = ["dev", "test"] if leaks else ["dev"] if random else []
    dev = _dev_of(found, base, random)
    known = _known(name)
    order = known.emotions if known and set(found.labels) <= set(known.emotions) else found.labels
    classes = [label for label in order if label in found.labels]
    return {
        "name": base + "-random-dev" * random + "-leaks" * leaks,
        "version": 1,
        "corpus": f"emobox:{name}",
        "task": "emotion",
        "description": f"EmoBox's folds of {name} as published; dev: {dev[1]}.",
        "source": f"emo-box/EmoBox, data/{name}; SHA-256 of its files {found.digest}",
        "classes": classes,
        "labels": {label: label for label in classes},
        "speaker_overlap": overlap,
        "unknown_speakers": True,
        "unit": "id",
        "utterances": {c.id: c.label for c in sorted(found.clips.values(), key=lambda c: c.id)},
        "folds": [
            {
                "name": fold,
                "test": parts["test"],
                "dev": sorted(dev[0][fold]),
                "train": [i for i in parts["train"] if i not in dev[0][fold]],
            }
            for fold, parts in found.folds.items()
        ],
    }


def _dev_of(found: Metadata, base: str, random: bool) -> tuple[dict[str, set[str]], str]:
    """Per fold the ids of the dev part, and in words what it is."""
    given = {fold: set(parts.get("valid", ())) for fold, parts in found.folds.items()}
    if any(given.values()):
        if random:
            raise UserError(f"EmoBox publishes a dev part for {found.name}: leave -random-dev out")
        return given, "EmoBox's"
    if random:
        return {
            fold: set(sorted(ids, key=_hash)[: len(ids) - int(0.8 * len(ids))])
            for fold, ids in ((fold, parts["train"]) for fold, parts in found.folds.items())
        }, "of n clips of train the n - int(0.8 n) whose ids have the smallest SHA-256"
    if len(found.folds) < 3:
        raise UserError(
            f"EmoBox publishes no dev part for {found.name}, and in {len(found.folds)} folds there "
            f"is none to take instead: give --protocol {base}-random-dev (with -leaks where "
            "speakers are on both sides)"
        )
    following = [*list(found.folds)[1:], *list(found.folds)[:1]]
    return {
        fold: set(found.folds[fold]["train"]) & set(found.folds[after]["test"])
        for fold, after in zip(found.folds, following, strict=True)
    }, "what the next fold tests"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def named(name: str) -> Corpus:
    """The corpus ``emobox:NAME``, of any NAME that EmoBox's metadata may have."""
    if not re.fullmatch(r"[a-z0-9]+", name):
        raise UserError(f"emobox:{name[:60]!r} is no data set of EmoBox; write emobox:ravdess")
    known = _known(name)
    facts: Mapping[str, Any] = (
        {}
        if known is None
        else {
            field: getattr(known, field)
            for field in ("licence", "language", "homepage", "scales", "duplicates", "hashes")
        }
    )
    return Corpus(
        **{
            **BLANK,
            **facts,
            "name": f"emobox:{name}",
            "title": f"{known.title if known else name} by EmoBox's metadata",
            "citation": f"{known.citation}; {CITATION}" if known else CITATION,
            "read": lambda root, **options: read(name, root, **options),
            "protocol": f"emobox-{name}",
            "folds": lambda asked, root, **options: folds(name, asked, root, **options),
            "named": None,
            "like": known.name if known else "",
        }
    )


def _unnamed(root: Path, metadata: Any = None) -> NoReturn:
    raise UserError(f"EmoBox has many data sets: name one, as --corpus emobox:ravdess ({root})")


BLANK: Mapping[str, Any] = {
    "name": "emobox",
    "title": "EmoBox's metadata of its 32 data sets: --corpus emobox:NAME",
    "licence": "each data set's own; EmoBox's metadata: MIT",
    "citation": CITATION,
    "read": _unnamed,
    "emotions": (),
    "protocol": "emobox-NAME",
    "folder": "a folder with the data set's .wav or .flac files, in any folders",
    "language": "any",
    "options": OPTIONS,
    "named": named,
    "folds": lambda asked, root, **_: _unnamed(root),
}
register(Corpus(**BLANK))
