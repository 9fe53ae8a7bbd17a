"""What a scan found out is kept, and counts as long as the files do not change."""

from __future__ import annotations

import ast
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emopeft.downstream.corpora import scan as scanning
from emopeft.downstream.corpora import scan_store
from emopeft.downstream.corpora.audio import Clip, examine
from emopeft.downstream.corpora.base import Utterance
from emopeft.downstream.corpora.scan import Scan, scan
from emopeft.downstream.corpora.scan_store import NAME, ScanStore

COUNT = 6


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Clips that count as old enough to be kept."""
    monkeypatch.setattr(scan_store, "YOUNG", -1.0)
    return [write(tmp_path / f"{i}.wav", i) for i in range(COUNT)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files that are decoded."""
    seen: list[Path] = []

    def look(path: Path, minimum: float) -> Clip:
        seen.append(path)
        return examine(path, minimum)

    monkeypatch.setattr(scanning, "examine", look)
    yield seen


def write(path: Path, seed: int, seconds: float = 0.1) -> Path:
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, int(16000 * seconds))
    soundfile.write(path, noise, 16000)
    return path


def of(paths: Sequence[Path], corpus: str = "a") -> list[Utterance]:
    return [Utterance(p.stem, p, "s", "sad", corpus=corpus) for p in paths]


def equal(one: Scan, other: Scan) -> bool:
    return (one.clips, one.seconds, one.digests, one.audio, one.problems) == (
        other.clips, other.seconds, other.digests, other.audio, other.problems
    )  # fmt: skip


def test_files_are_decoded_once(tmp_path: Path, paths: list[Path], read: list[Path]) -> None:
    """REVIEW C9: every run decoded and hashed the whole corpus anew."""
    store = tmp_path / "cache"
    first = scan(of(paths), store=store)
    assert len(read) == COUNT and len(set(first.audio.values())) == COUNT
    assert equal(scan(of(paths), store=store), first)
    assert len(read) == COUNT
    write(tmp_path / "new.wav", 99)
    more = scan(of([*paths, tmp_path / "new.wav"]), store=store)
    assert read[COUNT:] == [tmp_path / "new.wav"]
    assert equal(more, scan(of([*paths, tmp_path / "new.wav"])))
    assert [p.name for p in store.iterdir()] == [NAME]


def test_utterances_of_two_corpora_may_share_an_id(paths: list[Path]) -> None:
    found = scan([*of(paths[:2], "a"), *of(paths[2:3], "b"), Utterance("0", paths[3], "s", None)])
    assert list(found.seconds) == ["a/0", "a/1", "b/2", "0"]
    assert found.audio["a/0"] == examine(paths[0]).audio == found.clips["a/0"].audio


@pytest.mark.parametrize("times", ["kept", "new"])
def test_a_changed_file_is_decoded_again(
    tmp_path: Path, paths: list[Path], read: list[Path], times: str
) -> None:
    """REVIEW A4, C9: never an answer about another waveform, not even of the same size and time."""
    before = paths[2].stat()
    first = scan(of(paths), store=tmp_path)
    time.sleep(0.02)  # the clock of the file system ticks
    write(paths[2], 77)
    if times == "kept":
        os.utime(paths[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert paths[2].stat().st_size == before.st_size
    second = scan(of(paths), store=tmp_path)
    assert read[COUNT:] == [paths[2]]
    assert second.audio["a/2"] == examine(paths[2]).audio != first.audio["a/2"]


def test_a_file_that_was_just_written_is_not_kept(tmp_path: Path, read: list[Path]) -> None:
    """It might change again within one tick of the clock."""
    path = write(tmp_path / "x.wav", 0)
    for _ in range(2):
        scan(of([path]), store=tmp_path)
    assert len(read) == 2


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(path: Path, minimum: float) -> Clip:
        clip = examine(path, minimum)
        write(path, 55, 0.2)
        return clip

    monkeypatch.setattr(scanning, "examine", look)
    scan(of(paths[:1]), store=tmp_path)
    assert ScanStore(tmp_path).get(paths[:1]) == {}


def test_problems_and_minimum_are_as_without_a_store(
    tmp_path: Path, paths: list[Path], read: list[Path]
) -> None:
    paths[1].write_bytes(b"RIFF")
    utterances = of([*paths, tmp_path / "gone.wav"])
    for minimum in (0.0, 0.15, 0.05):
        wanted = scan(utterances, minimum)
        for _ in range(2):
            assert equal(scan(utterances, minimum, store=tmp_path), wanted)
    assert [p.split()[0] for p in wanted.problems] == [str(paths[1]), str(tmp_path / "gone.wav")]


def test_verify_decodes_all_and_tells_of_a_failing_disk(
    tmp_path: Path,
    paths: list[Path],
    read: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ScanStore, "state", staticmethod(lambda path: "the same"))
    first = scan(of(paths), store=tmp_path)
    write(paths[3], 33)
    assert equal(scan(of(paths), store=tmp_path), first)
    fresh = scan(of(paths), store=tmp_path, verify=True)
    assert len(read) == 2 * COUNT
    assert fresh.audio["a/3"] != first.audio["a/3"]
    (record,) = caplog.records
    assert str(paths[3]) in record.getMessage() and "failing" in record.getMessage()
    assert equal(scan(of(paths), store=tmp_path), fresh)


@pytest.mark.parametrize("damage", ["text", "cut", "row", "empty", "folder", "file in the way"])
def test_a_broken_store_costs_nothing_but_time(
    tmp_path: Path, paths: list[Path], read: list[Path], damage: str
) -> None:
    store = tmp_path / "cache"
    wanted = scan(of(paths), store=store)
    database = store / NAME
    if damage == "text":
        database.write_text("no database at all" * 1000)
    elif damage == "cut":
        database.write_bytes(database.read_bytes()[:5000])
    elif damage == "empty":
        database.write_bytes(b"")
    elif damage == "row":
        with sqlite3.connect(database) as rows:
            rows.execute("UPDATE clips SET facts = replace(facts, '0.1,', '0.2,')")
        rows.close()
    else:
        database.unlink()
        if damage == "folder":
            database.mkdir()
        else:
            store.rmdir()
            store.touch()
    for _ in range(2):
        assert equal(scan(of(paths), store=store), wanted)
    again = 2 if damage in ("folder", "file in the way") else 1
    assert len(read) == (1 + again) * COUNT


RANK = """
import sys, time
from pathlib import Path
from emopeft.downstream.corpora import scan as scanning, scan_store
from tests.corpora.test_scan import of
scan_store.YOUNG = -1.0
inner = scanning.examine
def slow(path, minimum):
    time.sleep(0.05)
    with open(sys.argv[2], "a") as log:
        log.write(path.name + "\\n")
    return inner(path, minimum)
scanning.examine = slow
scanning.KEPT_AT_ONCE = 2
folder = Path(sys.argv[1])
found = scanning.scan(of(sorted(folder.glob("*.wav"))), store=folder / "cache")
print(sorted(found.audio.values()))
"""


def test_of_several_processes_one_decodes(tmp_path: Path) -> None:
    """REVIEW C9: every rank decoded the whole corpus."""
    for i in range(COUNT):
        write(tmp_path / f"{i}.wav", i)
    log = tmp_path / "log"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(log)],
            cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    answers = {rank.communicate(timeout=60)[0] for rank in ranks}
    assert all(rank.returncode == 0 for rank in ranks)
    assert len(answers) == 1 and len(ast.literal_eval(answers.pop())) == COUNT
    assert sorted(log.read_text().split()) == [f"{i}.wav" for i in range(COUNT)]


def test_writers_do_not_disturb_each_other(tmp_path: Path, paths: list[Path]) -> None:
    """Many processes keep what they found at once."""
    code = (
        "import sys; from pathlib import Path\n"
        "from emopeft.downstream.corpora.scan_store import ScanStore\n"
        "from emopeft.downstream.corpora.audio import Clip\n"
        "store, n = ScanStore(Path(sys.argv[1])), int(sys.argv[2])\n"
        "for i in range(40):\n"
        "    store.put([(Path(f'/x/{n}/{i}.wav'), 'state', Clip(Path('/x'), seconds=float(i)))])\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)],
                         cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
        for n in range(3)
    ]  # fmt: skip
    for writer in writers:
        assert writer.communicate(timeout=100)[1] == b""
    with sqlite3.connect(tmp_path / NAME) as database:
        assert database.execute("SELECT count(*) FROM clips").fetchone() == (120,)
    database.close()
