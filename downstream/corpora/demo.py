"""The demo corpus: synthetic speech made on the spot, for trying the harness without any data.

Five sessions of a female and a male eSpeak NG voice say the same sentences in four "emotions",
which are nothing but settings of rate, pitch, pitch range and volume with some jitter. Nobody
feels anything in it: a number measured on it says that the harness works, and nothing else.

Its ratings are settings, too, of the clip as it was made: ``arousal`` is how fast and loud,
``valence`` how high and lively the synthesiser spoke, from 1 to 5. Nobody rated anything.

``python -m downstream.corpora.demo DIR`` makes it in a few seconds.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

from emopeft.downstream.corpora.base import Corpus, Utterance, register
from emopeft.errors import UserError
from emopeft.files import digest, write_text, writing

if TYPE_CHECKING:
    import numpy as np

    Samples = np.ndarray

SAMPLE_RATE = 16000
# Of eSpeak NG's voice variants, one woman and one man per session.
VOICES = {
    "1": ("en-us+f1", "en-us+m1"),
    "2": ("en-gb-x-rp+f2", "en-gb-x-rp+m2"),
    "3": ("en-us+f3", "en-us+m3"),
    "4": ("en-gb-scotland+f4", "en-gb-scotland+m4"),
    "5": ("en-us+f5", "en-us+m7"),
}
# Session k reads sentences 2k, 2k + 1, … (going round), so that neighbours share most of them.
SENTENCES = (
    "The letter is on the table.",
    "We will meet in the garden.",
    "My brother has seen the house.",
    "They are coming back on Monday.",
    "She put the keys in her bag.",
    "The train leaves in the evening.",
    "I have talked to the doctor.",
    "There is a dog at the door.",
    "He is carrying the boxes home.",
    "You can read it in the paper.",
)
CLIPS_PER_EMOTION = 6
# Words per minute, pitch, pitch range and volume, in eSpeak's units, with the largest jitter. The
# ranges of neighbouring emotions overlap, so that no single setting gives the emotion away.
SETTINGS = {
    "neutral": (165, 40, 35, 45),
    "happy": (185, 75, 80, 60),
    "angry": (220, 45, 50, 92),
    "sad": (125, 25, 15, 26),
}
JITTER = (15, 8, 12, 10)
SCALE = (1.0, 5.0)  # of both ratings
NOISE = 0.005  # rms of the room, full scale 1: loudness shows even when a clip is normalised
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip to be made: where it goes and how it is spoken."""

    path: str  # relative to the root
    voice: str
    text: str
    settings: tuple[int, int, int, int]  # rate, pitch, range, volume
    seed: int


def clips() -> Iterator[Clip]:
    """All 240 clips, in the order they are made. Nothing random: jitter is a hash of the name."""
    for session, voices in VOICES.items():
        for sex, voice in zip("FM", voices, strict=True):
            for emotion, settings in SETTINGS.items():
                for i in range(CLIPS_PER_EMOTION):
                    stem = f"ses{session}_{sex}_{emotion}_{i + 1:02d}"
                    noise = hashlib.sha256(stem.encode()).digest()
                    rate, pitch, span, volume = (
                        round(value + width * (2 * byte / 255 - 1))
                        for value, width, byte in zip(settings, JITTER, noise, strict=False)
                    )
                    yield Clip(
                        path=f"session{session}/{stem}.wav",
                        voice=voice,
                        text=SENTENCES[(2 * int(session) + i) % len(SENTENCES)],
                        settings=(rate, pitch, span, volume),
                        seed=int.from_bytes(noise[4:7], "big"),
                    )


def ratings(clip: Clip) -> dict[str, float]:
    """Arousal and valence of a clip, from 1 to 5, not rounded.

    Arousal is the mean of rate and volume, valence that of pitch and range, each of them counted
    from the lowest value that a setting can have with its jitter (1) to the highest (5).
    """
    low, high = SCALE
    places = [
        (value - min(known) + width) / (max(known) - min(known) + 2 * width)
        for value, width, known in zip(
            clip.settings, JITTER, zip(*SETTINGS.values(), strict=True), strict=True
        )
    ]
    rate, pitch, span, volume = places
    pairs = {"valence": (pitch, span), "arousal": (rate, volume)}
    return {name: low + (high - low) * sum(pair) / 2 for name, pair in pairs.items()}


def synthesise(root: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Make the corpus in ``root``, unless it is there already: see `make_tree`."""
    about = (
        "EmoPEFT demo corpus: SYNTHETIC speech made with eSpeak NG. It is not emotional speech;\n"
        "its four classes are settings of a synthesiser. For trying the harness only.\n"
    )
    make_tree(root, list(clips()), about, in_a_quiet_room, progress)


def in_a_quiet_room(speech: Samples, clip: Clip) -> Samples:
    """The clip with some white noise."""
    import numpy as np

    return speech + NOISE * np.random.default_rng(clip.seed).standard_normal(len(speech))


def make_tree(
    root: Path,
    todo: list[Clip],
    about: str,
    place: Callable[[Samples, Clip], Samples],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make the clips in ``root``, unless they are there already.

    Args:
        about: what README.txt says, before the hash of all settings.
        place: puts the speech of a clip, at `SAMPLE_RATE`, where it was recorded.
        progress: called with (clips made, clips to make) after each.

    Raises:
        UserError: eSpeak NG is not installed or fails, or ``root`` cannot be written.
    """
    about += f"settings: {digest([dataclasses.astuple(clip) for clip in todo])}\n"
    note = root / "README.txt"  # written last: a tree that has it is whole
    whole = note.is_file() and note.read_text(encoding="utf-8", errors="replace") == about
    if whole and all((root / clip.path).is_file() for clip in todo):
        return
    import numpy as np
    import soundfile
    import soxr

    for number, (clip, (rate, samples)) in enumerate(zip(todo, _spoken(todo), strict=True), 1):
        speech = soxr.resample(np.frombuffer(samples, np.int16) / 2**15, rate, SAMPLE_RATE)
        with writing(root / clip.path) as temporary:
            soundfile.write(
                temporary, place(speech, clip), SAMPLE_RATE, subtype="PCM_16", format="WAV"
            )
        if progress:
            progress(number, len(todo))
    write_text(note, about)


def _spoken(todo: list[Clip]) -> Iterator[tuple[int, bytes]]:
    """(sampling rate, 16-bit mono samples) of every clip, from one fresh process.

    eSpeak NG keeps the phase of its oscillators from one utterance to the next, also over
    espeak_Terminate, so only a process that has not spoken before gives the same bytes each time.
    And if the library crashes, it does not take the caller along.
    """
    try:
        import espeakng_loader  # noqa: F401  found missing here, not in the other process
    except ImportError as error:
        raise UserError(
            "the demo corpus is synthesised with eSpeak NG, which is not installed; "
            'pip install "emopeft[demo]"'
        ) from error
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            yield from pool.map(_speak, todo)
    except (BrokenProcessPool, OSError) as error:
        raise UserError(
            f"eSpeak NG failed ({error}); reinstall it: pip install --force-reinstall "
            "espeakng-loader"
        ) from error


class _Espeak:
    """eSpeak NG through its C interface (speak_lib.h), handing back samples."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        retrieval = (
            2  # AUDIO_OUTPUT_SYNCHRONOUS: samples to the callback, when espeak_Synth returns
        )
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(retrieval, 0, data, 0)
        if self.rate <= 0:
            raise OSError(f"espeak_Initialize returned {self.rate}")
        self._chunks: list[bytes] = []
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = signature(self._collect)  # kept, or it would be freed while in use
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: ctypes._Pointer, number: int, events: int | None) -> int:
        if samples and number > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * number))
        return 0  # go on

    def speak(self, clip: Clip) -> bytes:
        """16-bit mono samples of the clip at ``rate``; raises OSError naming what failed."""
        self._chunks.clear()
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(clip.seed))  # breath noise; else the time
        self._call("SetVoiceByName", clip.voice.encode())
        for parameter, value in zip((RATE, PITCH, RANGE, VOLUME), clip.settings, strict=True):
            self._call("SetParameter", parameter, value, 0)
        text = clip.text.encode() + b"\0"
        self._call("Synth", text, ctypes.c_size_t(len(text)), 0, 1, 0, 1, None, None)  # 1: UTF-8
        self._call("Synchronize")
        return b"".join(self._chunks)

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, f"espeak_{name}")(*arguments)
        if status != 0:
            raise OSError(f"espeak_{name}{arguments} returned {status}")


_espeak: _Espeak | None = None


def _speak(clip: Clip) -> tuple[int, bytes]:
    """Run in the fresh process, one clip after the other."""
    global _espeak
    if _espeak is None:
        _espeak = _Espeak()
    samples = _espeak.speak(clip)
    if not samples:
        raise OSError(f"no sound for {clip.path}")
    return _espeak.rate, samples


_STEM = re.compile(rf"ses([1-5])_([FM])_({'|'.join(SETTINGS)})_\d\d")


def read(root: Path) -> list[Utterance]:
    """All clips of the tree, by session and name; those of other settings have no ratings."""
    known = {Path(clip.path).stem: clip for clip in clips()}
    utterances = []
    for path in sorted(root.glob("session[1-5]/ses*_*")):
        match = _STEM.fullmatch(path.stem)
        if match and path.suffix.lower() in (".wav", ".flac"):
            session, sex, emotion = match.groups()
            utterances.append(
                Utterance(
                    id=path.stem,
                    path=path,
                    speaker=f"ses{session}_{sex}",
                    emotion=emotion,
                    session=session,
                    sex="female" if sex == "F" else "male",
                    ratings=ratings(known[path.stem]) if path.stem in known else {},
                )
            )
    if not utterances:
        raise UserError(
            f"no demo corpus under {root}; make it with: python -m downstream.corpora.demo {root}"
        )
    return utterances


# As a program, and in the processes that it starts, this file is read a second time beside the
# corpus' own module; only that one counts.
if __name__.startswith("emopeft."):
    register(
        Corpus(
            name="demo",
            title="Demo corpus (synthetic speech, eSpeak NG; not emotional speech)",
            licence="synthetic speech, eSpeak NG; not emotional speech; free to use",
            citation="synthesised by EmoPEFT with eSpeak NG (https://github.com/espeak-ng/espeak-ng)",
            read=read,
            emotions=tuple(SETTINGS),
            protocol="demo-5fold",
            folder="session1/ses1_F_angry_01.wav …, made by python -m downstream.corpora.demo DIR",
            language="English",
            expected=dict.fromkeys(SETTINGS, 2 * len(VOICES) * CLIPS_PER_EMOTION),
            speakers=2 * len(VOICES),
            scales={"valence": SCALE, "arousal": SCALE},
        )
    )

if __name__ == "__main__":
    from emopeft.commands.modules import demo_corpus

    sys.exit(demo_corpus())
