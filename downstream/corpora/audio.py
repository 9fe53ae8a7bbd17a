"""Reading audio: any WAV or FLAC in, mono float32 at one rate out, the same every time.

`decode` is what encoders see. `examine` looks at one file for everything that could be wrong
with it, without raising, so that all broken files of a corpus can be listed at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr

from emopeft.errors import UserError
from emopeft.files import file_digest, open_regular

AUDIO_SUFFIXES = (".wav", ".flac")
SAMPLE_RATE = 16000
MINIMUM_SECONDS = 0.025  # one analysis window: encoders give no frame for less

# What a header may say: a rate of 1 Hz makes gigabytes of 16 kB when it is resampled.
RATES = (1_000, 768_000)  # Hz
MAXIMUM_SECONDS = 24 * 3600.0
MAXIMUM_VALUES = 1 << 31  # samples of all channels

# A sample at full scale: 16-bit audio clips at 32767/32768, older converters a little below.
FULL_SCALE = 0.999

# A WAV that lost more than this share of its bytes is damaged; less is a sloppy header.
CUT_SHARE = 0.01


class AudioError(UserError):
    """A file that cannot be used.

    Attributes:
        kind: "missing" | "empty" | "unreadable" | "too long" | "not finite" | "too short".
        problem: the sentence without the way out.
    """

    def __init__(self, kind: str, problem: str):
        super().__init__(f"{problem}; restore the file or take its utterance out")
        self.kind = kind
        self.problem = problem


def is_audio(path: Path) -> bool:
    """Whether the name says .wav or .flac, in any case."""
    return path.suffix.lower() in AUDIO_SUFFIXES


def _cut(start: bytes, size: int) -> tuple[int, int]:
    """Bytes missing at the end of a RIFF file, and the size its header declares."""
    declared = int.from_bytes(start[4:8], "little") + 8
    # Programs that write to a pipe cannot know the size and put the largest number they can.
    if start[:4] != b"RIFF" or declared >= 0x7FFF0000:
        return 0, size
    return max(0, declared - size), declared


def _open(path: Path) -> soundfile.SoundFile:
    """A file that is audio, and not too much of it, as far as its header goes."""
    try:
        with open_regular(path) as file:
            start = file.read(64)
            size = os.fstat(file.fileno()).st_size
            _check_start(path, start, size)
            opened = os.dup(file.fileno())
    except AudioError:
        raise
    except UserError as error:
        raise _not_opened(path, error) from error
    try:
        os.lseek(opened, 0, os.SEEK_SET)
        sound = soundfile.SoundFile(opened)  # closes it, in any case
    except (soundfile.SoundFileError, OSError) as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
        raise AudioError("unreadable", f"{path} cannot be read as audio ({reason})") from error
    try:
        _check_header(path, sound.samplerate, sound.frames, sound.channels)
    except AudioError:
        sound.close()
        raise
    return sound


def _not_opened(path: Path, error: UserError) -> AudioError:
    """Why a file could not be opened, without the way out, which an AudioError adds."""
    cause = error.__cause__
    if isinstance(cause, FileNotFoundError | NotADirectoryError):
        return AudioError("missing", f"{path} does not exist")
    if isinstance(cause, OSError):
        reason = cause.strerror or cause
        return AudioError("unreadable", f"{path} cannot be opened ({reason})")
    return AudioError("unreadable", str(error).removesuffix("; give a regular file"))


def _check_start(path: Path, start: bytes, size: int) -> None:
    if size == 0:
        raise AudioError("empty", f"{path} is empty (0 bytes)")
    if start.startswith(b"version https://git-lfs"):
        raise AudioError(
            "unreadable", f"{path} is a Git LFS pointer, not audio: run `git lfs pull` in its clone"
        )
    # libsndfile reads a WAV that was cut off without complaint.
    cut, declared = _cut(start, size)
    if cut > declared * CUT_SHARE:
        raise AudioError(
            "unreadable", f"{path} is damaged: {cut} of its {declared} bytes are missing"
        )


def _check_header(path: Path, rate: int, frames: int, channels: int) -> None:
    low, high = RATES
    if not low <= rate <= high:
        raise AudioError(
            "unreadable",
            f"{path} says that it has {rate} Hz, which no speech has ({low} to {high})",
        )
    if frames > MAXIMUM_SECONDS * rate or frames * channels > MAXIMUM_VALUES:
        raise AudioError(
            "too long",
            f"{path} says that it lasts {frames / rate / 3600:.1f} h in {channels} channels, more "
            "than a clip can have",
        )


def _read(path: Path, minimum: float) -> tuple[np.ndarray, int]:
    """All samples (samples, channels) as float32 and the rate in Hz; raises AudioError."""
    with _open(path) as file:
        rate, frames = file.samplerate, file.frames
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, MemoryError, ValueError) as error:
            raise AudioError("unreadable", f"{path} is damaged ({error})") from error
    if len(samples) == 0:
        raise AudioError("empty", f"{path} holds no samples")
    if len(samples) < frames:
        raise AudioError(
            "unreadable",
            f"{path} is damaged: it breaks off after {len(samples) / rate:.2f} s "
            f"of {frames / rate:.2f} s",
        )
    if len(samples) < minimum * rate - 1e-6:
        raise AudioError(
            "too short", f"{path} lasts {len(samples) / rate:.4f} s, less than {minimum} s"
        )
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).any(axis=1).sum())
        raise AudioError("not finite", f"{path} has {bad} samples that are NaN or infinite")
    return samples, rate


def decode(
    path: Path, sample_rate: int = SAMPLE_RATE, minimum: float = MINIMUM_SECONDS
) -> np.ndarray:
    """The waveform an encoder sees: (samples,) float32, channels averaged, resampled (soxr HQ).

    Args:
        path: a WAV or FLAC file of any rate and channel count.
        sample_rate: of the result, in Hz.
        minimum: the shortest clip accepted, in seconds.

    Raises:
        UserError: naming the file, when it is missing, damaged or without samples, shorter than
            ``minimum``, or has NaN or infinite samples.
    """
    samples, rate = _read(path, minimum)
    mono = samples.mean(axis=1, dtype=np.float32)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32)


def duration(path: Path) -> float:
    """Seconds, from the header alone; raises UserError when the file cannot be opened."""
    with _open(path) as file:
        return file.frames / file.samplerate


@dataclasses.dataclass(frozen=True)
class Clip:
    """What `examine` found out about one file.

    Attributes:
        digest: SHA-256 of the file's bytes ("" when it cannot be read).
        kind, problem: what makes it unusable (see AudioError), or None; then the rest is zero.
        seconds, rate, channels: its length, rate in Hz and channel count.
        peak: the largest |x|.
        clipped: the share of samples with |x| >= FULL_SCALE.
        audio: SHA-256 of the decoded, averaged samples at the file's own rate, so that a WAV and
            a FLAC of the same recording agree.
        cut: bytes that the RIFF header promises and the file does not have (up to CUT_SHARE).
    """

    path: Path
    digest: str = ""
    kind: str | None = None
    problem: str | None = None
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    peak: float = 0.0
    clipped: float = 0.0
    audio: str = ""
    cut: int = 0


def examine(path: Path, minimum: float = MINIMUM_SECONDS) -> Clip:
    """Decode a file completely and describe it; a problem is returned, never raised."""
    try:
        digest = file_digest(path)
    except UserError:
        digest = ""
    try:
        samples, rate = _read(path, minimum)
    except AudioError as error:
        return Clip(path, digest, error.kind, error.problem)
    with open_regular(path) as file:
        cut, _ = _cut(file.read(8), os.fstat(file.fileno()).st_size)
    level = np.abs(samples)
    # Adding zero turns -0.0 into 0.0, which has other bytes.
    mono = samples.mean(axis=1, dtype=np.float32) + np.float32(0)
    audio = hashlib.sha256(f"{rate}\n".encode() + mono.tobytes()).hexdigest()
    return Clip(
        path=path,
        digest=digest,
        seconds=len(samples) / rate,
        rate=rate,
        channels=samples.shape[1],
        peak=float(level.max()),
        clipped=float((level >= FULL_SCALE).mean()),
        audio=audio,
        cut=cut,
    )
