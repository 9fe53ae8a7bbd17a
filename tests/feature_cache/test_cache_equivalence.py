"""Trained from what is kept or from the waveform: same losses, same predictions; nothing twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import run_downstream
from emopeft.downstream.data.keys import CacheKeys, TrainKeys
from emopeft.downstream.feature_cache import extracting
from emopeft.downstream.feature_cache.batch import Batch
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.feature_cache.excerpts import Excerpt
from emopeft.downstream.feature_cache.frozen import (
    cache_key,
    continued_item,
    continued_items,
    frozen_item,
    frozen_items,
    part_digests,
)
from emopeft.downstream.feature_cache.live import Live
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.heads.superb import SuperbHead
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.training.memory import save_memory_and_time
from emopeft.numerics import Numerics
from emopeft.peft_modules.apply import adapt
from emopeft.upstream.base import FROM_FEATURES, FROM_WAVEFORM
from emopeft.upstream.states import mask_of
from tests.shared import SHARED, needs_shared
from tests.tiny import tiny

# ---- the exact collapse ---------------------------------------------------------------------


def on_frames(head: SuperbHead, layers: list[torch.Tensor], lengths: torch.Tensor) -> torch.Tensor:
    """SUPERB's head as s3prl computes it: on every frame, then the mean over the valid ones."""
    assert head.featurizer.weights is not None
    weights = torch.softmax(head.featurizer.weights, 0)
    frames = sum(w * x for w, x in zip(weights, layers, strict=True))
    frames = torch.nn.functional.linear(frames, head.projector.weight, head.projector.bias)
    rows = []
    for i, length in enumerate(lengths.tolist()):
        rows.append(frames[i, :length].sum(0) / length)
    return torch.nn.functional.linear(
        torch.stack(rows), head.classifier.weight, head.classifier.bias
    )


def test_head_on_time_means_is_the_head_on_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    head = make_head("superb", width=24, states=5, outputs=4, hidden=16).double()
    assert isinstance(head, SuperbHead)
    torch.nn.init.normal_(head.featurizer.weights, generator=generator)
    lengths = torch.tensor([40, 7, 23])
    layers = [torch.randn(3, 40, 24, generator=generator, dtype=torch.float64) for _ in range(5)]
    mask = mask_of(lengths, 40).unsqueeze(-1)
    means = torch.stack([(x * mask).sum(1) / lengths[:, None] for x in layers], dim=1)
    difference = head(means, lengths) - on_frames(head, layers, lengths)
    assert difference.abs().max() < 1e-13


@needs_shared
def test_head_on_time_means_is_the_head_on_frames_of_real_states() -> None:
    upstream = real_upstream()
    wavs = [torch.from_numpy(soundfile.read(p, dtype="float32")[0]) for p, *_ in real_clips()[:3]]
    with torch.no_grad():
        hidden = upstream(wavs)
        head = make_head("superb", width=upstream.width, states=len(hidden.layers), outputs=8)
        assert isinstance(head, SuperbHead)
        wanted = on_frames(head, hidden.layers, hidden.lengths)
        assert (head(hidden.means(), hidden.lengths) - wanted).abs().max() < 1e-5


# ---- keys -----------------------------------------------------------------------------------


def test_key_sees_all_that_decides_the_kept_part() -> None:
    keys = {}
    plain = tiny("hubert_base_like")
    for name, upstream, start, pooled in (
        ("plain", plain, 2, True),
        ("start", plain, 1, True),
        ("frames", plain, 2, False),
        ("features", plain, FROM_FEATURES, True),
        ("everything", plain, 3, True),
        ("other weights", tiny("hubert_large_like"), 2, True),
    ):
        keys[name] = cache_key(upstream, start, pooled)
    window = tiny("whisper"), tiny("whisper", window="30s")
    keys |= {f"window {u.options['window']}": cache_key(u, 1, True) for u in window}
    changed = tiny("hubert_base_like")
    with torch.no_grad():
        next(changed.blocks[1].parameters()).add_(1)  # as after a first stage of training
    keys["changed below"] = cache_key(changed, 2, True)
    texts = [json.dumps(k, sort_keys=True) for k in keys.values()]
    assert len(set(texts)) == len(keys)
    # A change above the start is none, nor is the patch that trains there; frames or means do not
    # matter where no state lies below, nor the upstream where waveforms are kept.
    assert cache_key(changed, 1, True) == keys["start"]
    adapted = adapt(tiny("hubert_base_like"), "lora:blocks=last:1", prove=False).upstream
    assert cache_key(adapted, 2, True) == keys["plain"]
    assert cache_key(plain, 0, True) == cache_key(plain, 0, False)
    waveforms = [cache_key(u, FROM_WAVEFORM, True) for u in (plain, window[0])]
    assert waveforms[0] == waveforms[1]


def test_methods_that_patch_elsewhere_share_a_prefix() -> None:
    specs = ("lora", "lora:targets=fc1", "bitfit" if "bitfit" in methods() else "lora:r=2")
    upstreams = [adapt(tiny("wavlm"), spec, prove=False).upstream for spec in specs]
    digests = {tuple(part_digests(u)[:1]) for u in upstreams}
    assert len(digests) == 1


def methods() -> list[str]:
    from emopeft.peft_modules.base import METHODS

    return list(METHODS)


# ---- kept, continued, live ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hubert_base_like", "wavlm_large_like", "whisper", "moonshine"])
@pytest.mark.parametrize("pooled", [True, False])
def test_continuing_from_a_lower_cache_is_exact(name: str, pooled: bool) -> None:
    upstream = tiny(name)
    wav = torch.randn(9000, generator=torch.Generator().manual_seed(0)) * 0.1
    device = torch.device("cpu")
    last = upstream.num_blocks
    for low in range(FROM_FEATURES, last):
        lower = frozen_item(upstream, low, pooled, wav)
        for start in range(max(low + 1, 1), last + 1):
            states, kept = continued_item(upstream, low, lower, start, pooled, device)
            wanted = frozen_item(upstream, start, pooled, wav)
            assert torch.equal(states, wanted[0])
            assert (kept is None) == (wanted[1] is None)
            assert kept is None or torch.equal(kept, wanted[1])


def wave_files(folder: Path, count: int = 12) -> list[tuple[Path, str, str]]:
    """Noise of three colours with three labels: (path, label, session)."""
    generator = np.random.default_rng(0)
    found = []
    for i in range(count):
        noise = generator.standard_normal(int(16000 * (0.3 + 0.05 * i))) * 0.1
        label = i % 3
        for _ in range(label):
            noise = np.convolve(noise, [0.5, 0.5], mode="same")
        path = folder / f"clip{i:02}.wav"
        soundfile.write(path, noise, 16000)
        found.append((path, "abc"[label], str(i // 3 % 4)))
    return found


def manifest(folder: Path, rows: list[tuple[Path, str, str]], **split: str) -> Path:
    """A corpus of one's own; ``split`` maps sessions to sides where the folds are the user's."""
    path = folder / "clips.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "speaker", "label", "session", "split"])
        for clip, label, session in rows:
            side = split.get(f"s{session}", "")
            writer.writerow([clip.stem, clip, f"speaker{session}", label, session, side])
    return path


def examples_of(
    upstream,
    start: int,
    pooled: bool,
    paths: list[Path],
    root: Path,
    numerics: Numerics | None = None,
    batch_seconds: float | None = None,
    **keys,
) -> Examples:
    return Examples.prepare(
        upstream, start, pooled, [(e,) for e in excerpts_of(paths)], torch.zeros(len(paths), 1),
        root, CacheKeys(**keys), numerics, batch_seconds,
    )  # fmt: skip


def excerpts_of(paths: list[Path]) -> list[Excerpt]:
    """Whole clips, each under a name of its own."""
    return [
        Excerpt(f"{i:064x}", path, soundfile.info(path).duration) for i, path in enumerate(paths)
    ]


def live_batch(live: Live, paths: list[Path]) -> Batch:
    """All of some clips as one batch, nothing kept."""
    wavs = [live.wav(e) for e in excerpts_of(paths)]
    return live.inputs(Batch([], wavs, torch.zeros(len(wavs), 1)))


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("start", [FROM_WAVEFORM, FROM_FEATURES, 0, 1, 3])
def test_batches_with_and_without_a_cache_are_equal(
    tmp_path: Path, start: int, pooled: bool
) -> None:
    paths = [p for p, *_ in wave_files(tmp_path, 4)]
    upstream = tiny("hubert_base_like")
    head = make_head(
        "superb" if pooled else "conv", width=upstream.width, states=4, outputs=3, hidden=8
    )
    model = AdaptedModel(upstream, head, start).eval()
    kept = examples_of(upstream, start, pooled, paths, tmp_path)
    again = examples_of(upstream, start, pooled, paths, tmp_path)
    live = examples_of(upstream, start, pooled, paths, tmp_path, enabled=False)
    with torch.no_grad():
        outputs = [model(e.batch([2, 0, 3], "cpu")) for e in (kept, again, live)]
    assert torch.equal(outputs[0], outputs[1])
    assert (outputs[0] - outputs[2]).abs().max() < 1e-5
    assert kept.stored_bytes() > 0 and kept.frozen_seconds() > 0
    assert live.stored_bytes() == 0 and live.facts()["why"] == "cache.enabled=false"


def test_drift_of_a_short_format_is_measured_and_recorded(tmp_path: Path) -> None:
    paths = [p for p, *_ in wave_files(tmp_path, 4)]
    upstream = tiny("hubert_base_like")
    exact = examples_of(upstream, 1, True, paths, tmp_path)
    short = examples_of(upstream, 1, True, paths, tmp_path, dtype="bf16")
    assert exact.drift is None and "drift" not in exact.facts()
    drift = short.facts()["drift"]
    assert 1e-4 < drift["stored_mean"] <= drift["stored_max"] < 4e-3
    assert 0 < drift["state_means"] < 4e-3
    assert 2 * short.stored_bytes() == exact.stored_bytes()


# ---- no wasted backward ---------------------------------------------------------------------


def saved_bytes(function) -> int:
    """Bytes of the tensors that autograd keeps for backward while ``function`` runs."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(kept.values())


@pytest.mark.parametrize("spec", ["lora:blocks=last:1", "partial:1"])
def test_nothing_is_kept_for_backward_below_what_trains(tmp_path: Path, spec: str) -> None:
    paths = [p for p, *_ in wave_files(tmp_path, 3)]
    adaptation = adapt(tiny("hubert_large_like"), spec)
    upstream, start = adaptation.upstream, adaptation.start
    assert start == upstream.num_blocks - 1
    head = make_head("superb", width=upstream.width, states=4, outputs=3, hidden=8)
    model = AdaptedModel(upstream, head, start).train()
    live = Live(upstream, start, True)
    batches = []
    assert (
        saved_bytes(lambda: batches.append(live_batch(live, paths[:3]))) == 0
    )  # the front end in train mode included (trap 4)
    batch = batches[0]
    assert not any(x.requires_grad for x in batch.start_inputs)
    ran: list[int] = []
    inner = upstream.run_block
    upstream.run_block = lambda i, *rest: ran.append(i) or inner(i, *rest)  # type: ignore[method-assign,func-returns-value]
    from_cache = saved_bytes(lambda: model(batch).sum().backward())
    assert ran == [start]
    assert all(p.grad is None for p in upstream.parameters() if not p.requires_grad)
    # As the ordinary way keeps: everything from the waveform on, once for every block.
    for parameter in upstream.parameters():
        parameter.requires_grad_(True)
    wavs = [live.wav(e) for e in excerpts_of(paths[:3])]
    everything = saved_bytes(lambda: upstream(wavs).layers[-1].sum().backward())
    assert from_cache < everything / 2


def test_checkpointing_keeps_less_and_changes_nothing(tmp_path: Path) -> None:
    paths = [p for p, *_ in wave_files(tmp_path, 3)]
    gradients, kept = [], []
    for checkpointing in (False, True):
        adaptation = adapt(tiny("hubert_base_like"), "partial:2", prove=False)
        torch.manual_seed(0)
        head = make_head("superb", width=32, states=4, outputs=3, hidden=8)
        model = AdaptedModel(adaptation.upstream, head, adaptation.start).train()
        save_memory_and_time(model, TrainKeys(checkpointing=checkpointing))
        live = Live(adaptation.upstream, adaptation.start, True)
        batch = live_batch(live, paths[:3])
        kept.append(saved_bytes(lambda model=model, batch=batch: model(batch).sum().backward()))
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert kept[1] < kept[0]
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


# ---- whole runs -----------------------------------------------------------------------------


def run(out: Path, name: str, *arguments: object) -> dict[str, list[float]]:
    """Run a command line; the scores of every test utterance."""
    status = run_downstream.main(
        [*map(str, arguments), "-d", "emotion", "--corpus", "manifest", "--out", str(out),
         "-n", name, "-o", f"cache.dir={out / 'cache'}"]
    )  # fmt: skip
    assert status == 0
    scores = {}
    for path in sorted((out / name).glob("fold*/predictions.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                numbers = [float(v) for k, v in row.items() if k.startswith("score")]
                scores[f"{path.parent.name} {row['id']}"] = numbers
    assert scores and all(scores.values())
    return scores


def test_sweep_touches_the_frozen_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = wave_files(tmp_path)
    data = manifest(tmp_path, clips)
    calls: dict[str, list[int]] = {"from audio": [], "continued": []}

    def counting(kind: str, inner):
        def count(upstream, start, *rest, **more):
            made = inner(upstream, start, *rest, **more)
            calls[kind] += [start] * len(made)
            return made

        return count

    monkeypatch.setattr(extracting, "frozen_items", counting("from audio", frozen_items))
    monkeypatch.setattr(extracting, "continued_items", counting("continued", continued_items))
    for number, method in enumerate(("lora", "lora+ws", "wg", "ba+wg", "none", "ws", "partial:1")):
        run(tmp_path / "runs", f"run{number}", "-u", "demo", "-p", method, "--data", data,
            "--protocol", "manifest-sessions", "--seed", "0,1", "--fold", "1,3",
            "-o", "train.epochs=1")  # fmt: skip
    # 7 methods x 2 seeds x 2 folds that see all clips: the audio of each went through the frozen
    # layers once ...
    assert len(calls["from audio"]) == len(clips)
    # ... and on from there once per place where training starts: the end, and the last block.
    assert len(calls["continued"]) == 2 * len(clips)
    capsys.readouterr()


def real_upstream():
    from emopeft.upstream.catalogue import load

    assert SHARED is not None
    return load("whisper_tiny.en", SHARED / "models" / "whisper-tiny.en-encoder")


def real_clips() -> list[tuple[Path, str, str]]:
    """RAVDESS: actors 1, 2 and 3, angry, sad and happy: (path, label, actor)."""
    assert SHARED is not None
    chosen = []
    for path in sorted((SHARED / "data" / "ravdess").rglob("03-01-*.flac")):
        parts = path.stem.split("-")
        if parts[2] in ("03", "04", "05") and parts[3] == "02" and parts[6] in ("01", "02", "03"):
            chosen.append((path, parts[2], parts[6].lstrip("0")))
    return chosen


@needs_shared
@pytest.mark.parametrize("method", ["none", "lora"])
def test_cache_on_and_off_predict_the_same_on_ravdess(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = real_clips()
    assert len(clips) == 36
    data = manifest(tmp_path, clips, s1="train", s2="dev", s3="test")
    assert SHARED is not None
    scores, losses = [], []
    for name, enabled in (("on", "true"), ("off", "false")):
        scores.append(
            run(
                tmp_path / "runs", name, "-u", "whisper_tiny.en", "-p", method, "--data", data,
                "--upstream-path", SHARED / "models" / "whisper-tiny.en-encoder",
                "--protocol", "manifest-split", "-o", "train.epochs=2", "-o", "train.lr=0.001",
                "-o", "train.batch_size=6", "-o", f"cache.enabled={enabled}",
            )
        )  # fmt: skip
        (fold,) = (tmp_path / "runs" / name).glob("fold*/fold.json")
        (stage,) = json.loads(fold.read_text())["stages"]
        losses.append([e["loss"] for e in stage["result"]["history"]])
    capsys.readouterr()
    assert scores[0].keys() == scores[1].keys() and len(scores[0]) == 12
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]  # it did train
    on, off = (torch.tensor(list(s.values())) for s in scores)
    assert (on - off).abs().max() < 2e-3
    assert on.argmax(1).equal(off.argmax(1))
