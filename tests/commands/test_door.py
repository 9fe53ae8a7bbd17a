"""The one door: its commands, its help, and what it answers to misuse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emopeft.commands import card, door, modules, run
from tests.calls import call
from tests.shared import ROOT

COMMANDS = ("run", "evaluate", "predict", "check", "cache", "export", "import", "merge", "board",
            "list", "demo")  # fmt: skip


def python(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], cwd=cwd, capture_output=True, text=True)


def refused(capsys: pytest.CaptureFixture[str], *argv: str, through=door.main) -> str:
    """Status 2 and one sentence; returns it."""
    try:
        status = through(argv)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    return error


# ---- help -------------------------------------------------------------------------------------


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """REVIEW E7: not an error about a corpus that nobody named."""
    assert door.main([]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^    {name} +\w", shown, re.M), name
    assert call() == 0
    assert "usage: run_downstream.py" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        door.main(["run"])
    assert caught.value.code == 0 and "usage: emopeft run" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        door.main([name, "--help"])
    assert caught.value.code == 0
    assert f"usage: emopeft {name}" in capsys.readouterr().out


def test_help_loads_no_library() -> None:
    """So it takes a tenth of a second, and not the ten that torch and transformers take."""
    for start in (["-m", "emopeft", "run", "--help"], ["run_downstream.py", "--help"]):
        done = python("-X", "importtime", *start)
        assert done.returncode == 0
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "argparse" in loaded
        assert not {"torch", "transformers", "numpy", "yaml", "pydantic"} & loaded


# ---- the same code under every name -----------------------------------------------------------


def test_the_card_and_the_door_have_the_same_flags() -> None:
    short = card.parser()
    line = ["-u", "hubert", "-d", "emotion", "-p", "lora", "-c", "r.yaml", "-o", "a=1", "-n", "x"]
    long = ["--upstream", "hubert", "--task", "emotion", "--method", "lora", "--recipe", "r.yaml",
            "--override", "a=1", "--name", "x"]  # fmt: skip
    assert flags_of(short.parse_args(line)) == flags_of(short.parse_args(long))
    assert vars(short.parse_args(["-m", "predict"]))["mode"] == "predict"
    assert vars(short.parse_args(["--mode", "predict"]))["mode"] == "predict"
    top, _ = door.parser()
    typed = flags_of(top.parse_args(["run", *line]))
    assert typed.items() <= (flags_of(short.parse_args(line)) | {"function": run._run}).items()


def flags_of(flags) -> dict[str, object]:
    return {k: v for k, v in vars(flags).items() if k != "_seen"}


def test_what_modules_call(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert modules.corpora(["list"]) == 0
    listed = capsys.readouterr().out
    assert door.main(["list", "corpora"]) == 0
    assert capsys.readouterr().out == listed and "ravdess" in listed
    assert modules.cache(["--dir", str(tmp_path), "list"]) == 0
    assert "0 caches" in capsys.readouterr().out
    nothing = str(tmp_path / "none")
    answer = refused(capsys, "check", "ravdess", nothing)
    assert "none does not exist" in answer
    assert refused(capsys, "check", "ravdess", nothing, through=modules.corpora) == answer
    answer = refused(capsys, "board", nothing, "--out", str(tmp_path))
    assert refused(capsys, nothing, "--out", str(tmp_path), through=modules.board) == answer
    answer = refused(capsys, "merge", nothing, str(tmp_path / "x"))
    through = modules.adapters
    assert refused(capsys, "merge", nothing, str(tmp_path / "x"), through=through) == answer
    assert "choose from" in refused(capsys, "run", through=through)


@pytest.mark.parametrize(
    ("module", "words", "status"),
    [
        ("emopeft", ["list", "tasks"], 0),
        ("downstream.corpora", ["list"], 0),
        ("downstream.corpora", ["check", "emobd", "."], 2),
        ("downstream.corpora.demo", ["--help"], 0),
        ("downstream.corpora.demo", ["setup.cfg"], 2),
        ("downstream.feature_cache", ["--dir", "nowhere", "list"], 0),
        ("leaderboard", ["nowhere", "--out", "nowhere"], 2),
        ("peft_modules", ["export", "nowhere", "nowhere2"], 2),
        ("downstream.protocols.build", ["--check"], 0),
    ],
)
def test_the_documented_modules_run(module: str, words: list[str], status: int) -> None:
    done = python("-m", module, *words)
    assert done.returncode == status, done.stderr[-2000:]
    assert done.stdout if status == 0 else done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr and not (ROOT / "nowhere").exists()


def test_the_demo_corpus_alone(tmp_path: Path) -> None:
    """In processes of its own, which read the program's file again."""
    done = python("-m", "downstream.corpora.demo", str(tmp_path / "corpus"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("demo corpus: 240 synthetic clips in ")


# ---- misuse -----------------------------------------------------------------------------------


PAIR = ("--corpus", "ravdess+emodb")


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (("rnu",), "unknown command 'rnu': did you mean run"),
        (("-u", "demo"), "give a command before -u, such as: emopeft run -u"),
        (("run", "-p", "none", "-p", "lora"), "-p/--method: is given twice"),
        (("run", "-p", "none", "--method", "lora"), "-p/--method: is given twice"),
        (("run", "--corp", "demo"), "unrecognized arguments: --corp"),
        (("run", "-o", "lr=1e-4"), "unknown key in -o 'lr': did you mean train.lr?"),
        (("run", "-o", "dropout=0"), "did you mean upstream.dropout, head.dropout?"),
        (("run", "-p", "lora,ws"), "a sum of methods is written with +: lora+ws"),
        (("run", "-n", ""), "-n/--name: is empty"),
        (("run", "-n", " "), "-n/--name: is empty"),
        (("run", "-n", "a/b"), "must be a plain name"),
        (("run", "-n", "\udcff"), r"'\udcff' is not UTF-8"),
        (("run", "--data", ""), "--data: is empty"),
        (("run", *PAIR, "--data", "emodb=x", "--data", "y"), "y does not say whose place it is"),
        (("run", *PAIR, "--data", "emodb=x", "--data", "emodb=y"), "emodb=DIR is given twice"),
        (("run", *PAIR, "--data", "emodb=x", "--data", "ravdes=y"), "did you mean ravdess?"),
        (("run", *PAIR, "--data", "emodb="), "emodb= names no place"),
        (("check", "ravdess+emodb", "ravdess=x"), "give emodb=DIR, too"),
        (("check", "ravdess+emodb", ".", "-o", "a=b"), "are of one corpus, not of ravdess+emodb"),
        (("run", "--seed", "0,0"), "seeds holds 0 twice"),
        (("run", "--seed", "0,"), "--seed 0, must be whole numbers"),
        (("run", "--seed", "9" * 5000), "must be whole numbers"),
        (("run", "--seed", str(2**63)), "must be at most 4,000,000,000"),
        (("run", "-o", "train.lr=inf"), "train.lr = 'inf' must be a finite number"),
        (("run", "-o", "train.lr=" + "9" * 5000), "-o train.lr holds a number that cannot be"),
        (("run", "-o", "head.dropout=2"), "head.dropout = 2.0 must be below 1"),
        (("run", "-o", "corpus.options=&a [*a]"), "refers to itself"),
        (("predict", "x", "y", "--output", ""), "--output: is empty"),
        (("predict", "x", "y", "--seed", "1,2"), "names several checkpoints"),
        (("cache", "clean", ""), "ID: is empty"),
        (("board", "x", "--out", "y"), "x is not a folder"),
        (("board", "x", "--out", ""), "--out: is empty"),
        (("list", "method"), "invalid choice: 'method'"),
    ],
)
def test_misuse_is_one_sentence_and_writes_nothing(
    argv: tuple[str, ...],
    answer: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REVIEW D6, E7: known before anything is loaded or written."""
    monkeypatch.chdir(tmp_path)
    assert answer in refused(capsys, *argv)
    assert not list(tmp_path.iterdir())


def test_interruptions_and_closed_pipes_have_their_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(argv):
        raise KeyboardInterrupt

    assert door.guarded(stopped, []) == 130
    assert "the same command goes on" in capsys.readouterr().err

    class Terminated(KeyboardInterrupt):
        signal = 15

    def terminated(argv):
        raise Terminated

    assert door.guarded(terminated, []) == 143
    process = subprocess.Popen(
        [sys.executable, "-m", "emopeft", "list", "upstreams"], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=120) == 1 and b"Traceback" not in process.stderr.read()


def test_a_terminal_without_our_letters_gets_others(tmp_path: Path) -> None:
    """A plain C terminal knows no "…", which stands in the demo corpus' row."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c",
         "import emopeft.commands.door as d; d.guarded(lambda a: print('a ± b') or 0, [])"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == "a ? b\n"
