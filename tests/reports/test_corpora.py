"""The list of corpora, all of one, and the page in docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emopeft.commands import door
from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.reports.corpora import PAGE, detail, leaks, main, page, table
from tests.protocols.cases import SHIPPED


def test_the_page_is_made_of_what_the_corpora_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m downstream.reports.corpora"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "corpora.md")]) == 0
    assert (tmp_path / "corpora.md").read_text(encoding="utf-8") == page()
    assert capsys.readouterr().out.strip() == str(tmp_path / "corpora.md")


def test_the_table_fits_a_terminal_and_has_them_all() -> None:
    lines = table().splitlines()
    assert max(map(len, lines)) <= 120
    names = [line.split(" ")[0] for line in lines[2:] if line and not line.startswith(" ")]
    assert set(CORPORA) <= set(names)
    row = next(line for line in lines if line.startswith("msp-podcast"))
    assert re.split(r"  +", row)[1:4] == ["English", "151,654", "237.9"] and "V A D votes" in row
    assert re.split(r"  +", next(x for x in lines if x.startswith("meld")))[-1].strip() == "no"


@pytest.mark.parametrize("name", list(CORPORA))
def test_every_corpus_says_what_it_is(name: str) -> None:
    corpus = CORPORA[name]
    text = detail(name)
    assert max(len(line) for line in text.splitlines()) <= 120
    for word in (corpus.title, corpus.environment, corpus.homepage, corpus.language):
        assert word in text
    mine = [p for p in SHIPPED.values() if p.corpora == (name,)]
    for protocol in mine:
        assert protocol.name in text
    assert f"## {name}\n" in page()
    if not name.startswith(("demo", "manifest")) and mine:
        assert corpus.homepage.startswith("http")


def test_what_a_protocol_leaks_is_said() -> None:
    said = {
        "meld-official-leaks": "leaks: speakers of test are trained on",
        "iemocap-superb-random-dev": "dev shares speakers with train, test with nobody",
        "msp-podcast-1.11": "known speakers apart",
        "ravdess-6fold": "speakers apart",
    }
    assert {name: leaks(SHIPPED[name]) for name in said} == said


def test_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["list", "corpora", "esd"]) == 0
    out = capsys.readouterr().out
    assert "esd-mandarin-5fold" in out and "https://hltsingapore.github.io/ESD" in out
    assert door.main(["list", "tasks", "esd"]) == 2
    assert "only corpora have more to show" in capsys.readouterr().err
    assert door.main(["list", "corpora", "ravdes"]) == 2
    assert "did you mean ravdess" in capsys.readouterr().err
