"""How long a checkpoint takes from a waveform to its scores, one clip at a time."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.measures.delays import Clock, Delay, in_turns
from emopeft.downstream.models.build import assemble, base_of, restore
from emopeft.downstream.models.merged import merged_of
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.models.onnx_files import is_onnx, open_folder, read_facts
from emopeft.downstream.runs.checkpoints import best_device, fold_folders, outputs_of_clip
from emopeft.downstream.runs.provenance import cpu_name, package_versions
from emopeft.errors import UserError
from emopeft.files import digest
from emopeft.numerics import Numerics, peak_memory
from emopeft.peft_modules.apply import adapt
from emopeft.upstream.base import SAMPLE_RATE

SECONDS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0)
LONGEST = 3600.0
TRAINED, MERGED, BASE = "as trained", "merged", "frozen base"
DECODING = "decoding"  # of a file: reading, averaging channels, resampling


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often.

    Attributes:
        seconds: lengths of the clips, which are noise: the work does not depend on what is said.
        rounds, repeats, warm_up: see `in_turns`.
        threads: of torch and onnxruntime on a CPU; None: as many as torch takes.
        device: "cpu", "cuda", "cuda:1", "mps"; None: the GPU, where there is one.
    """

    seconds: Sequence[float] = SECONDS
    rounds: int = 5
    repeats: int = 10
    warm_up: int = 2
    threads: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.seconds or not all(0 < s <= LONGEST for s in self.seconds):
            raise UserError(f"clips must be longer than 0 and at most {LONGEST:g} seconds")
        for name, least in (("rounds", 1), ("repeats", 1), ("warm_up", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 100_000:
                raise UserError(f"{name}={value} must be a whole number from {least} to 100000")


QUICK = Settings(seconds=(1.0, 3.0, 10.0), rounds=3, repeats=5)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to the outputs of a clip.

    Attributes:
        checkpoint: whose. name: as trained, merged, ... min_samples: the shortest clip.
        outputs: of a waveform (samples,) at 16 kHz, in memory, on the CPU; so are they.
    """

    checkpoint: str
    name: str
    min_samples: int
    precision: str
    outputs: Callable[[Tensor], Tensor]


@dataclasses.dataclass
class Measured:
    """What was timed.

    Attributes:
        machine: processor, threads, versions, how busy it was.
        ways: in their order. delays: by the way's place and the clip's seconds.
        not_merged: checkpoint -> why there is no merged one.
        differences: checkpoint -> largest difference of its merged outputs from its own.
        file, decoding, of_file: an audio file, the time to read it, and of each way on it.
    """

    settings: Settings
    machine: dict[str, Any]
    ways: list[Way]
    delays: dict[tuple[int, float], Delay]
    not_merged: dict[str, str]
    differences: dict[str, float]
    file: str | None = None
    decoding: Delay | None = None
    of_file: dict[int, Delay] = dataclasses.field(default_factory=dict)


def measure(
    places: Sequence[Path],
    settings: Settings = QUICK,
    upstream_path: str | None = None,
    audio: Path | None = None,
    fold: str | None = None,
    clock: Clock = time.perf_counter,
) -> Measured:
    """Time checkpoints side by side.

    Args:
        places: folders of runs (their first trained fold, or ``fold``), of folds, or of
            `emopeft onnx`.
        audio: a file, of which decoding and resampling are timed, too.
        clock: monotonic, in seconds.

    Raises:
        UserError: no such checkpoint or device, a clip that is too short for an encoder.
    """
    device = _device(settings.device)
    before, load = torch.get_num_threads(), _load()
    try:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        found = Measured(settings, _machine(device, load), [], {}, {}, {})
        wavs = {s: _noise(round(s * SAMPLE_RATE)) for s in settings.seconds}
        _collect(found, places, upstream_path, fold, device)
        for way in found.ways:
            short = min(len(wav) for wav in wavs.values())
            if short < way.min_samples:
                raise UserError(
                    f"{way.checkpoint} takes clips of {way.min_samples / SAMPLE_RATE:.3f} s and "
                    f"longer, and one of {short / SAMPLE_RATE:.3f} s was asked for; take longer "
                    "ones with --seconds"
                )
        _run(found, wavs, audio, device, clock)
    finally:
        torch.set_num_threads(before)
    return found


def _run(
    found: Measured,
    wavs: dict[float, Tensor],
    audio: Path | None,
    device: torch.device,
    clock: Clock,
) -> None:
    """Fill in the delays."""
    calls: dict[tuple[int, float | str], tuple[float, Callable[[], object]]] = {}
    for seconds, wav in wavs.items():
        for i, way in enumerate(found.ways):
            calls[i, seconds] = seconds, functools.partial(_timed, way, wav, device)
    if audio is not None:
        least = max(way.min_samples for way in found.ways) / SAMPLE_RATE
        reading = functools.partial(decode, audio, SAMPLE_RATE, minimum=least)
        wav = torch.from_numpy(reading())
        length = len(wav) / SAMPLE_RATE
        found.file = f"{audio.name}, {length:.2f} s"
        calls[-1, DECODING] = length, reading
        for i, way in enumerate(found.ways):
            calls[i, DECODING] = length, functools.partial(_timed, way, wav, device)
    settings = found.settings
    peak_memory(reset=True)
    delays = in_turns(
        calls, rounds=settings.rounds, repeats=settings.repeats, warm_up=settings.warm_up,
        clock=clock,
    )  # fmt: skip
    peak = peak_memory()
    found.machine |= {"peak memory": peak["host"], "peak memory of the GPU": peak["device"]}
    for (i, of), delay in delays.items():
        if isinstance(of, float):
            found.delays[i, of] = delay
        elif i < 0:
            found.decoding = delay
        else:
            found.of_file[i] = delay


def _timed(way: Way, wav: Tensor, device: torch.device) -> None:
    way.outputs(wav)
    if device.type == "cuda":  # the outputs lie on the CPU, so it has finished; of all else, too
        torch.cuda.synchronize(device)


# ---- the ways -------------------------------------------------------------------------------


def _collect(
    found: Measured,
    places: Sequence[Path],
    upstream_path: str | None,
    fold: str | None,
    device: torch.device,
) -> None:
    folders = [p if is_onnx(p) else fold_folders(p, fold or "all")[0] for p in places]
    bases: dict[str, Way] = {}
    own_bases: set[str] = set()
    for folder, name in zip(folders, _names(folders), strict=True):
        if is_onnx(folder):
            facts, _ = read_facts(folder)
            for kind, graph in open_folder(folder, found.settings.threads).items():
                way = Way(name, f"onnx {kind}", facts.min_samples, kind, graph.outputs)
                found.ways.append(way)
            continue
        make = functools.partial(restore, folder, upstream_path, device)
        model, config = make()
        found.ways.append(_way(name, TRAINED, model, config))
        merged, why = merged_of(lambda make=make: make()[0])  # type: ignore[misc]
        if merged is None:
            found.not_merged[name] = str(why)
        else:
            found.ways.append(_way(name, MERGED, merged, config))
            wav = _noise(max(SAMPLE_RATE, model.upstream.min_samples))
            ways = found.ways[-2:]
            error = (ways[0].outputs(wav) - ways[1].outputs(wav)).abs().max()
            found.differences[name] = float(error)
        key = digest([config[k] for k in ("upstream", "head", "numerics", "clips")])
        if all(method.name in ("none", "ws") for method in model.methods):
            own_bases.add(key)
        elif key not in bases:
            base = _frozen_base(config, upstream_path, device)
            bases[key] = _way(str(config["upstream"]["name"]), BASE, base, config)
    found.ways += [way for key, way in bases.items() if key not in own_bases]


def _names(folders: Sequence[Path]) -> list[str]:
    """What tables call them: a fold with its run, or the whole path where two are alike."""
    short = [
        folder.name if is_onnx(folder) else f"{folder.absolute().parent.name}/{folder.name}"
        for folder in folders
    ]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _way(checkpoint: str, name: str, model: AdaptedModel, config: dict[str, Any]) -> Way:
    numerics, clips = Numerics.of(config["numerics"]), ClipKeys(**config["clips"])

    def outputs(wav: Tensor) -> Tensor:
        numerics.apply()
        return outputs_of_clip(model, wav, numerics, clips)

    least = model.upstream.min_samples
    return Way(checkpoint, name, least, numerics.precision, outputs)


def _frozen_base(
    config: dict[str, Any], upstream_path: str | None, device: torch.device
) -> AdaptedModel:
    """The unpatched upstream with a new head like the checkpoint's."""
    with torch.random.fork_rng(devices=[]):
        adaptation = adapt(base_of(config, upstream_path), "none")
        model = assemble(adaptation, make_head(**config["head"]), dropout=False)
    return model.to(device).eval()


# ---- the machine ----------------------------------------------------------------------------


def _device(name: str | None) -> torch.device:
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0][:160]
        raise UserError(f"--device {name:.40} cannot be used here ({first}); take cpu") from error
    return device


def _machine(device: torch.device, load: float | None) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "type": device.type,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,
        "torch": package_versions().get("torch"),
        "transformers": package_versions().get("transformers"),
    }


def _load() -> float | None:
    """How many processes wanted a core in the last minute, before anything was timed."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def _noise(samples: int) -> Tensor:
    """As loud as speech; the same each time."""
    return torch.randn(samples, generator=torch.Generator().manual_seed(0)) * 0.05
