"""A cache that several users, machines and containers share, on disks that fail."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emopeft.commands.modules import cache as command
from emopeft.downstream.feature_cache import store as feature_cache
from emopeft.downstream.feature_cache.folders import folders, make_room
from emopeft.downstream.feature_cache.shards import Damaged, Shard
from emopeft.downstream.feature_cache.store import FeatureCache, Made
from emopeft.errors import UserError
from tests.feature_cache.test_feature_cache import AUDIO, NAMES, Counting, item_of, make, shards

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 1000)  # two or three items


def as_another_user(function: Callable[[], Any]) -> Any:
    """What a function gives in a process that owns nothing here (root may read everything)."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            theirs.send((function(), None))
        except BaseException as error:
            theirs.send((None, (type(error).__name__, str(error), traceback.format_exc())))

    process = context.Process(target=work)
    process.start()
    assert ours.poll(60)
    result, error = ours.recv()
    process.join()
    if error is not None:
        kind, message, trace = error
        raise UserError(message) if kind == "UserError" else AssertionError(trace)
    return result


def complete(root: Path) -> bool:
    """Whether all items can be read and are right."""
    cache = FeatureCache(root, {})
    return cache.missing(NAMES) == [] and all(equal(cache.get(n), n) for n in NAMES)


def equal(item: Any, name: str) -> bool:
    return all(torch.equal(a, b) for a, b in zip(item, item_of(AUDIO[name]), strict=True))


# ---- what cannot be read is not damaged -------------------------------------------------------


def test_too_many_open_files_delete_nothing(tmp_path: Path) -> None:
    """REVIEW C1: any OSError while reading deleted valid shards."""
    FeatureCache(tmp_path, {}).fill(AUDIO, make)
    cache, compute = FeatureCache(tmp_path, {}), Counting()
    cache.fill(AUDIO, compute)
    before = {p: p.stat().st_ino for p in shards(cache)}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many"):
            while True:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(UserError, match="Too many open files; nothing was deleted"):
            cache.get(NAMES[0])
        with pytest.raises(UserError, match="Too many open files"):
            FeatureCache(tmp_path, {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in opened:
            os.close(file)
    assert {p: p.stat().st_ino for p in shards(cache)} == before
    assert compute.paths == [] and equal(cache.get(NAMES[0]), NAMES[0])


def test_another_users_shards_are_neither_read_nor_deleted(public: Path) -> None:
    """REVIEW C1: what may not be read was taken for damaged, and deleted."""
    cache = FeatureCache(public, {})
    cache.fill(AUDIO, make)
    for path in shards(cache):
        path.chmod(0)
    for folder in (public, public / "features", cache.folder):
        folder.chmod(0o777)  # where others may delete

    with pytest.raises(UserError, match="Permission denied; nothing was deleted"):
        as_another_user(lambda: complete(public))
    assert len(shards(cache)) == len(NAMES) / 3
    for path in shards(cache):
        path.chmod(0o644)
    assert as_another_user(lambda: complete(public))


def test_two_users_fill_one_cache(public: Path) -> None:
    """REVIEW C1: with a umask that shares, both read and add; files were their owner's only."""
    before = os.umask(0)
    try:
        cache = FeatureCache(public, {})
        for folder in (public, public / "features", cache.folder):
            folder.chmod(0o777)
        cache.fill({name: AUDIO[name] for name in NAMES[:6]}, make)
        added = as_another_user(lambda: FeatureCache(public, {}).fill(AUDIO, make))
        assert added == 6 and complete(public)
        modes = {stat.S_IMODE(p.stat().st_mode) for p in cache.folder.iterdir()}
        assert modes == {0o666}
    finally:
        os.umask(before)


# ---- a disk that cannot be written to ---------------------------------------------------------


def test_a_filled_cache_is_used_where_nothing_can_be_written(public: Path) -> None:
    """REVIEW C7: it could not be used at all."""
    cache = FeatureCache(public, {})
    cache.fill({name: AUDIO[name] for name in NAMES[:6]}, make)
    folder = cache.folder
    for path in (*folder.iterdir(), folder, folder.parent, public):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def use() -> bool:
        again = FeatureCache(public, {})
        wanted = {name: AUDIO[name] for name in NAMES[:6]}
        return again.fill(wanted, make) == 0 and all(equal(again.get(n), n) for n in wanted)

    assert as_another_user(use)
    with pytest.raises(UserError, match="lacks some clips and cannot be written.*-o cache.dir"):
        as_another_user(lambda: FeatureCache(public, {}).fill(AUDIO, make))
    with pytest.raises(UserError, match="cache.dir=DIR"):
        as_another_user(lambda: FeatureCache(public, {"another": 1}))
    for path in (public, folder.parent, folder):
        path.chmod(0o755)


# ---- who uses it ------------------------------------------------------------------------------

USER = """
import os, sys, time
from pathlib import Path
os.getpid = lambda: 4194000  # as in another container: no such process here
import socket
socket.gethostname = lambda: sys.argv[2] or socket.gethostname()
from emopeft.downstream.feature_cache.store import FeatureCache
cache = FeatureCache(Path(sys.argv[1]), {})
print("ready", flush=True)
time.sleep(60)
"""


def test_what_another_container_uses_stays_until_it_ends(tmp_path: Path) -> None:
    """REVIEW C2: a marker judged the processes of another container dead."""
    FeatureCache(tmp_path, {}).fill(AUDIO, make)
    (folder,) = (f.path for f in folders(tmp_path))
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(tmp_path), ""], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None and user.stdout.readline() == "ready\n"
    try:
        assert [f.busy for f in folders(tmp_path)] == [True]
        with pytest.raises(UserError, match="cache.limit"):
            make_room(tmp_path, 1, 1, keep=tmp_path)
        assert command(["--dir", str(tmp_path), "clean"]) == 0
        assert complete(tmp_path)
    finally:
        user.send_signal(signal.SIGKILL)
        user.wait()
    assert command(["--dir", str(tmp_path), "clean"]) == 0
    assert not folder.exists() and list((tmp_path / "features").iterdir()) == []


def test_who_comes_while_a_cache_is_deleted_begins_a_new_one(tmp_path: Path) -> None:
    old = FeatureCache(tmp_path, {})
    old.fill(AUDIO, make)
    shutil.rmtree(old.folder)  # as by hand
    new = FeatureCache(tmp_path, {})
    assert new.missing(NAMES) == NAMES
    new.fill(AUDIO, make)
    assert complete(tmp_path)


def test_leftovers_of_killed_processes_count_and_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """REVIEW C2: they stayed for ever, and the limit did not see them."""
    cache = FeatureCache(tmp_path, {})
    cache.fill({name: AUDIO[name] for name in NAMES[:6]}, make)
    size = cache.bytes()
    orphan = cache.folder / ".0123.safetensors.77.tmp"
    orphan.write_bytes(b"x" * 100_000)
    assert cache.bytes() == size + 100_000
    assert [f.bytes for f in folders(tmp_path)] == [size + 100_000]
    with pytest.raises(UserError, match="cache.limit"):
        make_room(tmp_path, size + 1000, 0, keep=cache.folder)
    cache.fill(AUDIO, make)
    assert not orphan.exists()
    # A folder whose maker was killed before it wrote what it is of, and half a removal.
    unknown = tmp_path / "features" / ("0" * 24)
    unknown.mkdir()
    (unknown / "a.safetensors").write_bytes(b"x" * 1000)
    half = tmp_path / "features" / f".{'1' * 24}.0123456789abcdef.tmp"
    half.mkdir()
    assert {f.path.name: f.busy for f in folders(tmp_path)}["0" * 24]  # maybe in the making
    os.utime(unknown, (time.time() - 7200,) * 2)
    assert command(["--dir", str(tmp_path), "clean"]) == 0
    assert sorted((tmp_path / "features").iterdir()) == [cache.folder]
    capsys.readouterr()


# ---- content that is wrong --------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a shard of three items."""
    cache = FeatureCache(tmp_path_factory.mktemp("good"), {})
    cache.fill({name: AUDIO[name] for name in NAMES[:3]}, make)
    (path,) = shards(cache)
    return path.read_bytes()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0), bit=st.integers(0, 7), near_start=st.booleans())
def test_a_flipped_bit_is_repaired_or_matters_not(
    tmp_path_factory: pytest.TempPathFactory, good: bytes, place: int, bit: int, near_start: bool
) -> None:
    """REVIEW D6: never a traceback, and never other numbers."""
    root = tmp_path_factory.mktemp("flip")
    wanted = {name: AUDIO[name] for name in NAMES[:3]}
    folder = FeatureCache(root, {}).folder
    data = bytearray(good)
    data[place % (1200 if near_start else len(data))] ^= 1 << bit
    (folder / "a.safetensors").write_bytes(bytes(data))
    cache = FeatureCache(root, {})
    cache.fill(wanted, make)
    for name in wanted:
        assert equal(cache.get(name), name)
    assert cache.bytes(wanted) == 4 * sum(3 * 8 + (5 + i) * 8 for i in range(3))
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "value",
    ["[]", "{", "[" * 100_000, '{"x": 1}', '{"x": {}}', '{"x": {"crc": NaN}}', '"x"', "null"],
)
def test_a_shards_list_of_items_is_checked(tmp_path: Path, value: str) -> None:
    """REVIEW D6: what a file says of itself is not believed."""
    import zlib

    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    for metadata in ({"items": value, "crc": str(zlib.crc32(value.encode()))}, {"crc": "1"}, {}):
        save_file({"x": torch.ones(1)}, path, metadata=metadata)
        with pytest.raises(Damaged):
            Shard(path)


def test_a_shard_that_was_made_again_is_left_alone(tmp_path: Path) -> None:
    """Two processes find one shard damaged; the second to act finds it repaired."""
    FeatureCache(tmp_path, {}).fill(AUDIO, make)
    path = shards(FeatureCache(tmp_path, {}))[1]
    right = path.read_bytes()
    path.write_bytes(right[:-5] + b"wrong")
    late, early = FeatureCache(tmp_path, {}), FeatureCache(tmp_path, {})
    computed = [Counting(), Counting()]
    late.fill(AUDIO, computed[0])
    early.fill(AUDIO, computed[1])
    broken = [n for n in NAMES if early._place[n] == path]
    for name in broken:
        assert equal(early.get(name), name)  # repairs
    inode = path.stat().st_ino
    for name in broken:
        assert equal(late.get(name), name)
    assert path.stat().st_ino == inode
    assert computed[0].paths == [] and len(computed[1].paths) == len(broken)


def test_without_a_source_damage_is_one_sentence(tmp_path: Path) -> None:
    FeatureCache(tmp_path, {}).fill(AUDIO, make)
    cache = FeatureCache(tmp_path, {})
    for path in shards(cache):
        path.write_bytes(path.read_bytes()[:-5] + b"wrong")
    with pytest.raises(UserError, match="damaged .a checksum is wrong.; delete it"):
        list(cache.by_shard(NAMES))


def test_old_facts_are_kept_with_the_item(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})

    def batches(names: Any) -> Iterator[Made]:
        for i, name in enumerate(names):
            yield Made(name, item_of(AUDIO[name]), 2.0, 600.0 if i < 3 else 0.0)

    cache.fill(AUDIO, batches)
    again = FeatureCache(tmp_path, {})
    assert again.seconds(NAMES) == pytest.approx(24, abs=1)
    assert again.batch_seconds(NAMES) == 600 and again.batch_seconds(NAMES[3:]) == 0
    key = json.loads((again.folder / "key.json").read_text())
    assert key["format"] == feature_cache.FORMAT
