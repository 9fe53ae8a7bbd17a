"""What ``python -m ROOM`` calls: subcommands of the door under the names of the rooms."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from emopeft.commands import door
from emopeft.commands.demo import make_corpus
from emopeft.commands.parsing import Parser, path

Words = Sequence[str] | None  # None: those of this process


def cache(argv: Words = None) -> int:
    """``python -m downstream.feature_cache list | clean``."""
    return door.main(["cache", *_words(argv)])


def board(argv: Words = None) -> int:
    """``python -m leaderboard RUNS_DIR --out DIR``."""
    return door.main(["board", *_words(argv)])


def adapters(argv: Words = None) -> int:
    """``python -m peft_modules export | import | merge``."""
    return _one_of("peft_modules", ("export", "import", "merge"), _words(argv))


def corpora(argv: Words = None) -> int:
    """``python -m downstream.corpora list | check NAME DIR``."""
    words = _words(argv)
    if words == ["list"]:
        return door.main(["list", "corpora"])
    return _one_of("downstream.corpora", ("list", "check"), words)


def demo_corpus(argv: Words = None) -> int:
    """``python -m downstream.corpora.demo DIR``: the corpus alone."""
    parser = Parser(
        prog="python -m downstream.corpora.demo",
        description="Make the demo corpus: synthetic speech, not emotional speech.",
    )
    parser.add_argument("dir", type=path, help="where to; made if not there")

    def make(words: Sequence[str]) -> int:
        make_corpus(parser.parse_args(words).dir)
        return 0

    return door.guarded(make, _words(argv))


def _words(argv: Words) -> list[str]:
    return list(sys.argv[1:] if argv is None else argv)


def _one_of(module: str, commands: tuple[str, ...], words: list[str]) -> int:
    """Pass on the commands that belong to a room; all else is misuse."""
    if words and words[0] in commands:
        return door.main(words)
    parser = Parser(prog=f"python -m {module}")
    parser.add_argument("command", choices=commands)
    parser.parse_args(words[:1])
    return 2
