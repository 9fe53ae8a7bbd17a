"""The demo corpus of two domains, an acted and a natural voice set, for transfer between them.

Synthetic as the demo corpus is, and no more emotional: the "acted" half is spoken as that one. In
the "natural" half other voices speak in a noisy room through a dull microphone, and the same four
settings lie closer together and elsewhere: what tells angry from neutral in one half does not in
the other, so that there is something to gain from the target and something to forget of the source.
No voice speaks in both halves.

One tree, three corpora: ``demo-domains`` is the whole, each clip with its ``style`` (acted or
natural); ``demo-acted`` and ``demo-natural`` are its halves, for what takes several corpora:
``--corpus demo-acted+demo-natural --data DIR``. ``emopeft demo --domains`` makes it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emopeft.downstream.corpora.base import Corpus, Utterance, register
from emopeft.downstream.corpora.demo import (
    SCALE,
    SENTENCES,
    SETTINGS,
    Clip,
    in_a_quiet_room,
    make_tree,
    ratings,
)
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.corpora.demo import Samples

STYLES = ("acted", "natural")
# One woman and one man per session and half.
VOICES = {
    "acted": {
        "1": ("en-us+f1", "en-us+m1"),
        "2": ("en-gb-x-rp+f2", "en-gb-x-rp+m2"),
        "3": ("en-us+f3", "en-us+m3"),
    },
    "natural": {
        "1": ("en-gb-x-gbclan+Annie", "en-gb-x-gbclan+Andy"),
        "2": ("en-us-nyc+linda", "en-us-nyc+david"),
        "3": ("en-029+steph", "en-029+Michael"),
    },
}
CLIPS_PER_EMOTION = 4
# As `demo.SETTINGS`: rate, pitch, pitch range and volume, all within the ranges of these.
HALVES = {
    "acted": SETTINGS,
    "natural": {
        "neutral": (195, 30, 22, 55),
        "happy": (175, 66, 62, 52),
        "angry": (218, 48, 44, 80),
        "sad": (145, 24, 10, 34),
    },
}
JITTER = {"acted": (15, 8, 12, 10), "natural": (8, 5, 8, 6)}
NOISE = 0.01  # rms of the natural half's room, full scale 1
DULL = 0.5  # pole of a low-pass at 16 kHz: -3 dB at 1.8 kHz
TAPS = 16  # of its impulse response; what is cut off is 2e-5 of it


def clips() -> Iterator[Clip]:
    """All 192 clips, in the order they are made. Nothing random: jitter is a hash of the name."""
    for style, sessions in VOICES.items():
        for session, voices in sessions.items():
            for sex, voice in zip("FM", voices, strict=True):
                for emotion, settings in HALVES[style].items():
                    for i in range(CLIPS_PER_EMOTION):
                        stem = f"{style}{session}_{sex}_{emotion}_{i + 1:02d}"
                        noise = hashlib.sha256(stem.encode()).digest()
                        rate, pitch, span, volume = (
                            round(value + width * (2 * byte / 255 - 1))
                            for value, width, byte in zip(
                                settings, JITTER[style], noise, strict=False
                            )
                        )
                        yield Clip(
                            path=f"demo-{style}/{stem}.wav",
                            voice=voice,
                            text=SENTENCES[(3 * int(session) + i) % len(SENTENCES)],
                            settings=(rate, pitch, span, volume),
                            seed=int.from_bytes(noise[4:7], "big"),
                        )


def synthesise(root: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Make the corpus in ``root``, unless it is there already: see `make_tree`."""
    about = (
        "EmoPEFT demo corpus of two domains: SYNTHETIC speech made with eSpeak NG. Nobody acts\n"
        "and nobody feels in it; its classes and its domains are settings of a synthesiser.\n"
    )
    make_tree(root, list(clips()), about, _placed, progress)


def _placed(speech: Samples, clip: Clip) -> Samples:
    """Natural clips through a dull microphone, with low noise behind them."""
    import numpy as np

    if clip.path.startswith("demo-acted/"):
        return in_a_quiet_room(speech, clip)
    response = (1 - DULL) * DULL ** np.arange(TAPS)
    noise = np.random.default_rng(clip.seed).standard_normal(len(speech))
    noise = np.convolve(noise, response)[: len(speech)]
    dull = np.convolve(speech, response)[: len(speech)]
    return dull + NOISE * noise / np.sqrt(np.mean(noise**2))


_STEM = re.compile(rf"(acted|natural)([1-3])_([FM])_({'|'.join(SETTINGS)})_\d\d")


def read(root: Path, styles: tuple[str, ...] = STYLES) -> list[Utterance]:
    """The clips of some styles, by style, session and name; those of other settings have no
    ratings. ``root`` is the tree; of one style also its own folder in it."""
    known = {Path(clip.path).stem: clip for clip in clips()}
    utterances = []
    for style in styles:
        folder = root / f"demo-{style}"
        place = root if len(styles) == 1 and not folder.is_dir() else folder
        for path in sorted(place.glob(f"{style}[1-3]_*")):
            match = _STEM.fullmatch(path.stem)
            if match and path.suffix.lower() in (".wav", ".flac"):
                _, session, sex, emotion = match.groups()
                utterances.append(
                    Utterance(
                        id=path.stem,
                        path=path,
                        speaker=f"{style}{session}_{sex}",
                        emotion=emotion,
                        session=session,
                        sex="female" if sex == "F" else "male",
                        style=style,
                        ratings=ratings(known[path.stem]) if path.stem in known else {},
                    )
                )
    if not utterances:
        raise UserError(
            f"no {' or '.join(styles)} clip of the demo corpus of two domains under {root}; "
            "make it with: emopeft demo --domains"
        )
    return utterances


def _corpus(name: str, styles: tuple[str, ...], what: str) -> Corpus:
    speakers = 6 * len(styles)
    return Corpus(
        name=name,
        title=f"Demo corpus of two domains, {what} (synthetic speech; not emotional speech)",
        licence="synthetic speech, eSpeak NG; not emotional speech; free to use",
        citation="synthesised by EmoPEFT with eSpeak NG (https://github.com/espeak-ng/espeak-ng)",
        read=functools.partial(read, styles=styles),
        emotions=tuple(SETTINGS),
        protocol=f"{name}-3fold",
        folder=f"demo-{styles[0]}/{styles[0]}1_F_angry_01.wav …, made by emopeft demo --domains",
        language="English",
        expected=dict.fromkeys(SETTINGS, speakers * CLIPS_PER_EMOTION),
        speakers=speakers,
        scales={"valence": SCALE, "arousal": SCALE},
    )


register(_corpus("demo-domains", STYLES, "both of them"))
register(_corpus("demo-acted", STYLES[:1], "the acted half"))
register(_corpus("demo-natural", STYLES[1:], "the natural half"))
