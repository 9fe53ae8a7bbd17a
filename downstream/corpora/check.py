"""Is this tree the corpus it should be, and is every clip usable?

`check` compares a tree with what was published and looks for what spoils an experiment quietly;
the command is ``python -m downstream.corpora check NAME DIR``.

==================== ======= ====================================================================
check                level   when
==================== ======= ====================================================================
tree                 error   the reader's own: missing folders, unknown labels, names that do not
                             parse, an id that stands twice
incomplete           error   fewer utterances of an emotion, or speakers, than published; their
                             ids where the names follow a rule
missing, empty,      error   no audio to train on (0 bytes, no samples, cannot be decoded,
unreadable                   breaks off, a WAV that lost over 1 % of its bytes, no rate of speech)
too long             error   over 24 h, as its header says
not finite           error   NaN or infinite samples
too short            error   under 0.025 s, less than any encoder takes
unknown label        error   an emotion the corpus does not have
hash                 error   bytes differ from the published ones, or a published file is absent
short                warning under 0.1 s
silent               warning every |x| < 1e-4
clipped              warning more than 0.1 % of the samples at full scale (|x| >= 0.999)
cut                  warning the WAV header promises up to 1 % more bytes than the file has
duplicate            warning the same decoded samples under several ids, marked where the labels
                             contradict each other
surplus              warning more of an emotion, or more speakers, than published
not of the corpus    info    audio files in the tree that are no utterances
format               info    sample rates, channels, durations
ratings              info    of each: the range, how many utterances have it, how many lie beyond
                             the nominal scale
votes                info    how many utterances have votes, and how many votes each
traits               info    of each, how many utterances have it and what it may be; sex also by
                             speakers
==================== ======= ====================================================================
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emopeft.downstream.corpora.audio import MINIMUM_SECONDS
from emopeft.downstream.corpora.base import Corpus, TreeError, Utterance, audio_files
from emopeft.downstream.corpora.report import Report
from emopeft.downstream.corpora.scan import Scan, scan
from emopeft.errors import UserError

SHORT_SECONDS = 0.1
SILENT = 1e-4
CLIPPED_SHARE = 0.001
MOST_VALUES = 8  # of a trait that are written out

ERROR_KINDS = {
    "missing": "files do not exist",
    "empty": "files hold no samples",
    "unreadable": "files cannot be read as audio",
    "not finite": "files have NaN or infinite samples",
    "too long": "files say that they last longer than a clip can",
    "too short": f"clips are under {MINIMUM_SECONDS} s",
}


def check(
    corpus: Corpus,
    root: Path,
    utterances: Sequence[Utterance] | None = None,
    *,
    hashes: Mapping[str, tuple[str, int]] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    store: Path | None = None,
) -> Report:
    """Compare a tree with the published corpus and look into every file.

    Args:
        utterances: as ``corpus.load`` gave them; None: load them here, with what the reader
            objects to as findings.
        hashes: the published ``{file name: (SHA-256, bytes)}`` to compare with (Corpus.hashes).
        options: of the reader. store: the cache's folder, to compare what it knows (`scan`).
    """
    options = dict(options or {})
    corpus = corpus.with_options(**options)
    problems: list[str] = []
    if utterances is None:
        try:
            utterances = corpus.load(root, **options)
        except TreeError as error:
            utterances, problems = error.utterances, error.problems
        except UserError as error:
            utterances, problems = [], [str(error)]
    report = Report(corpus.name, corpus.title, str(root), corpus.expected)
    report.add("error", "tree", "what the reader found", problems)
    scanned = scan(utterances, progress=progress, store=store, verify=True)
    report.count(utterances, scanned.seconds)
    if utterances:
        _completeness(report, corpus, utterances)
        _opinions(report, corpus, utterances)
        _traits(report, utterances)
    _audio(report, utterances, scanned)
    _duplicates(report, utterances, scanned)
    if hashes is not None:
        _hashes(report, utterances, scanned, hashes)
    _strangers(report, root, utterances)
    return report


def _completeness(report: Report, corpus: Corpus, utterances: Sequence[Utterance]) -> None:
    """Counts per emotion, speakers, ids and labels against the published ones."""
    counts = Counter(u.emotion for u in utterances if u.emotion is not None)
    lacking, surplus = [], []
    for emotion, published in corpus.expected.items():
        text = f"{emotion}: {counts[emotion]} of {published}"
        if counts[emotion] < published:
            lacking.append(text)
        elif counts[emotion] > published:
            surplus.append(text)
    speakers = len({u.speaker for u in utterances})
    if corpus.speakers is not None and speakers != corpus.speakers:
        which = lacking if speakers < corpus.speakers else surplus
        which.append(f"speakers: {speakers} of {corpus.speakers}")
    if corpus.utterances and len(utterances) != corpus.utterances:
        which = lacking if len(utterances) < corpus.utterances else surplus
        which.append(f"utterances: {len(utterances)} of {corpus.utterances}")
    total = corpus.size or "an unknown number of"
    report.add("error", "incomplete", f"{len(utterances)} of {total} utterances", lacking)
    report.add("warning", "surplus", "more than was published", surplus)
    if corpus.ids is not None:
        absent = sorted(set(corpus.ids()) - {u.id for u in utterances})
        report.add("error", "incomplete", "published utterances without a file", absent)
    unknown = [
        f"{u.id}: '{u.emotion}'" for u in utterances if corpus.emotions and _odd(u, corpus.emotions)
    ]
    report.add("error", "unknown label", f"not one of {' '.join(corpus.emotions)}", unknown)


def _opinions(report: Report, corpus: Corpus, utterances: Sequence[Utterance]) -> None:
    """Ratings and votes, where there are any."""
    items = []
    for name in dict.fromkeys(
        [*corpus.scales, *sorted({n for u in utterances for n in u.ratings})]
    ):
        rated = [u.ratings[name] for u in utterances if name in u.ratings]
        text = f"{name}: {len(rated)} rated"
        if rated:
            text += f", {min(rated):g} to {max(rated):g}"
        if ends := corpus.scales.get(name):
            beyond = sum(not ends[0] <= x <= ends[1] for x in rated)
            text += f" (scale {ends[0]:g} to {ends[1]:g}, {beyond} beyond it)"
        items.append(text)
    report.add("information", "ratings", "numbers on the corpus' own scale", items)
    votes = [sum(u.votes.values()) for u in utterances if u.votes]
    if votes:
        each = Counter(f"{number:g}" for number in votes)
        spread = ", ".join(f"{n} ({each[n]})" for n in sorted(each, key=float))
        undecided = sum(bool(u.votes) and u.emotion is None for u in utterances)
        items = [
            f"{len(votes)} of {len(utterances)} utterances have votes",
            f"votes each: {spread}",
        ]
        if undecided:
            items.append(f"{undecided} utterances with votes have no label")
        report.add("information", "votes", "what single raters chose", items)


def _traits(report: Report, utterances: Sequence[Utterance]) -> None:
    """What is known of speakers and recordings, where anything is."""
    known: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        for name in utterance.all_traits():
            known[name].append(utterance)
    items = []
    for name, those in sorted(known.items()):
        values = Counter(u.all_traits()[name] for u in those)
        text = f"{name}: {len(those)} utterances"
        if len(values) <= MOST_VALUES:
            text += ", " + ", ".join(f"{value} ({n})" for value, n in sorted(values.items()))
        else:
            text += f", {len(values)} values"
        if people := Counter({(u.speaker, u.all_traits()[name]) for u in those if u.speaker}):
            each = Counter(value for _, value in people)
            if len(each) <= MOST_VALUES:
                told = ", ".join(f"{value} {n}" for value, n in sorted(each.items()))
                text += f"; speakers: {told}"
        items.append(text)
    report.add("information", "traits", "what is known of speakers and recordings", items)


def _odd(utterance: Utterance, emotions: tuple[str, ...]) -> bool:
    return utterance.emotion is not None and utterance.emotion not in emotions


def _audio(report: Report, utterances: Sequence[Utterance], scanned: Scan) -> None:
    """Every file's own state."""
    for kind, message in ERROR_KINDS.items():
        items = [c.problem for c in scanned.clips.values() if c.problem and c.kind == kind]
        report.add("error", kind, message, items)
    # Within one corpus an id says enough.
    clips = {u.id: scanned.clips[u.uid] for u in utterances}
    good = {name: clip for name, clip in clips.items() if not clip.problem}
    report.add(
        "warning",
        "short",
        f"clips are under {SHORT_SECONDS} s",
        [f"{n}: {c.seconds:.3f} s" for n, c in good.items() if c.seconds < SHORT_SECONDS],
    )
    report.add(
        "warning",
        "silent",
        f"clips have no sample above {SILENT:g}",
        [n for n, c in good.items() if c.peak < SILENT],
    )
    report.add(
        "warning",
        "clipped",
        f"clips have over {CLIPPED_SHARE:.1%} of their samples at full scale",
        [f"{n}: {c.clipped:.1%}" for n, c in good.items() if c.clipped > CLIPPED_SHARE],
    )
    report.add(
        "warning",
        "cut",
        "WAV headers promise more than the file holds",
        [f"{n}: {c.cut} bytes" for n, c in good.items() if c.cut],
    )
    if good:
        lengths = np.array([c.seconds for c in good.values()])
        items = [
            f"durations: {lengths.min():.2f} to {lengths.max():.2f} s, "
            f"median {np.median(lengths):.2f} s"
        ]
        rates = Counter(c.rate for c in good.values())
        items.append(
            "sample rates: " + _counts(rates, "Hz") + (", mixed" if len(rates) > 1 else "")
        )
        items.append("channels: " + _counts(Counter(c.channels for c in good.values()), ""))
        items.append("files: " + _counts(Counter(u.path.suffix.lower() for u in utterances), ""))
        report.add("information", "format", "of the readable clips", items)


def _counts(counter: Counter[Any], unit: str) -> str:
    return ", ".join(f"{f'{k} {unit}'.strip()} ({n})" for k, n in sorted(counter.items()))


def _duplicates(report: Report, utterances: Sequence[Utterance], scanned: Scan) -> None:
    """Groups of ids with the same decoded samples."""
    groups: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        clip = scanned.clips[utterance.uid]
        if not clip.problem and clip.peak >= SILENT:
            groups[clip.audio].append(utterance)
    items = []
    for group in groups.values():
        if len(group) < 2:
            continue
        text = " = ".join(u.id for u in group)
        if len({u.emotion for u in group}) > 1:
            text += f" (labels conflict: {', '.join(str(u.emotion) for u in group)})"
        if len({u.speaker for u in group}) > 1:
            text += f" (speakers differ: {', '.join(u.speaker for u in group)})"
        items.append(text)
    report.add("warning", "duplicate", "the same audio under several ids", items)


def _hashes(
    report: Report,
    utterances: Sequence[Utterance],
    scanned: Scan,
    hashes: Mapping[str, tuple[str, int]],
) -> None:
    """The bytes of every file against the published ones."""
    items, stems = [], set()
    for utterance in utterances:
        name, digest = utterance.path.name, scanned.digests.get(utterance.uid)
        if name not in hashes:
            if utterance.path.suffix.lower() != ".wav":
                items.append(f"{name}: not the published .wav, so it cannot be compared")
                stems.add(utterance.path.stem)
            else:
                items.append(f"{name}: not among the published files")
            continue
        stems.add(utterance.path.stem)
        published, size = hashes[name]
        if digest is not None and digest != published:
            now = utterance.path.stat().st_size
            items.append(f"{name}: SHA-256 differs ({now} bytes, published {size})")
    items += [f"{n}: published, but not in the tree" for n in hashes if Path(n).stem not in stems]
    report.add("error", "hash", f"against {len(hashes)} published hashes", items)
    if not items:
        report.add("information", "hash", "all files are the published ones", [str(len(hashes))])


def _strangers(report: Report, root: Path, utterances: Iterable[Utterance]) -> None:
    """Audio files in the tree that nobody reads."""
    if root.is_dir():
        used = {u.path.absolute() for u in utterances}
        other = [p for p in audio_files(root) if p.absolute() not in used]
        items = [str(p.relative_to(root)) for p in other]
        report.add("information", "not of the corpus", "audio files that are not read", items)
