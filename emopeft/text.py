"""Text from elsewhere, made fit for one line of a terminal, a table or markdown."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

LONGEST = 80  # characters of a name in a table


def visible(text: str) -> str:
    """``text`` with a blank for every line break, control, direction or invisible character."""
    return "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)


def plain(text: str, longest: int = LONGEST) -> str:
    """One line of visible characters, single blanks, shortened to ``longest``."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def inline(text: str, longest: int = LONGEST) -> str:
    """``plain`` text that markdown shows as it is: no markup, link, HTML or table border."""
    line = html.escape(plain(text, longest), quote=False)
    line = re.sub(r"([\\`*\[\]~])", r"\\\1", line).replace("|", "&#124;")
    line = re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", line)
    return re.sub(r"://|(?<=www)\.", lambda hit: "\\" + hit[0], line, flags=re.IGNORECASE)


def cell(text: str, longest: int = LONGEST) -> str:
    """`inline` that may stand at the start of a line: no heading, no list item."""
    return re.sub(r"^(\d*)([-+#.)])", r"\1\\\2", inline(text, longest))


def fenced(lines: Sequence[str]) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    text = "\n".join(visible(line).rstrip() for line in lines)
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return f"{fence}sh\n{text}\n{fence}"
