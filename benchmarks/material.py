"""What the benchmarks run on: real speech where it is there, and a HuBERT of base size.

Its weights are random: speed does not depend on them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.data.recipe import CacheKeys
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.upstream.base import SAMPLE_RATE, Upstream
from emopeft.upstream.catalogue import UPSTREAMS

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("neutral", "happy", "angry", "sad")
BATCH = 8


def speech_files() -> tuple[str, list[Path]]:
    """RAVDESS where it is there, else the demo corpus, made on the spot."""
    shared = Path(os.environ.get("EMOPEFT_SHARED") or ROOT.parent / "shared")
    found = sorted((shared / "data" / "ravdess").rglob("*.flac"))
    if found:
        return "RAVDESS", found
    from emopeft.downstream.corpora.demo import synthesise

    folder = Path(tempfile.gettempdir()) / "emopeft-benchmark-demo"
    if not folder.is_dir():
        synthesise(folder)
    return "demo", sorted(folder.rglob("*.wav"))


def waveforms(count: int, seconds: float | None) -> list[Tensor]:
    """Clips (samples,) spread over the corpus, cut or repeated to a length (None: as they are)."""
    files = speech_files()[1]
    chosen = [files[i * len(files) // count % len(files)] for i in range(count)]
    wavs = [torch.from_numpy(decode(path, SAMPLE_RATE)) for path in chosen]
    if seconds is None:
        return wavs
    size = int(seconds * SAMPLE_RATE)
    return [w.repeat(-(-size // len(w)))[:size].contiguous() for w in wavs]


def labels_of(count: int) -> list[int]:
    """Some classes."""
    return [(i * 7 + i // 5) % len(CLASSES) for i in range(count)]


def plain_hubert() -> Any:
    """transformers' HubertModel of base size, as its defaults make it."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    return HubertModel(HubertConfig())


def hubert() -> Upstream:
    """The same as an Upstream of ours."""
    from emopeft.upstream.hub import FAMILIES

    list(UPSTREAMS)
    upstream = FAMILIES["hubert"].wrap(plain_hubert(), {})
    upstream.name = "hubert_base (random weights)"
    return upstream.seal()


def examples(
    upstream: Upstream, start: int, wavs: list[Tensor], folder: Path, keys: CacheKeys
) -> Examples:
    """Waveforms as training examples; each counts as a file of its own."""
    import soundfile

    paths = []
    for i, wav in enumerate(wavs):
        paths.append(folder / f"clip{i:05}.wav")
        soundfile.write(paths[-1], wav.numpy(), SAMPLE_RATE, subtype="FLOAT")
    utterances: list[Any] = [SimpleNamespace(id=p.stem, path=p) for p in paths]
    seconds = [len(w) / SAMPLE_RATE for w in wavs]
    names = [f"{i:064x}" for i in range(len(wavs))]
    return Examples.prepare(
        upstream, start, True, utterances, labels_of(len(wavs)), seconds, names,
        folder / "cache", keys,
    )  # fmt: skip


def task() -> EmotionTask:
    """Four classes."""
    return EmotionTask(CLASSES)
