"""Sections as one page of HTML that needs nothing beside itself, on a desktop and on a phone."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from emopeft import __version__
from emopeft.downstream.reports.sections import Picture, Section, coded
from emopeft.files import write_text

TEMPLATE = "page.html.j2"


def write_page(
    path: Path,
    sections: Sequence[Section],
    *,
    title: str,
    lead: str,
    glance: Sequence[str] = (),
    footer: str = "",
) -> None:
    """Write sections as a page; whatever a text holds is shown as text.

    Pictures are part of the page, each by itself, so that nothing in one can meet the others.

    Args:
        lead: what it is, in a sentence or two. glance: what a reader should know first.

    Raises:
        UserError: the file cannot be written, or there is no matplotlib for a picture.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["spans"] = spans
    source = (resources.files("emopeft.downstream.reports") / TEMPLATE).read_text("utf-8")
    pictures = [part for s in sections for part in s.parts if isinstance(part, Picture)]
    write_text(
        path,
        environment.from_string(source).render(
            title=title, lead=lead, glance=list(glance), sections=sections, footer=footer,
            pictures={picture.name: _inline(picture) for picture in pictures}, version=__version__,
        ),
    )  # fmt: skip


def spans(text: str) -> Markup:
    """A text with what stands between backticks as code."""
    return Markup("").join(
        Markup("<code>%s</code>") % part if code else escape(part) for part, code in coded(text)
    )


def _inline(picture: Picture) -> str:
    """The picture as the address of its own bytes."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "picture.svg"
        picture.draw(place)
        return f"data:image/svg+xml;base64,{base64.b64encode(place.read_bytes()).decode()}"
