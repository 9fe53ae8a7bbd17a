"""Extraction in batches, decoding ahead, batches in flight: same numbers, nothing held twice."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.feature_cache import excerpts, extracting, frozen
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.excerpts import Excerpt
from emopeft.downstream.feature_cache.extracting import AHEAD, Extraction, decoded
from emopeft.downstream.feature_cache.frozen import cache_key, frozen_item, frozen_items
from emopeft.downstream.feature_cache.store import FeatureCache
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM
from emopeft.upstream.states import HiddenStates
from tests.feature_cache.test_cache_equivalence import examples_of, wave_files
from tests.tiny import tiny

COUNT = 9
STARTS = [FROM_WAVEFORM, FROM_FEATURES, 0, 1, 3]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Noise of 0.3 to 0.7 s."""
    return [path for path, *_ in wave_files(tmp_path, COUNT)]


def same(one: Batch, other: Batch) -> bool:
    pairs = list(zip(one.tensors(), other.tensors(), strict=True))
    return len(one.start_inputs) == len(other.start_inputs) and all(
        torch.equal(a, b) for a, b in pairs
    )


def difference(one: Batch, other: Batch) -> float:
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)


# ---- keys -----------------------------------------------------------------------------------


def test_key_sees_library_code_and_numerics(monkeypatch: pytest.MonkeyPatch) -> None:
    """REVIEW A21: neither transformers' version nor a revision of our own code was in the key."""
    upstream = tiny("hubert_base_like")
    keys = [cache_key(upstream, 1, True)]
    bf16 = Numerics(frozen="bf16")
    keys.append(cache_key(upstream, 1, True, numerics=bf16.describe_frozen()))
    keys.append(cache_key(upstream, 1, True, numerics=Numerics().describe_frozen()))
    upstream.code = "2"
    keys.append(cache_key(upstream, 1, True))
    monkeypatch.setattr(frozen.importlib.metadata, "version", lambda name: f"{name} 99")
    keys.append(cache_key(upstream, 1, True))
    upstream.loader = "s3prl"
    keys.append(cache_key(upstream, 1, True))
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])
    # What trains does not touch what is frozen.
    one, other = Numerics(precision="bf16", deterministic=True), Numerics()
    assert one.describe_frozen() == other.describe_frozen()


def test_the_frozen_part_has_its_own_precision(paths: list[Path], tmp_path: Path) -> None:
    """REVIEW A13: with the cache off it was computed in the precision of the training."""
    upstream = tiny("hubert_base_like")
    bf16 = Numerics(frozen="bf16")
    for numerics in (Numerics(), bf16):
        made = []
        for enabled in (True, False):
            with torch.autocast("cpu", torch.bfloat16):
                examples = examples_of(
                    upstream, 2, True, paths, tmp_path, numerics=numerics, enabled=enabled
                )
                made.append(examples.batch([4], "cpu"))
        assert difference(*made) < 1e-5
        exact = examples_of(upstream, 2, True, paths, tmp_path).batch([4], "cpu")
        assert (difference(made[0], exact) > 1e-4) == (numerics is bf16)


# ---- batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hubert_base_like", "wavlm_large_like", "whisper", "moonshine"])
@pytest.mark.parametrize("pooled", [True, False])
def test_batches_give_what_single_clips_give(
    paths: list[Path], tmp_path: Path, name: str, pooled: bool
) -> None:
    upstream = tiny(name)
    for start in (FROM_FEATURES, 0, 1, upstream.num_blocks):
        alone = examples_of(upstream, start, pooled, paths, tmp_path / "alone")
        batched = examples_of(
            upstream, start, pooled, paths, tmp_path / "batched", batch_seconds=2.0
        )
        indices = list(range(COUNT))
        assert difference(alone.batch(indices, "cpu"), batched.batch(indices, "cpu")) < 2e-5
        assert "batched" not in alone.facts()
        facts = batched.facts()["batched"]
        assert facts["seconds"] == 2.0 and 0 <= facts["difference"] < 1e-5
        # The record says so whoever filled the cache.
        again = examples_of(upstream, start, pooled, paths, tmp_path / "batched")
        assert again.facts()["batched"] == facts


def test_on_a_cpu_it_is_one_clip_at_a_time_to_the_bit(paths: list[Path], tmp_path: Path) -> None:
    upstream = tiny("hubert_base_like")
    examples = examples_of(upstream, 2, True, paths, tmp_path)
    assert examples.cache is not None
    for i, path in enumerate(paths):
        wav = torch.from_numpy(decode(path, 16000))
        states, kept = upstream.prefix(2, [wav])[1].means()[0], upstream.prefix(2, [wav])[0][0]
        stored = examples.cache.get(examples.names()[i])
        assert torch.equal(stored[0], states)
        assert stored[1] is not None and torch.equal(stored[1], kept)


def extraction(upstream: Any, paths: Sequence[Path], batch_seconds: float, **more: Any):
    names = [f"{i:064x}" for i in range(len(paths))]
    clips = {
        name: Excerpt(name, path, 0.3 + 0.05 * i)
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    }
    return names, Extraction(upstream, 1, True, clips, batch_seconds=batch_seconds, **more)


def test_groups_keep_the_budget_with_padding_and_windows(paths: list[Path]) -> None:
    for upstream, longest in (
        (tiny("hubert_base_like"), None),
        (tiny("whisper", window="30s"), 30),
    ):
        for budget in (0.0, 1.0, 2.0, 95.0):
            names, extract = extraction(upstream, paths, budget)
            groups = extract.groups(names)
            assert sorted(name for group in groups for name in group) == names
            for group in groups:
                cost = longest or max(extract.excerpts[name].seconds for name in group)
                assert len(group) == 1 or cost * len(group) <= budget + 0.05
            if budget == 95.0:
                assert len(groups) == (3 if longest else 1)
            if budget == 0:
                assert groups == [[name] for name in names]


def test_a_batch_that_does_not_fit_is_halved(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = tiny("hubert_base_like")
    sizes: list[int] = []

    def small(upstream: Any, start: int, pooled: bool, wavs: Sequence[Tensor]) -> Any:
        sizes.append(len(wavs))
        if len(wavs) > most:
            raise torch.OutOfMemoryError("no room")
        return frozen_items(upstream, start, pooled, wavs)

    monkeypatch.setattr(extracting, "frozen_items", small)
    names, extract = extraction(upstream, paths, 100.0)
    most = 2
    made = {m.name: m for m in extract(names)}
    assert set(made) == set(names) and sizes[0] == COUNT and max(sizes[1:]) < COUNT
    for i, name in enumerate(names):
        wav = torch.from_numpy(decode(paths[i], 16000))
        assert torch.allclose(made[name].item[0], frozen_item(upstream, 1, True, wav)[0], atol=1e-5)
    most = 0
    with pytest.raises(UserError, match="clip0.*wav.*does not fit into the memory of cpu"):
        list(extract(names))


def test_nan_names_the_clip(paths: list[Path]) -> None:
    upstream = tiny("hubert_base_like")
    with torch.no_grad():
        next(upstream.blocks[0].parameters()).fill_(float("nan"))
    names, extract = extraction(upstream, paths, 2.0)
    with pytest.raises(UserError, match=r"gives NaN or infinity for .*clip\d+.wav"):
        list(extract(names))


def noting(seen: list[Path]) -> Any:
    """`decode` that notes what it is given."""

    def note(path: Path, rate: int) -> Any:
        seen.append(path)
        return decode(path, rate)

    return note


def noting_groups(seen: list[Path]) -> Any:
    """`decoded` that notes which clips it is given."""

    def note(groups: list[list[str]], clips: dict[str, Excerpt]) -> Any:
        seen.extend(clips[name].path for group in groups for name in group)
        return decoded(groups, clips)

    return note


def test_decoding_goes_ahead_but_not_far(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(excerpts, "decode", noting(seen))
    names = [str(i) for i in range(COUNT)]
    clips = {n: Excerpt(n, path, 1.0) for n, path in zip(names, paths, strict=True)}
    groups = decoded([[name] for name in names], clips)
    group, wavs = next(groups)
    deadline = time.monotonic() + 10
    while len(seen) < AHEAD and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert group == ["0"] and len(wavs) == 1 and len(seen) == AHEAD
    groups.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name]
    paths[2].write_text("no audio")
    with pytest.raises(UserError, match=str(paths[2])):
        list(decoded([[name] for name in names], clips))


def test_from_a_lower_cache_nothing_is_decoded(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = tiny("hubert_base_like")
    for budget in (0.0, 2.0):
        root = tmp_path / str(budget)
        examples_of(upstream, FROM_FEATURES, True, paths[:-1], root, batch_seconds=budget)
        wanted = examples_of(upstream, 2, True, paths, tmp_path / "direct")
        seen: list[Path] = []
        with monkeypatch.context() as patch:
            patch.setattr(extracting, "decoded", noting_groups(seen))
            found = examples_of(upstream, 2, True, paths, root, batch_seconds=budget)
        assert seen == [paths[-1]]  # which the lower cache lacks
        indices = list(range(COUNT))
        assert difference(found.batch(indices, "cpu"), wanted.batch(indices, "cpu")) < 2e-5


# ---- devices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [True, False])
def test_everything_is_on_the_device_of_the_waveform(pooled: bool) -> None:
    """REVIEW B: for a method that starts at block 0, a CPU tensor was joined to a CUDA one."""

    def prefix(start: int, wavs: Sequence[Tensor]) -> tuple[list[Tensor], HiddenStates]:
        return list(wavs), HiddenStates([], torch.tensor([]))

    upstream: Any = SimpleNamespace(prefix=prefix, width=8)
    states, kept = frozen_item(upstream, 0, pooled, torch.zeros(400, device="meta"))
    assert states.device.type == "meta" and kept is not None and kept.device.type == "meta"
    assert states.shape == ((0, 8) if pooled else (0, 0, 8))


# ---- batches in flight ------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("start", STARTS)
def test_prefetched_batches_are_the_batches(
    paths: list[Path], tmp_path: Path, start: int, pooled: bool, enabled: bool
) -> None:
    upstream = tiny("hubert_base_like")
    examples = examples_of(upstream, start, pooled, paths, tmp_path, enabled=enabled)
    examples.targets = torch.arange(COUNT, dtype=torch.float64)[:, None]
    for groups in ([], [[3]], [[3, 1], [2]], [[0], [1, 2], [5, 4, 3], [8], [7]]):
        found = list(examples.prefetch(groups, "cpu"))
        assert len(found) == len(groups)
        for group, batch in zip(groups, found, strict=True):
            assert batch.targets.flatten().tolist() == group
            assert same(batch, examples.batch(group, "cpu"))
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_the_next_batch_is_in_flight_and_only_that(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of(tiny("hubert_base_like"), 1, True, paths, tmp_path)
    read: list[tuple[int, str]] = []
    inner = examples._read

    def note(indices: Sequence[int]) -> Batch:
        read.append((indices[0], threading.current_thread().name))
        return inner(indices)

    monkeypatch.setattr(examples, "_read", note)
    batches = examples.prefetch([[i] for i in range(COUNT)], "cpu")
    next(batches)
    deadline = time.monotonic() + 10
    while len(read) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert [i for i, _ in read] == [0, 1, 2]
    assert all(name.startswith("prefetch") for _, name in read)
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_what_the_thread_cannot_read_is_raised_to_who_asks(
    paths: list[Path], tmp_path: Path
) -> None:
    examples = examples_of(tiny("hubert_base_like"), 1, True, paths, tmp_path, enabled=False)
    paths[2].write_text("no audio")
    batches = examples.prefetch([[0], [1], [2]], "cpu")
    assert len(next(batches).start_inputs) == len(next(batches).start_inputs) == 1
    with pytest.raises(UserError, match=str(paths[2])):
        next(batches)


# ---- memory -----------------------------------------------------------------------------------


def test_means_are_in_memory_once(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW C9: all means of a probe were held as they are read and once more as they are used."""
    monkeypatch.setattr("emopeft.downstream.feature_cache.store.SHARD_BYTES", 1)
    upstream = tiny("hubert_base_like")
    alive: list[weakref.ref] = []
    most: list[int] = []
    opened: list[int] = []
    inner = FeatureCache.get

    def watch(self: FeatureCache, audio: str) -> Any:
        most.append(sum(ref() is not None for ref in alive))
        opened.append(len(self._open))
        item = inner(self, audio)
        alive.append(weakref.ref(item[0]))
        return item

    monkeypatch.setattr(FeatureCache, "get", watch)
    examples = examples_of(upstream, upstream.num_blocks, True, [*paths, paths[0]], tmp_path)
    assert len(most) >= COUNT and max(most) <= 2 and max(opened) <= 1
    monkeypatch.setattr(FeatureCache, "get", inner)
    assert examples.preloaded is not None and examples.cache is not None
    wanted = torch.stack([examples.cache.get(n)[0] for n in examples.names()])
    assert torch.equal(examples.preloaded, wanted) and len(wanted) == COUNT + 1
