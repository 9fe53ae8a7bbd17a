"""What a part is given: the device, the data, a folder to work in; and the small data folder."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import os
import shutil
from pathlib import Path

from benchmarks.driving import ROOT, noise, save_encoder, sides, write_manifest
from emopeft.errors import UserError

# Modules that runs need and that a machine with torch, transformers and peft may lack, with what
# brings them. s3prl, opensmile and eSpeak are imported only where they are used.
NEEDED = {
    "soundfile": "soundfile cffi pycparser",
    "soxr": "soxr",
    "audmetric": "audmetric audeer",
    "pydantic": "pydantic pydantic-core annotated-types typing-inspection",
    "accelerate": "accelerate",
    "filelock": "filelock",
    "peft": "peft",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "tabulate": "tabulate",
    "tensorboard": "tensorboard",
    "tqdm": "tqdm",
    "transformers": "transformers",
    "yaml": "pyyaml",
}
EMOTIONS = {"03": "happy", "04": "sad", "05": "angry", "06": "fearful"}
# As many men as women on every side; 32 clips of each, eight of each emotion.
ACTORS = {
    "01": "train", "02": "train", "03": "train", "04": "train",
    "05": "dev", "06": "dev", "07": "test", "08": "test",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every part is given.

    Attributes:
        device: cuda, mps or cpu. small: seconds instead of minutes, as a test.
        data: the folder that `pack` fills. work: for whatever is made on the way.
        out: where records are kept.
    """

    device: str
    small: bool
    data: Path
    work: Path
    out: Path

    def manifest(self) -> Path:
        """The real clips' manifest, or in the small form noise."""
        if self.small:
            return self.noise(8, 0.5)
        return self._packed("clips.csv")

    def encoder(self) -> Path:
        """Whisper base, or in the small form a tiny HuBERT with random weights."""
        if self.small:
            return self.random_encoder("tiny")
        self._packed("encoder/config.json")
        return self.data / "encoder"

    def noise(self, train: int, seconds: float) -> Path:
        """The manifest of clips of noise, all of one length."""
        split = sides(train)
        folder = self.work / f"noise-{train}-{seconds:g}"
        if not folder.is_dir():
            write_manifest(folder, noise(len(split), seconds), split)
        return folder / "clips.csv"

    def random_encoder(self, size: str) -> Path:
        """A HuBERT of a size, with random weights."""
        return save_encoder(self.work / f"hubert-{size}", size)

    def _packed(self, name: str) -> Path:
        if not (self.data / name).is_file():
            raise UserError(
                f"{self.data} holds no {name}; fill it with python -m benchmarks.gpu pack "
                f"{self.data}, or set EMOPEFT_GPU_DATA to a folder that was filled"
            )
        return self.data / name


def lacking() -> dict[str, str]:
    """What is needed and not installed here: module to the packages that bring it."""
    return {m: p for m, p in NEEDED.items() if importlib.util.find_spec(m) is None}


def environment(device: str) -> dict[str, str]:
    """Variables for a process that sees this device alone; nothing of it goes to the network."""
    more = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if device == "cpu":
        more |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    return os.environ | more


def pack(folder: Path, shared: Path | None = None) -> str:
    """Fill a folder with what the parts run on; returns a sentence about it.

    Eight actors of RAVDESS with four emotions (clips.csv is their manifest, with the sides of one
    fold) and the encoder of Whisper base, half precision: some 50 MB.

    Raises:
        UserError: the material is not where it should be.
    """
    shared = shared or Path(os.environ.get("EMOPEFT_SHARED") or ROOT.parent / "shared")
    corpus, encoder = shared / "data" / "ravdess", shared / "models" / "whisper-base-encoder"
    clips = [
        path
        for actor in ACTORS
        for path in sorted((corpus / f"Actor_{actor}").glob("03-01-*.flac"))
        if path.stem.split("-")[2] in EMOTIONS
    ]
    if not clips or not encoder.is_dir():
        raise UserError(
            f"{shared} holds no data/ravdess/Actor_01 ... with FLAC files, or no "
            "models/whisper-base-encoder; set EMOPEFT_SHARED to the folder that does"
        )
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "path", "speaker", "label", "sex", "style", "split"])
        for path in clips:
            emotion, actor = path.stem.split("-")[2], path.stem.split("-")[-1]
            sex = "male" if int(actor) % 2 else "female"
            shutil.copyfile(path, folder / "clips" / path.name)
            table.writerow(
                [path.stem, f"clips/{path.name}", actor, EMOTIONS[emotion], sex, "acted",
                 ACTORS[actor]]
            )  # fmt: skip
    (folder / "encoder").mkdir(exist_ok=True)
    for path in encoder.iterdir():
        shutil.copyfile(path, folder / "encoder" / path.name)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return f"{folder}: {len(clips)} clips and an encoder, {size / 1e6:.0f} MB"
