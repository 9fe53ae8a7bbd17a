"""Text from elsewhere, made fit for one line of a terminal or a table."""

from __future__ import annotations

import unicodedata

LONGEST = 80  # characters of a name in a table


def visible(text: str) -> str:
    """``text`` with a blank for every line break, control, direction or invisible character."""
    return "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)


def plain(text: str, longest: int = LONGEST) -> str:
    """One line of visible characters, single blanks, shortened to ``longest``."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
