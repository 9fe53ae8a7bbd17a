"""The cache of frozen parts: exact, safe for several processes, resumable, bounded, repairable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from emopeft.commands.modules import cache as command
from emopeft.downstream.feature_cache import store as feature_cache
from emopeft.downstream.feature_cache.folders import folders, make_room
from emopeft.downstream.feature_cache.store import Compute, FeatureCache, Item, Made
from emopeft.errors import UserError

NAMES = [f"{i:064x}" for i in range(12)]
AUDIO = {name: Path(f"clip{i}.wav") for i, name in enumerate(NAMES)}


def item_of(path: Path) -> Item:
    """Two different tensors that depend on the path."""
    number = int(path.stem.removeprefix("clip"))
    generator = torch.Generator().manual_seed(number)
    return (
        torch.randn(3, 8, generator=generator),
        torch.randn(5 + number, 8, generator=generator),
    )


def each(function: Callable[[Path], Item]) -> Compute:
    """One item after the other, from its path."""
    return lambda names: (Made(name, function(AUDIO[name]), 0.001) for name in names)


make = each(item_of)


class Counting:
    def __init__(self) -> None:
        self.paths: list[Path] = []

    def __call__(self, names: Sequence[str]) -> Iterator[Made]:
        return each(self.count)(names)

    def count(self, path: Path) -> Item:
        self.paths.append(path)
        return item_of(path)


def shards(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.glob("*.safetensors"))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 1000)  # two or three items


def test_what_comes_back_is_what_went_in(tmp_path: Path) -> None:
    cache, compute = FeatureCache(tmp_path, {"a": 1}), Counting()
    assert cache.fill(AUDIO, compute) == 12
    again = FeatureCache(tmp_path, {"a": 1})
    assert again.fill(AUDIO, compute) == 0 and len(compute.paths) == 12
    for name, path in AUDIO.items():
        for mine, theirs in zip(again.get(name), item_of(path), strict=True):
            assert mine is not None and theirs is not None and torch.equal(mine, theirs)
    numbers = sum(3 * 8 + (5 + i) * 8 for i in range(12))
    assert again.bytes(NAMES) == 4 * numbers <= again.bytes()
    assert again.seconds(NAMES) > 0
    assert again.drift(NAMES) == {"mean": 0.0, "max": 0.0}
    assert FeatureCache(tmp_path, {"a": 2}).missing(NAMES) == NAMES
    assert FeatureCache(tmp_path, {"a": 1}, "bf16").missing(NAMES) == NAMES


def test_item_without_a_kept_part(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {})
    cache.fill({NAMES[0]: AUDIO[NAMES[0]]}, each(lambda path: (item_of(path)[0], None)))
    states, kept = FeatureCache(tmp_path, {}).get(NAMES[0])
    assert states.shape == (3, 8) and kept is None


@pytest.mark.parametrize(("dtype", "error"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_shorter_formats_say_how_far_off_they_are(tmp_path: Path, dtype: str, error: float) -> None:
    cache = FeatureCache(tmp_path, {}, dtype)
    cache.fill(AUDIO, make)
    drift = cache.drift(NAMES)
    # Rounding to nearest errs by half a unit in the last place at most, a third of it on average.
    assert error / 6 < drift["mean"] <= drift["max"] < error
    exact, stored = item_of(AUDIO[NAMES[4]]), cache.get(NAMES[4])
    away = torch.cat([(a - b).flatten() for a, b in zip(exact, stored, strict=True)])  # type: ignore[operator]
    size = torch.cat([a.flatten() for a in exact])  # type: ignore[union-attr]
    assert drift["max"] >= float(away.norm() / size.norm()) > 0


def test_numbers_too_large_for_fp16_are_an_error_not_infinity(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {}, "fp16")
    with pytest.raises(UserError, match="clip0.wav do not fit into fp16.*bf16"):
        cache.fill(AUDIO, each(lambda path: (item_of(path)[0] * 1e6, None)))
    assert not shards(cache)


def test_interrupted_fill_goes_on(tmp_path: Path, small_shards: None) -> None:
    cache = FeatureCache(tmp_path, {})

    def fails(path: Path) -> Item:
        if path.stem == "clip7":
            raise KeyboardInterrupt
        return item_of(path)

    with pytest.raises(KeyboardInterrupt):
        cache.fill(AUDIO, each(fails))
    done = 12 - len(FeatureCache(tmp_path, {}).missing(NAMES))
    assert 0 < done <= 7
    compute = Counting()
    assert FeatureCache(tmp_path, {}).fill(AUDIO, compute) == 12 - done == len(compute.paths)


SLOW = """
import sys, time
from pathlib import Path
import emopeft.downstream.feature_cache.store as fc
from tests.feature_cache.test_feature_cache import AUDIO, each, item_of
fc.SHARD_BYTES = 1000
def slow(path):
    time.sleep(0.05)
    with open(sys.argv[2], "a") as log:
        log.write(path.name + "\\n")
    return item_of(path)
cache = fc.FeatureCache(Path(sys.argv[1]), {})
print("ready", flush=True)
cache.fill(AUDIO, each(slow))
"""


def start_filling(root: Path, log: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(root), str(log)],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_two_processes_fill_one_cache_and_one_of_them_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first, second = start_filling(tmp_path, log), start_filling(tmp_path, log)
    for process in (first, second):
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while not list((tmp_path / "features").glob("*/*.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert second.wait(60) == 0
    first.wait(60)
    cache = FeatureCache(tmp_path, {})
    assert cache.missing(NAMES) == []
    # Nothing that had been written was computed again: a shard at most was lost with the process.
    assert 12 <= len(log.read_text().split()) <= 12 + 4
    for name, path in AUDIO.items():
        kept, wanted = cache.get(name)[1], item_of(path)[1]
        assert kept is not None and wanted is not None and torch.equal(kept, wanted)


def test_together_two_processes_compute_each_item_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start_filling(tmp_path, log) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(log.read_text().split()) == sorted(p.name for p in AUDIO.values())


def damage_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def damage_numbers(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [damage_header, damage_numbers])
def test_damaged_shard_is_found_and_made_again(
    tmp_path: Path, small_shards: None, damage, caplog: pytest.LogCaptureFixture
) -> None:
    FeatureCache(tmp_path, {}).fill(AUDIO, make)
    cache = FeatureCache(tmp_path, {})
    damage(shards(cache)[1])
    cache, compute = FeatureCache(tmp_path, {}), Counting()
    cache.fill(AUDIO, compute)
    for name, path in AUDIO.items():
        kept, wanted = cache.get(name)[1], item_of(path)[1]
        assert kept is not None and wanted is not None and torch.equal(kept, wanted)
    assert 1 <= len(compute.paths) <= 4  # the damaged shard's items and no others
    assert "is damaged" in caplog.text


def filled(root: Path, number: int, used: float) -> FeatureCache:
    cache = FeatureCache(root, {"number": number}, name=f"upstream{number}")
    cache.fill({name: AUDIO[name] for name in NAMES[:4]}, make)
    os.utime(cache.folder / "key.json", (used, used))
    return cache


def forget_use(cache: FeatureCache) -> None:
    """As if the process that filled it had ended."""
    assert cache._held is not None
    cache._held.close()


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    old, older, kept = (filled(tmp_path, i, used) for i, used in enumerate((200.0, 100.0, 300.0)))
    for cache in (old, older):
        forget_use(cache)
    size = kept.bytes()
    gone = make_room(tmp_path, 3.5 * size, size, keep=kept.folder)
    assert [f.path for f in gone] == [older.folder] and not older.folder.exists()
    with pytest.raises(UserError, match="cache.limit"):
        make_room(tmp_path, 1.5 * size, size, keep=kept.folder)
    assert kept.folder.exists()


def test_what_a_process_uses_stays(tmp_path: Path) -> None:
    used, own = filled(tmp_path, 0, 100.0), filled(tmp_path, 1, 200.0)
    with pytest.raises(UserError, match="cache.limit"):
        make_room(tmp_path, own.bytes(), 0, keep=own.folder)
    assert used.folder.exists()
    forget_use(used)
    assert [f.path for f in make_room(tmp_path, own.bytes(), 0, keep=own.folder)] == [used.folder]


def test_limit_holds_while_filling_and_says_so_early(tmp_path: Path, small_shards: None) -> None:
    old = filled(tmp_path, 0, 100.0)
    forget_use(old)
    size = 4 * sum(3 * 8 + (5 + i) * 8 for i in range(12))
    cache, compute = FeatureCache(tmp_path, {}, limit=size / 2), Counting()
    with pytest.raises(UserError, match="cache.dtype=fp16"):
        cache.fill(AUDIO, compute)
    assert len(compute.paths) < 6  # at the first shard it was clear that the rest would not fit
    assert not old.folder.exists()
    room = FeatureCache(tmp_path, {}, limit=3 * size)
    room.fill(AUDIO, make)
    assert room.missing(NAMES) == []


def test_list_and_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = filled(tmp_path, 0, 100.0), filled(tmp_path, 1, 200.0)
    forget_use(first)
    arguments = ["--dir", str(tmp_path)]
    assert command([*arguments, "list"]) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if "upstream" in line}
    row = lines[first.folder.name[:8]]
    assert row[1] == "upstream0" and "fp32" in row and "4" in row
    assert "in use" not in " ".join(row)
    assert lines[second.folder.name[:8]][-2:] == ["in", "use"]
    assert command([*arguments, "clean", "zzz"]) == 2
    assert "unknown cache" in capsys.readouterr().err
    assert command([*arguments, "clean"]) == 0
    assert [f.path for f in folders(tmp_path)] == [second.folder]
    forget_use(second)
    assert command([*arguments, "clean", "--keep-gb", "1"]) == 0
    assert second.folder.exists()
    assert command([*arguments, "clean", second.folder.name[:6]]) == 0
    assert folders(tmp_path) == []


def test_key_file_is_readable(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {"start": 3, "weights": "ab"}, "bf16", name="hubert")
    key = json.loads((cache.folder / "key.json").read_text())
    assert key["start"] == 3 and key["dtype"] == "bf16" and key["name"] == "hubert"
