"""Sections on a terminal, in markdown and as a page: whatever a text holds is shown as text."""

from __future__ import annotations

import html.parser
from pathlib import Path

from emopeft.downstream.reports.page import spans, write_page
from emopeft.downstream.reports.pictures import Point, scatter
from emopeft.downstream.reports.sections import (
    Grid,
    Picture,
    Section,
    terminal,
    write_markdown,
)

EVIL = "<script>alert(1)</script> & | `<b>x</b>`"


def _draw(path: Path) -> None:
    scatter(path, {EVIL: [Point(0.0, 1.0, EVIL)]}, title=EVIL, axes=("x", "y"))


def sections() -> list[Section]:
    grid = Grid(["a|b", "c"], [[EVIL, "1.50"], ["x", "2"]], "what stands here")
    return [
        Section("First", ["A paragraph.", grid, Picture("first", f"seen: {EVIL}", _draw)]),
        Section(EVIL, [EVIL]),
    ]


class Reader(html.parser.HTMLParser):
    """Notes tags and texts, and that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_stands_alone_and_shows_texts_as_texts(tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    write_page(place, sections(), title=EVIL, lead=EVIL, glance=[EVIL], footer="made by `emopeft`")
    reader = Reader()
    reader.feed(place.read_text())
    assert not reader.open and "script" not in reader.tags and "b" not in reader.tags
    # The title (twice), lead, glance, the section's link, title and paragraph, a cell.
    assert "".join(reader.texts).count("<script>alert(1)</script> & |") == 8
    assert all(s.startswith(("data:image/svg+xml;base64,", "#part")) for s in reader.sources)
    assert list(tmp_path.iterdir()) == [place]


def test_the_same_in_markdown_and_on_a_terminal(tmp_path: Path) -> None:
    files = write_markdown(tmp_path / "r.md", sections())
    assert [f.name for f in files] == ["r.md", "first.svg"] and all(f.is_file() for f in files)
    text = files[0].read_text()
    assert "![seen: " in text and "](first.svg)" in text and "what stands here:" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {3} and "<script>" not in text
    shown = terminal(sections())
    assert "First\n=====" in shown and "1.50" in shown and "svg" not in shown


def test_code_between_backticks() -> None:
    assert str(spans("run `a < b` & `c`")) == "run <code>a &lt; b</code> &amp; <code>c</code>"
    assert str(spans("one ` alone")) == "one ` alone"
