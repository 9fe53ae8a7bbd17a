"""What is known of each corpus, for a terminal and as docs/corpora.md.

``emopeft list corpora`` is one row each, ``emopeft list corpora NAME`` all of one, and
``python -m downstream.reports.corpora`` writes the page.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from emopeft.downstream.corpora.base import CORPORA, Corpus
from emopeft.downstream.protocols.makers.base import MAKERS
from emopeft.downstream.protocols.protocol import Protocol, list_protocols
from emopeft.files import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "corpora.md"  # of a checkout
WIDTH = 110
INTRODUCTION = """# Corpora

Made by `python -m downstream.reports.corpora` from what the readers in `downstream/corpora/` and
the protocols say; a test compares. A number that no source gave is left open. Clips, speakers and
hours are those published, not those of your copy: for that there is `emopeft check NAME DIR`.
`emopeft list corpora NAME` shows what stands below.
"""


def protocols_of(corpus: Corpus) -> list[Protocol]:
    """The shipped protocols that one corpus alone can take: its default first, then by name."""
    found = [p for p in list_protocols() if p.corpora in ((corpus.name,), (corpus.like,))]
    return sorted(found, key=lambda p: (p.name != corpus.protocol, p.name))


def leaks(protocol: Protocol) -> str:
    """Who stands on several sides of a protocol's folds, in one sentence without a full stop."""
    if "test" in protocol.declared:
        return "leaks: speakers of test are trained on"
    if "dev" in protocol.declared:
        return "dev shares speakers with train, test with nobody"
    if protocol.unknown_speakers:
        return "known speakers apart"
    return "speakers apart"


def _apart(protocol: Protocol) -> str:
    if "test" in protocol.declared:
        return "no"
    return "test" if "dev" in protocol.declared else "yes"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


def _ratings(corpus: Corpus) -> str:
    """The ratings, and "votes" where a protocol of the corpus learns them."""
    letters = {"valence": "V", "arousal": "A", "dominance": "D"}
    voted = any("emotion-soft" in p.tasks for p in protocols_of(corpus) if not corpus.like)
    return " ".join([*(letters.get(name, name) for name in corpus.scales), *["votes"] * voted])


def table() -> str:
    """A row for each corpus, at most 120 columns wide."""
    rows = []
    for name, corpus in CORPORA.items():
        default = next(iter(protocols_of(corpus)), None)
        rows.append(
            [name, corpus.language, _number(corpus.size), corpus.speakers or "",
             _number(corpus.hours), len(corpus.emotions) or "", _ratings(corpus), corpus.licence,
             _apart(default) if default else ""]
        )  # fmt: skip
    headers = ["corpus", "language", "clips", "speakers", "hours", "classes", "ratings", "licence",
               "apart"]  # fmt: skip
    widths = [None, 10, None, None, None, None, 15, 28, None]
    places = [f"{c.environment}={os.environ[c.environment]}" for _, c in CORPORA.items()
              if os.environ.get(c.environment)]  # fmt: skip
    return (
        tabulate(rows, headers, tablefmt="simple", maxcolwidths=widths, disable_numparse=True,
                 colalign=("left", "left", "right", "right", "right", "right"))
        + "\n\nEmpty: no source says. Apart: are speakers in the default protocol? "
        "(test: only those of test are)\nAll of one corpus, with its page, layout and protocols: "
        "emopeft list corpora NAME. The same of all: docs/corpora.md."
        + "".join(f"\n{place}" for place in places)
    )  # fmt: skip


def facts(corpus: Corpus) -> list[tuple[str, str]]:
    """What is known of a corpus but its protocols, as (what, text)."""
    counts = corpus.expected
    classes = ", ".join(f"{e} {counts[e]:,}" if e in counts else e for e in corpus.emotions)
    scales = ", ".join(f"{n} {low:g} to {high:g}" for n, (low, high) in corpus.scales.items())
    options = "; ".join(f"{name}: {text}" for name, text in corpus.options.items())
    twice = sum(len(group) - 1 for group in corpus.duplicates)
    votes = "of single raters" if "votes" in _ratings(corpus) else ""
    rows = [
        ("language", corpus.language),
        ("clips", _number(corpus.size)),
        ("speakers", _number(corpus.speakers)),
        ("hours", _number(corpus.hours)),
        ("classes", classes),
        ("ratings", scales),
        ("votes", votes),
        ("recordings under two names", _number(twice or None)),
        ("licence", corpus.licence),
        ("from", corpus.homepage),
        ("layout", corpus.folder),
        ("options", options),
        ("folds of its own", f"{corpus.protocol}-…, made from its metadata" * bool(corpus.folds)),
        ("reference", corpus.citation),
    ]
    return [(what, text) for what, text in rows if text]


def detail(name: str) -> str:
    """All of one corpus for a terminal; raises UserError for an unknown name."""
    corpus = CORPORA[name]
    place = os.environ.get(corpus.environment)
    here = (f"set {corpus.environment}", f"{corpus.environment} = {place}")[bool(place)]
    rows = [*facts(corpus), ("its place", f"--data DIR, or {here}")]
    left = max(len(what) for what, _ in rows) + 2
    lines = [
        textwrap.fill(
            text, WIDTH, initial_indent=what.ljust(left), subsequent_indent=" " * left,
            break_on_hyphens=False, break_long_words=False,
        )
        for what, text in rows
    ]  # fmt: skip
    protocols = [
        [p.name, " ".join(p.tasks), len(p.folds) or "by rule", len(p.classes) or "", leaks(p)]
        for p in protocols_of(corpus)
    ]
    parts = [f"{name}: {corpus.title}", "\n".join(lines)]
    if protocols:
        headers = ["protocol", "tasks", "folds", "classes", "speakers"]
        widths = [None, 24, None, None, 30]
        parts.append(tabulate(protocols, headers, tablefmt="simple", maxcolwidths=widths))
    return "\n\n".join(parts)


def page() -> str:
    """docs/corpora.md."""
    rows = [
        [f"[`{n}`](#{n})", c.language, _number(c.size), _number(c.speakers), _number(c.hours),
         len(c.emotions) or "", _ratings(c), c.licence, f"<{c.homepage}>" if c.homepage else ""]
        for n, c in CORPORA.items()
    ]  # fmt: skip
    headers = ["corpus", "language", "clips", "speakers", "hours", "classes", "ratings", "licence",
               "from"]  # fmt: skip
    parts = [INTRODUCTION, _markdown(headers, rows)]
    for name, corpus in CORPORA.items():
        parts.append(f"## {name}\n\n{corpus.title}\n")
        parts.append(_markdown(["what", ""], facts(corpus)))
        if protocols := protocols_of(corpus):
            parts.append(_protocols(protocols))
    parts += [
        "## several corpora\n\nShipped:\n",
        _protocols([p for p in list_protocols() if len(p.corpora) > 1]),
        "Made of any, with options as `NAME:option=value` ([pools](pools.md), "
        "[from one to another](cross-corpus.md), [two stages](two-stages.md)):\n",
        _markdown(["protocol", "what"], [[f"`{n}`", maker.help] for n, maker in MAKERS.items()]),
    ]
    return "\n".join(parts)


def _protocols(protocols: Sequence[Protocol]) -> str:
    rows = [
        [f"`{p.name}`", ", ".join(p.tasks), f"{p.description} {leaks(p).capitalize()}."]
        for p in protocols
    ]
    return _markdown(["protocol", "tasks", "folds, and what they keep apart"], rows)


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |\n"

    return line(headers) + line(["---"] * len(headers)) + "".join(map(line, rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page to the file given, or docs/corpora.md of the checkout."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    path = Path(arguments[0]) if arguments else PAGE
    write_text(path, page())
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
