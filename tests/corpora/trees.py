"""Small trees in the publishers' layouts."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile


def write_wav(path: Path, seconds: float = 0.2, rate: int = 16000) -> Path:
    """A WAV or FLAC of quiet noise that differs from file name to file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(path.name.encode()))
    soundfile.write(path, 0.1 * noise.uniform(-1, 1, round(seconds * rate)), rate)
    return path


def write_all(root: Path, names: Iterable[str]) -> Path:
    """`write_wav` for every relative name."""
    for name in names:
        write_wav(root / name)
    return root


def touch_all(root: Path, names: Iterable[str]) -> Path:
    """Empty files: readers look at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


RATERS = "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n"


def iemocap(
    root: Path, labels: dict[str, tuple[str, str]], raters: dict[str, str] | None = None
) -> Path:
    """An IEMOCAP tree from utterance id -> (label, "V, A, D"); audio as empty files.

    Args:
        raters: utterance id -> lines of single raters (one neutral vote where not given).
    """
    for session in "12345":
        (root / f"Session{session}/dialog/EmoEvaluation").mkdir(parents=True, exist_ok=True)
        (root / f"Session{session}/sentences/wav").mkdir(parents=True, exist_ok=True)
    dialogs: dict[str, str] = {}
    names = []
    for name, (label, ratings) in labels.items():
        session, dialog = name[4], name.rpartition("_")[0]
        text = dialogs.setdefault(f"Session{session}/dialog/EmoEvaluation/{dialog}.txt", HEADER)
        text += f"[6.2901 - 8.2357]\t{name}\t{label}\t[{ratings}]\n"
        text += (raters or {}).get(name, RATERS) + "\n"
        dialogs[f"Session{session}/dialog/EmoEvaluation/{dialog}.txt"] = text
        names.append(f"Session{session}/sentences/wav/{dialog}/{name}.wav")
    for file, text in dialogs.items():
        (root / file).write_text(text)
    return touch_all(root, names)
