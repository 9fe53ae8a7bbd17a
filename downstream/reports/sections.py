"""What a report says, whatever it is shown on: paragraphs, tables and pictures under a title.

A terminal shows all but the pictures; markdown names their files, which are drawn beside it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from emopeft.files import write_text
from emopeft.text import inline, visible

LONGEST = 4000  # characters of a paragraph or cell


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table; cells are texts as they are shown. caption: what stands in it, in a line."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: of its file, without an ending. alt: what is seen, for who cannot see it.
        draw: draws it into a file (`pictures`); raises UserError where matplotlib is missing.
    """

    name: str
    alt: str
    draw: Callable[[Path], None]


@dataclasses.dataclass(frozen=True)
class Section:
    """A title and what stands under it, in order; a text is a paragraph."""

    title: str
    parts: Sequence[str | Grid | Picture]


def terminal(sections: Sequence[Section]) -> str:
    """As a terminal shows it; pictures are left out."""
    blocks = []
    for section in sections:
        blocks.append(f"{section.title}\n{'=' * len(section.title)}")
        for part in section.parts:
            if isinstance(part, Grid):
                table = tabulate(part.rows, part.headers, tablefmt="simple", disable_numparse=True)
                blocks.append(f"{part.caption}\n{table}" if part.caption else table)
            elif isinstance(part, str):
                blocks.append(part)
    return "\n\n".join(blocks)


def write_markdown(path: Path, sections: Sequence[Section], ending: str = ".svg") -> list[Path]:
    """Write the sections to ``path`` (.md), their pictures beside it; returns all files.

    Raises:
        UserError: a file cannot be written, or there is no matplotlib for a picture.
    """
    blocks, files = [], [path]
    for section in sections:
        blocks.append(f"## {inline(section.title)}")
        for part in section.parts:
            if isinstance(part, Picture):
                picture = path.with_name(part.name + ending)
                part.draw(picture)
                files.append(picture)
                blocks.append(f"![{inline(part.alt, LONGEST)}]({picture.name})")
            elif isinstance(part, Grid):
                rows = [[inline(cell, LONGEST) for cell in row] for row in part.rows]
                headers = [inline(header) for header in part.headers]
                table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)
                blocks.append(f"{_marked(part.caption)}:\n\n{table}" if part.caption else table)
            else:
                blocks.append(_marked(part))
    write_text(path, "\n\n".join(blocks) + "\n")
    return files


def coded(text: str) -> list[tuple[str, bool]]:
    """The pieces of a text, and whether each is code, which stands between backticks."""
    parts = re.split(r"`([^`]+)`", text)
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]


def _marked(text: str) -> str:
    """A paragraph as markdown."""
    return "".join(f"`{visible(part)}`" if code else _kept(part) for part, code in coded(text))


def _kept(text: str) -> str:
    """A piece of a paragraph as it is, the blanks at its ends kept."""
    start, end = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{start and ' '}{inline(text, LONGEST)}{end and ' '}" if text.strip() else " "
