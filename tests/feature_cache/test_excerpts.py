"""Longer clips as crops and segments: what is taken, what is kept of it, and what it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.data.keys import CacheKeys, ClipKeys
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.feature_cache.excerpts import Span, drawn, rows_of, spans
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.model import AdaptedModel
from tests.feature_cache.test_cache_equivalence import wave_files
from tests.tiny import tiny

SECOND = 16000
CROP = ClipKeys("crop", 2.0)
RANDOM = ClipKeys("crop", 2.0, 5)
SEGMENTS = ClipKeys("segments", 2.0)


@pytest.mark.parametrize(
    ("keys", "seconds", "training", "starts"),
    [
        (ClipKeys(), 60.0, True, []),
        (CROP, 2.0, True, []),
        (CROP, 3.0, True, [[0]]),
        (RANDOM, 2.0, True, []),
        (RANDOM, 4.0, True, [[0], [8000], [16000], [24000], [32000]]),
        (RANDOM, 4.0, False, [[0]]),
        (RANDOM, 2 + 2 / SECOND, True, [[0], [1], [2]]),  # no more starts than samples
        (SEGMENTS, 2.0, True, []),
        (SEGMENTS, 2.5, True, [[0, 8000]]),
        (SEGMENTS, 4.0, False, [[0, 32000]]),
        (SEGMENTS, 4.5, False, [[0, 20000, 40000]]),
    ],
)
def test_where_stretches_begin(
    keys: ClipKeys, seconds: float, training: bool, starts: list[list[int]]
) -> None:
    found = spans(keys, seconds, training)
    assert [[span.start for span in way] for way in found] == starts
    for way in found:
        assert all(span.length == 2 * SECOND for span in way)
        assert all(span.start + span.length <= round(seconds * SECOND) for span in way)
        if keys.mode == "segments":  # nothing of the clip is left out
            ends = [span.start + span.length for span in way]
            assert ends[-1] == round(seconds * SECOND)
            assert all(b.start <= end for end, b in zip(ends, way[1:], strict=False))


def test_a_clip_that_is_not_longer_shares_its_frozen_part_with_every_run(tmp_path: Path) -> None:
    for keys in (ClipKeys(), CROP, SEGMENTS):
        ((excerpt,),) = rows_of(keys, tmp_path, "ab" * 32, 1.5)
        assert (excerpt.name, excerpt.span, excerpt.seconds) == ("ab" * 32, None, 1.5)
    names = [e.name for row in rows_of(RANDOM, tmp_path, "ab" * 32, 4.0, True) for e in row]
    (segments,) = rows_of(SEGMENTS, tmp_path, "ab" * 32, 4.0)
    assert len(set(names)) == 5 and "ab" * 32 not in names
    # The same stretch of the same audio, whatever it is for.
    assert [e.name for e in segments] == [names[0], names[4]]
    assert rows_of(CROP, tmp_path, "cd" * 32, 4.0)[0][0].name not in names


def test_an_epoch_draws_by_seed_and_number_alone() -> None:
    ways = [[0], [1, 10, 11, 12], [2, 20, 21, 22]] * 300
    first = drawn(ways, seed=0, epoch=0)
    assert first == drawn(ways, 0, 0)
    assert first != drawn(ways, 0, 1) and first != drawn(ways, 1, 0)
    assert all(row in way for row, way in zip(first, ways, strict=True))
    shares = torch.bincount(torch.tensor(first))[[1, 10, 11, 12]] / 300
    assert shares.min() > 0.17 and shares.max() < 0.33  # 0.25, three deviations
    assert drawn([[3], [5]], 0, 0) == [3, 5]


def test_a_span_reads_its_samples(tmp_path: Path) -> None:
    path = next(p for p, *_ in wave_files(tmp_path, 1))
    whole = torch.from_numpy(decode(path, SECOND))
    assert torch.equal(Span(100, 50).of(whole), whole[100:150])
    ((first, last),) = rows_of(
        ClipKeys("segments", len(whole) / SECOND * 0.6), path, "ab" * 32, len(whole) / SECOND
    )
    assert torch.equal(torch.cat([first.read()[: last.span.start], last.read()]), whole)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_outputs_are_the_mean_of_the_segments(tmp_path: Path, start: int) -> None:
    """From the cache, made on the way, and segment by segment by hand: one number."""
    upstream = tiny("hubert_base_like")
    keys = ClipKeys("segments", 0.25)
    paths = [p for p, *_ in wave_files(tmp_path, 3)]
    rows = [
        rows_of(keys, p, f"{i:064x}", soundfile.info(p).duration)[0] for i, p in enumerate(paths)
    ]
    assert max(len(row) for row in rows) > 1
    head = make_head("superb", width=upstream.width, states=4, outputs=3, hidden=8)
    model = AdaptedModel(upstream, head, start).eval()
    places = list(range(len(rows)))
    found = []
    for enabled in (True, False):
        examples = Examples.prepare(
            upstream, start, True, rows, torch.zeros(len(rows), 1), tmp_path / "cache",
            CacheKeys(enabled=enabled),
        )  # fmt: skip
        assert examples.seconds == pytest.approx([sum(e.seconds for e in row) for row in rows])
        found.append(model(examples.batch(places, "cpu")))
        shuffled = model(examples.batch([2, 0, 2], "cpu"))
        assert torch.allclose(shuffled, found[-1][[2, 0, 2]], atol=1e-6)
    none = torch.empty(0)
    by_hand = torch.stack(
        [
            torch.stack([head(upstream([e.read()]).means(), none)[0] for e in r]).mean(0)
            for r in rows
        ]
    )
    for outputs in found:
        assert torch.allclose(outputs, by_hand, atol=1e-5)


def test_a_batch_of_one_input_each_is_left_alone() -> None:
    outputs = torch.randn(3, 2)
    assert Batch([], [], torch.zeros(3, 1)).averaged(outputs) is outputs
    owners = torch.tensor([0, 0, 1])
    mean = Batch([], [], torch.zeros(2, 1), owners).averaged(outputs)
    assert torch.equal(mean, torch.stack([(outputs[0] + outputs[1]) / 2, outputs[2]]))
