"""The commands of docs/coming-from.md: more than parsed, as far as that goes without any data."""

from __future__ import annotations

import shlex

import pytest

from emopeft.commands import door
from emopeft.commands.run import recipe_of
from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.data.prepare import own, protocol_name
from emopeft.downstream.protocols.protocol import load_protocol
from tests.shared import ROOT

TEXT = (ROOT / "docs/coming-from.md").read_text().replace("\\\n", " ")
RUNS = [line for line in TEXT.splitlines() if line.startswith("emopeft run ")]


def test_every_tool_has_its_command() -> None:
    sections = TEXT.split("\n## ")[1:]
    assert [s.splitlines()[0] for s in sections] == [
        "EmoBox", "nkululeko, audformat", "The Odyssey 2024 challenge", "SUPERB, s3prl", "PEFT-SER"
    ]  # fmt: skip
    assert all("\nThere" in s and "\nHere" in s and "\nemopeft run " in s for s in sections)


@pytest.mark.parametrize("line", RUNS)
def test_a_command_is_a_run(line: str) -> None:
    parser, _ = door.parser()
    flags = parser.parse_args(shlex.split(line)[1:])
    if flags.recipe is not None:
        flags.recipe = ROOT / flags.recipe
    recipe = recipe_of(flags)
    corpus = CORPORA[recipe.corpus.name or ""].with_options(**recipe.corpus.options)
    name = protocol_name(recipe)
    if corpus.folds is None or not own(name, corpus):
        assert load_protocol(name).corpora in ((corpus.name,), (corpus.like,))
