"""EmoPEFT driven from outside, by its command line, on material made for the occasion.

Nothing of its inside is used, so that any checkout can be driven the same way, an older one too:
the one whose folder EMOPEFT_BENCH_CHECKOUT names, else the one that this file lies in.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import resource
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("neutral", "happy", "angry", "sad")
SAMPLE_RATE = 16000
# HuBERT's sizes as transformers' configurations; "thin" has base's states and little to compute.
SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096, "feat_extract_norm": "layer", "conv_bias": True,
        "do_stable_layer_norm": True,
    },
    "thin": {
        "intermediate_size": 16, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16,
    },
    "tiny": {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
}  # fmt: skip


# ---- material -------------------------------------------------------------------------------


def checkout() -> str:
    """The checkout that is driven; it is what will be imported."""
    place = os.environ.get("EMOPEFT_BENCH_CHECKOUT") or str(ROOT)
    if place not in sys.path[:1]:
        sys.path.insert(0, place)
    return place


def hubert_config(size: str) -> Any:
    """transformers' HubertConfig of a size."""
    checkout()
    from emopeft.guard import ensure_torchaudio

    ensure_torchaudio()  # transformers must not stumble over a torchaudio that does not load
    from transformers import HubertConfig

    return HubertConfig(**SIZES[size])


def hubert(size: str = "base") -> Any:
    """transformers' HubertModel with random weights, always the same: speed needs no others."""
    config = hubert_config(size)
    from transformers import HubertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HubertModel(config)


def save_encoder(folder: Path, size: str = "base") -> Path:
    """The same as a directory for --upstream-path."""
    if not folder.is_dir():
        hubert(size).save_pretrained(folder)
    return folder


def noise(count: int, seconds: float, seed: int = 0) -> list[Tensor]:
    """Clips (samples,) of noise, each another one."""
    generator = torch.Generator().manual_seed(seed)
    size = round(seconds * SAMPLE_RATE)
    return [torch.randn(size, generator=generator) * 0.1 for _ in range(count)]


def labels_of(count: int) -> list[int]:
    """Some classes."""
    return [(i * 7 + i // 5) % len(CLASSES) for i in range(count)]


def sides(train: int, dev: int = 4, test: int = 4) -> list[str]:
    """The column ``split`` of so many clips."""
    return ["train"] * train + ["dev"] * dev + ["test"] * test


def write_manifest(
    folder: Path, wavs: Sequence[Tensor], split: Sequence[str], session: Sequence[str] = ()
) -> Path:
    """Waveforms as a corpus of WAV files with a manifest; speakers stay on their side."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    labels = labels_of(len(wavs))
    path = folder / "clips.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "path", "speaker", "label", "session", "split"])
        for i, wav in enumerate(wavs):
            name = f"clip{i:05}"
            soundfile.write(folder / f"{name}.wav", wav.numpy(), SAMPLE_RATE, subtype="FLOAT")
            group = session[i] if session else ""
            speaker = f"speaker-{group or split[i]}-{i % 2}"
            table.writerow(
                [name, f"{name}.wav", speaker, CLASSES[labels[i]], group, split[i] if split else ""]
            )
    return path


# ---- the command line -----------------------------------------------------------------------


@dataclasses.dataclass
class Run:
    """A finished command.

    Attributes:
        folder: of the run. seconds, processor_seconds: of the whole command, from outside.
    """

    folder: Path
    seconds: float
    processor_seconds: float

    def folds(self) -> list[dict[str, Any]]:
        """The content of every fold.json."""
        return [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(self.folder.glob("*/fold.json"))
        ]

    def train_seconds(self) -> float:
        """Training of all folds together."""
        return sum(f["seconds"]["train"] for f in self.folds())

    def frozen_seconds(self) -> float:
        """What the frozen part took, whichever command computed it."""
        first = self.folds()[0]
        if "frozen_seconds" in first:
            return float(first["frozen_seconds"] or 0.0)
        record = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        return float(record["cost"]["seconds"]["features"])  # records of schema 1

    def history(self) -> list[dict[str, Any]]:
        """Step, loss and dev metrics of every evaluation of the last stage of the first fold."""
        first = self.folds()[0]
        return first["stages"][-1]["result"]["history"] if "stages" in first else first["history"]

    def trainable(self) -> int:
        """Parameters that train, the head's too."""
        facts = self.folds()[0]
        if "parameters" not in facts:
            facts = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        return int(facts["parameters"]["trainable"])


def run(out: Path, name: str, data: Path, encoder: Path, *arguments: str) -> Run:
    """``python run_downstream.py ...`` in this process, on a manifest and a local encoder.

    Args:
        out: of runs; the cache lies beside them, shared by all that are driven with it.
        arguments: more flags; of those that are given twice with -o, the last one counts.
    """
    checkout()
    from run_downstream import main

    family = json.loads((encoder / "config.json").read_text(encoding="utf-8"))["model_type"]
    flags = [
        "-u", {"whisper": "whisper_base"}.get(family, family), "--upstream-path", str(encoder),
        "-d", "emotion", "--corpus", "manifest", "--data", str(data),
        "--out", str(out), "-n", name, "-o", f"cache.dir={out / 'cache'}",
    ]  # fmt: skip
    if "--protocol" not in arguments:
        flags += ["--protocol", "manifest-split"]
    started, busy = time.perf_counter(), time.process_time()
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        status = main([*flags, *arguments])
    if status:
        reason = " ".join(said.getvalue().strip().splitlines()[-1:])
        raise RuntimeError(f"{' '.join(arguments)}: status {status}: {reason}")
    return Run(out / name, time.perf_counter() - started, time.process_time() - busy)


def keys(**values: Any) -> list[str]:
    """Keys of a recipe as flags: ``train_lr=1e-4`` is ``-o train.lr=0.0001``, None is null."""
    flags = []
    for name, value in values.items():
        section, _, key = name.partition("_")
        # As YAML reads it: 1e-05 would be text there.
        text = yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]
        flags += ["-o", f"{section}.{key}={text}"]
    return flags


def steady(steps: int, batch: int, seconds: float) -> list[str]:
    """Training of so many steps with nothing beside them but one evaluation at the end."""
    return keys(
        train_optimizer="adamw", train_lr=1e-4, train_head_lr=None, train_schedule="constant",
        train_warmup=0, train_steps=steps, train_epochs=None, train_batch_size=batch,
        train_batch_seconds=batch * seconds + 1, train_eval_every=steps, train_patience=None,
    )  # fmt: skip


@contextlib.contextmanager
def cached_in(folder: Path) -> Iterator[None]:
    """Whatever else EmoPEFT keeps for the next time goes there, too."""
    before = os.environ.get("EMOPEFT_CACHE")
    os.environ["EMOPEFT_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["EMOPEFT_CACHE"]
        else:
            os.environ["EMOPEFT_CACHE"] = before


def processor() -> str:
    """The processor's name, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "CPU"


class Resident:
    """The highest resident memory while it is entered, looked at often.

    The kernel's own mark will not do: the driven code may reset it.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Resident:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        scale = 1 if sys.platform == "darwin" else 1024
        self.bytes = max(self.bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        with contextlib.suppress(OSError):
            while not self._ended.wait(0.02):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                self.bytes = max(self.bytes, pages * page)
