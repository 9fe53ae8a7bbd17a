"""Writing, reading, locking: whole or not there, regular and bounded, released with the owner."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from emopeft import files, locks
from emopeft.errors import UserError
from emopeft.files import (
    Busy,
    file_digest,
    hold,
    is_held,
    locked,
    open_regular,
    orphans,
    read_bytes,
    read_json,
    read_text,
    write_json,
    write_text,
    writing,
    writing_folder,
)

ROOT = Path(files.__file__).resolve().parent.parent


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask that is neither the usual one nor safetensors' choice."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


# ---- writing --------------------------------------------------------------------------------


def _write_often(path: Path, text: str, rounds: int, failures) -> None:
    os.getpid = lambda: 1  # as the first process of a container
    for _ in range(rounds):
        try:
            write_text(path, text)
        except UserError:
            with failures.get_lock():
                failures.value += 1


def test_two_writers_of_one_process_id_do_not_disturb_each_other(tmp_path: Path) -> None:
    """REVIEW C2: temporary names held the process id only, and containers share ids."""
    context = multiprocessing.get_context("fork")
    failures = context.Value("i", 0)
    texts = ["a" * 50_000, "b" * 70_000]
    workers = [
        context.Process(target=_write_often, args=(tmp_path / "x", text, 100, failures))
        for text in texts
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures.value == 0
    assert (tmp_path / "x").read_text() in texts
    assert leftovers(tmp_path) == []


def test_modes_are_the_umasks_whoever_makes_the_file(tmp_path: Path, umask: None) -> None:
    """REVIEW C1: safetensors makes files that only their owner can read."""
    with writing(tmp_path / "a" / "x.safetensors") as temporary:
        save_file({"x": torch.ones(3)}, temporary)
    write_text(tmp_path / "a" / "y", "y")
    with writing_folder(tmp_path / "b") as folder:
        (folder / "deep").mkdir()
        save_file({"x": torch.ones(3)}, folder / "deep" / "x.safetensors")
    assert mode(tmp_path / "a" / "x.safetensors") == mode(tmp_path / "a" / "y") == 0o640
    assert mode(tmp_path / "b" / "deep" / "x.safetensors") == 0o640
    assert mode(tmp_path / "a") == mode(tmp_path / "b") == mode(tmp_path / "b" / "deep") == 0o750


def test_orphans_of_the_same_target_go_after_a_day(tmp_path: Path) -> None:
    """REVIEW C2: what a killed writer left stayed for ever."""
    old, folder, young, other = (
        tmp_path / name
        for name in (".x.123.tmp", ".x.0a1b.tmp", ".x.456.tmp", ".x.y.0123456789abcdef.tmp")
    )
    for path in (old, young, other):
        path.write_text("x")
    folder.mkdir()
    (folder / "file").write_text("x")
    for path in (old, folder, other):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert sorted(orphans(tmp_path)) == sorted([old, folder, other])
    write_text(tmp_path / "x", "new")
    assert not old.exists() and not folder.exists()
    assert young.exists() and other.exists()


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_text(path, "before")
    for error in (RuntimeError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), writing(path) as temporary:
            temporary.write_text("half")
            raise error
        with pytest.raises(type(error)), writing_folder(tmp_path / "f") as temporary:
            (temporary / "a").write_text("half")
            raise error
    assert path.read_text() == "before" and not (tmp_path / "f").exists()
    assert leftovers(tmp_path) == []
    with pytest.raises(UserError, match="exists already"), writing_folder(path):
        pass


@pytest.mark.parametrize("writer", ["torch", "safetensors"])
def test_a_full_disk_says_so(tmp_path: Path, writer: str) -> None:
    """REVIEW C6: a full disk was told as "unexpected pos 32832"."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        for save in (writing, writing_folder):
            with (
                pytest.raises(UserError) as caught,
                save(tmp_path / "x", "take another disk") as temporary,
            ):
                if save is writing_folder:
                    temporary = temporary / "in it"
                if writer == "torch":
                    torch.save({"x": torch.ones(100_000)}, temporary)
                else:
                    save_file({"x": torch.ones(100_000)}, temporary)
            assert str(caught.value) == (
                f"cannot write {tmp_path / 'x'}: {os.strerror(errno.EFBIG)}; take another disk"
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "x").exists() and leftovers(tmp_path) == []


# ---- reading --------------------------------------------------------------------------------


def strange_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Things that are no file, with what is said of them."""
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "link").symlink_to(folder / "pipe")
    end = socket.socket(socket.AF_UNIX)
    end.bind(str(folder / "s"))
    end.close()
    return {
        "pipe": (folder / "pipe", "is a pipe"),
        "link": (folder / "link", "is a pipe"),
        "device": (folder / "zero", "is a device"),
        "folder": (folder, "is a folder"),
        "socket": (folder / "s", "is a socket"),
        "missing": (folder / "nothing", "does not exist"),
        "below a file": (folder / "zero" / "x", "does not exist"),
        "loop": (_loop(folder), "cannot read"),
        "nul": (folder / "a\0b", "cannot be the name of a file"),
        "half": (folder / "\ud800", "cannot be the name of a file"),
        "long": (folder / ("x" * 300), "cannot read"),
    }


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


@pytest.mark.parametrize("read", [read_json, read_text, file_digest])
def test_only_regular_files_are_read(tmp_path: Path, read) -> None:
    """REVIEW D1, D5: a pipe hung for ever, /dev/zero filled the memory; NUL was a traceback."""
    for path, message in strange_files(tmp_path).values():
        caught: list[BaseException] = []

        def attempt(path: Path = path, caught: list[BaseException] = caught) -> None:
            try:
                read(path)
            except BaseException as error:
                caught.append(error)

        reader = threading.Thread(target=attempt, daemon=True)
        reader.start()
        reader.join(10)
        assert not reader.is_alive(), path
        assert isinstance(caught[0], UserError), caught
        assert message in str(caught[0])


def test_files_are_bounded(tmp_path: Path) -> None:
    """REVIEW D1: nothing bounded what was read."""
    path = tmp_path / "x"
    path.write_bytes(b"1" * 1000)
    assert read_bytes(path, 1000) == b"1" * 1000
    with pytest.raises(UserError, match="more than the 999 B"):
        read_bytes(path, 999)
    with pytest.raises(UserError, match="more than the 10 B"):
        open_regular(path, 10)
    with open_regular(path) as file, path.open("ab") as more:  # grows while it is read
        more.write(b"2" * 1000)
        more.flush()
        assert len(file.read()) == 2000
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(UserError, match="has 1.1 TB"):
        read_json(sparse)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "too large"),
        ('{"a": ' + "9" * 401 + "}", "401 digits"),
        ('{"a": 0.' + "9" * 500 + "}", "too long"),
        ("[" * 101 + "]" * 101, "nested"),
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"\\udc00": 1}', "half a character"),
        ("", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
    ],
)
def test_json_with_a_fault_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    """REVIEW D6: nesting and half characters were tracebacks; NaN and second keys went through."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    """REVIEW D6."""
    (tmp_path / "x").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match="not UTF-8 text .byte 2"):
        read_text(tmp_path / "x")
    (tmp_path / "x").write_bytes("ü\0\r\n".encode())
    assert read_text(tmp_path / "x") == "ü\0\r\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(value=JSON, place=st.integers(0), byte=st.integers(0, 255))
def test_json_is_read_as_written_and_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, value: object, place: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, value)
    assert read_json(path) == value
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    try:
        again = read_json(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        json.dumps(again, allow_nan=False).encode()


# ---- locks ----------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from emopeft.files import hold, locked
path, kind = Path(sys.argv[1]), sys.argv[2]
with locked(path) if kind == "lock" else hold(path):
    print("ready", flush=True)
    time.sleep(60)
"""


def holder(path: Path, kind: str) -> subprocess.Popen[str]:
    """Another process that holds a lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), kind],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    """REVIEW C2, C3: by the system, not by a process id that means nothing elsewhere."""
    path = tmp_path / "deep" / "x.lock"
    process = holder(path, "lock")
    began = time.monotonic()
    with pytest.raises(Busy, match="another process"), locked(path):
        pass
    with pytest.raises(Busy), locked(path, wait=0.3):
        pass
    assert 0.3 <= time.monotonic() - began < 5
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(path), pytest.raises(Busy), locked(path):
        pass
    with locked(path, wait=math.inf):
        pass


def test_who_may_write_into_the_folder_may_lock(tmp_path: Path) -> None:
    """REVIEW C1: a cache shared by two users."""
    tmp_path.chmod(0o775)
    with locked(tmp_path / "x.lock"):
        assert mode(tmp_path / "x.lock") == 0o664
    with pytest.raises(UserError, match="cannot lock"), locked(tmp_path / "x.lock" / "y"):
        pass


def test_what_is_held_is_known_and_forgotten_with_its_holders(tmp_path: Path) -> None:
    """REVIEW C2: a marker judged the processes of another container dead."""
    path = tmp_path / "x"
    path.write_text("x")
    assert not is_held(path)
    process = holder(path, "hold")
    mine = hold(path)
    assert mine is not None and is_held(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_held(path)
    mine.close()
    with locks.unused(path) as free:
        assert free
        path.unlink()
    assert not is_held(path)
    with pytest.raises(FileNotFoundError):
        hold(path)
