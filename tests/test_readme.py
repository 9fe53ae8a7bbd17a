"""The README's examples, as they stand there, in a copy of the project."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.shared import ROOT

TEXT = (ROOT / "README.md").read_text()
PACKAGES = ("emopeft", "upstream", "downstream", "peft_modules", "recipes", "leaderboard")


def examples() -> dict[str, str]:
    """File name to content of every block that begins with its name."""
    blocks = re.findall(r"```(?:python|json)\n(?:#|//) (\S+)\n(.*?)```", TEXT, re.S)
    return dict(blocks)


def test_one_example_of_each_kind() -> None:
    assert [Path(name).parts[0] for name in examples()] == [
        "downstream", "downstream", "peft_modules", "upstream"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the README's files added, and MINI's clips."""
    root = tmp_path_factory.mktemp("extended")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "run_downstream.py", root)
    for name, content in examples().items():
        (root / name).write_text(content)
    generator = np.random.default_rng(0)
    for speaker in "abc":
        for emotion, loudness in (("happy", 0.3), ("sad", 0.003)):
            for number in range(6):
                wav = generator.normal(size=8000 + 500 * number) * loudness
                path = root / "mini" / speaker / f"{speaker}_{emotion}_{number}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, wav, 16000)
    return root


def run(root: Path, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, *argv], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_added_corpus_protocol_and_upstream_work(extended: Path) -> None:
    assert "mini" in run(extended, "run_downstream.py", "--list", "corpora")
    shown = run(extended, "run_downstream.py", "-u", "energy", "-d", "emotion", "-p", "none",
                "--corpus", "mini", "--data", "mini")  # fmt: skip
    # Loud and soft clips: the energy tells them apart, as it should.
    assert re.search(r"mean +100\.00", shown), shown


def test_the_added_method_works(extended: Path) -> None:
    shown = run(extended, "run_downstream.py", "-u", "demo", "-d", "emotion", "-p", "shift",
                "--corpus", "mini", "--data", "mini", "--fold", "1",
                "-o", "train.epochs=2")  # fmt: skip
    # 2 blocks of width 64, and the head: Linear(64, 256), Linear(256, 2), 3 weights.
    assert f"trained {2 * 64 + 64 * 256 + 256 + 256 * 2 + 2 + 3:,} of" in shown


def test_every_name_in_the_tables_exists() -> None:
    from emopeft.downstream.corpora.base import CORPORA
    from emopeft.downstream.protocols.makers.base import MAKERS
    from emopeft.downstream.protocols.protocol import protocol_names
    from emopeft.downstream.tasks.base import TASKS, task_classes
    from emopeft.peft_modules.base import METHODS, parse
    from emopeft.upstream.catalogue import UPSTREAMS

    section = TEXT.partition("## What there is")[2].partition("## Adding one")[0]
    tables = [row for row in section.splitlines() if row.startswith("|")]
    names = {n for row in tables for n in re.findall(r"`([a-z0-9_.-]+)`", row)}
    ratings = {name for _, corpus in CORPORA.items() for name in corpus.scales}
    known = {*UPSTREAMS, *METHODS, *CORPORA, *MAKERS, *protocol_names(), *TASKS, *ratings, ".en"}
    assert names - known == set()
    assert {"ravdess", "ravdess-6fold", "none", "xls_r_2b"} <= names and set(TASKS) <= names
    page = set(re.findall(r"`([a-z0-9_.-]+)`", (ROOT / "docs/corpora.md").read_text()))
    assert {*CORPORA, *protocol_names()} <= page
    for spec in re.findall(r"`(emotion[+][^`]*)`", TEXT):
        assert task_classes(spec)
    for spec in re.findall(r"`((?:lora|partial|full)[:+][^`]*)`", TEXT):
        assert parse(spec)


def test_every_command_in_the_texts_exists() -> None:
    from emopeft.commands import door

    parser, names = door.parser()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    whole = [page.read_text().replace("\\\n", " ") for page in pages]  # commands of several lines
    lines = [line for text in whole for line in text.splitlines()]
    typed = [shlex.split(line, comments=True) for line in lines if line.startswith("emopeft ")]
    assert {words[1] for words in typed} >= {"check", "board", "evaluate", "predict", "export"}
    for words in typed:
        parser.parse_args(words[1:])
    inline = set(re.findall(r"`emopeft (\w+)[ `]", "\n".join(lines)))
    assert inline <= set(names) and {"run", "demo", "list", "cache"} <= inline
