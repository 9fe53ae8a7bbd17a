"""Reading audio: values against hand calculation, and every way a file can be broken."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emopeft.downstream.corpora.audio import decode, duration, examine
from emopeft.errors import UserError


def sine(rate: int, seconds: float, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def test_16_khz_mono_comes_as_it_is(tmp_path: Path) -> None:
    pcm = np.array([0, 1, -1, 16384, -32768, 32767] * 100, dtype=np.int16)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, pcm, 16000)
        wav = decode(tmp_path / name)
        assert wav.dtype == np.float32 and wav.shape == (600,)
        np.testing.assert_array_equal(wav, pcm.astype(np.float32) / 32768)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = sine(16000, 0.1), sine(16000, 0.1, 1000)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(decode(tmp_path / "s.wav"), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 22050, 24414, 44100, 48000, 96000])
def test_a_sine_of_any_rate_is_that_sine_at_16_khz(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "s.wav", sine(rate, 0.5), rate, subtype="FLOAT")
    wav = decode(tmp_path / "s.wav")
    assert abs(len(wav) - 8000) <= 1
    inner = slice(1000, 7000)  # away from the filter's edges
    np.testing.assert_allclose(wav[inner], sine(16000, 0.5)[inner], atol=1e-4)
    assert duration(tmp_path / "s.wav") == pytest.approx(0.5, abs=1 / rate)


def test_what_16_khz_cannot_hold_is_filtered_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", sine(48000, 0.5, 12000), 48000, subtype="FLOAT")
    assert np.abs(decode(tmp_path / "s.wav")[500:-500]).max() < 1e-4


def test_decoding_is_deterministic(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", sine(44100, 0.3), 44100)
    np.testing.assert_array_equal(decode(tmp_path / "s.wav"), decode(tmp_path / "s.wav"))


def test_the_shortest_clip_gives_enough_samples_at_any_rate(tmp_path: Path) -> None:
    for rate in (8000, 11025, 22050, 24414, 44100, 48000):
        count = int(np.ceil(0.025 * rate))
        soundfile.write(tmp_path / "s.wav", sine(rate, 1)[:count], rate)
        assert len(decode(tmp_path / "s.wav")) >= 400
        soundfile.write(tmp_path / "s.wav", sine(rate, 1)[: count - 2], rate)
        with pytest.raises(UserError, match=r"s\.wav lasts 0\.02\d+ s, less than 0\.025 s"):
            decode(tmp_path / "s.wav")


def test_the_minimum_can_be_chosen(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", sine(16000, 0.01), 16000)
    assert len(decode(tmp_path / "s.wav", minimum=0.005)) == 160
    with pytest.raises(UserError, match="less than 0.2 s"):
        decode(tmp_path / "s.wav", minimum=0.2)


def damaged(folder: Path, case: str) -> Path:
    """A file broken in one way."""
    path = folder / ("x.flac" if case.startswith("flac") else "x.wav")
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 8000).astype(np.float32)
    if case in ("NaN", "infinite"):
        samples[100] = np.nan if case == "NaN" else np.inf
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    elif case == "no samples":
        soundfile.write(path, samples[:0], 16000)
    elif case == "zero bytes":
        path.touch()
    elif case == "text":
        path.write_text("no such page\n" * 20)
    elif case == "git lfs pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    elif case == "folder":
        path.mkdir()
    elif case in ("wav cut in half", "flac cut in half", "flac with a hole"):
        soundfile.write(path, samples, 16000)
        data = path.read_bytes()
        half = len(data) // 2
        hole = data[:half] + b"\x55" * 50 + data[half + 50 :]
        path.write_bytes(hole if case.endswith("hole") else data[:half])
    return path


@pytest.mark.parametrize(
    ("case", "kind", "message"),
    [
        ("missing", "missing", "does not exist"),
        ("zero bytes", "empty", "is empty"),
        ("no samples", "empty", "holds no samples"),
        ("text", "unreadable", "cannot be read as audio"),
        ("git lfs pointer", "unreadable", "git lfs pull"),
        ("folder", "unreadable", "is a folder"),
        ("wav cut in half", "unreadable", "bytes are missing"),
        ("flac cut in half", "unreadable", "is damaged"),
        ("flac with a hole", "unreadable", "is damaged"),
        ("NaN", "not finite", "1 samples that are NaN or infinite"),
        ("infinite", "not finite", "1 samples that are NaN or infinite"),
    ],
)
def test_a_broken_file_is_one_sentence_that_names_it(
    tmp_path: Path, case: str, kind: str, message: str
) -> None:
    path = damaged(tmp_path, case)
    with pytest.raises(UserError) as caught:
        decode(path)
    text = str(caught.value)
    assert str(path) in text and message in text and "\n" not in text
    clip = examine(path)
    assert clip.kind == kind and clip.problem is not None and message in clip.problem
    if case in ("missing", "zero bytes", "text", "wav cut in half"):
        with pytest.raises(UserError):
            duration(path)


def test_a_header_that_is_off_by_little_or_written_to_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, sine(16000, 1), 16000)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    assert len(decode(path)) == 15995 and examine(path).cut == 10
    for size in (0xFFFFFFFF, 0x7FFFF024):
        path.write_bytes(data[:4] + size.to_bytes(4, "little") + data[8:])
        assert len(decode(path)) == 16000 and examine(path).cut == 0


def test_examine_measures(tmp_path: Path) -> None:
    samples = np.zeros((1000, 2), dtype=np.int16)
    samples[:5, 0] = 32767
    samples[10, 1] = -16384
    soundfile.write(tmp_path / "x.wav", samples, 8000)
    soundfile.write(tmp_path / "x.flac", samples, 8000)
    wav, flac = examine(tmp_path / "x.wav"), examine(tmp_path / "x.flac")
    assert (wav.seconds, wav.rate, wav.channels) == (0.125, 8000, 2)
    assert wav.clipped == pytest.approx(5 / 2000) and wav.peak == pytest.approx(32767 / 32768)
    assert wav.audio == flac.audio and wav.digest != flac.digest
    samples[20, 0] = 1
    soundfile.write(tmp_path / "y.wav", samples, 8000)
    assert examine(tmp_path / "y.wav").audio != wav.audio


# ---- files that nobody would call audio -------------------------------------------------------


@pytest.mark.parametrize(("case", "message"), [("pipe", "is a pipe"), ("zero", "is a device")])
def test_what_never_ends_is_not_opened(tmp_path: Path, case: str, message: str) -> None:
    """REVIEW D5: a pipe hung for ever, and so did a link to /dev/zero."""
    path = tmp_path / "x.wav"
    if case == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    problems: list[str | None] = []

    def look() -> None:
        problems.append(examine(path).problem)
        for read in (decode, duration):
            try:
                read(path)
            except UserError as error:
                problems.append(str(error))

    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    reader.join(10)
    assert len(problems) == 3
    assert all(p is not None and message in p for p in problems)


def test_a_rate_that_no_speech_has_is_refused(tmp_path: Path) -> None:
    """REVIEW D5: 16 kB that say 1 Hz became 128 M samples."""
    path = tmp_path / "x.wav"
    for rate, good in ((1, False), (999, False), (1000, True), (768_000, True), (768_001, False)):
        soundfile.write(path, np.zeros(2000, dtype=np.int16), rate)
        path.write_bytes(path.read_bytes()[: 44 + 4000])
        if good:
            assert examine(path, 0.0).problem is None
            assert len(decode(path, minimum=0.0)) == pytest.approx(2000 * 16000 / rate, abs=1)
        else:
            with pytest.raises(UserError, match=f"says that it has {rate} Hz"):
                decode(path)


def promise(path: Path, samples: int, channels: int = 1) -> None:
    """A small FLAC file whose header says that it has many samples."""
    soundfile.write(path, np.zeros((4096, channels), dtype=np.int16), 16000)
    data = bytearray(path.read_bytes())
    assert data[:4] == b"fLaC"
    word = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples  # the low 36 bits of STREAMINFO
    data[18:26] = word.to_bytes(8, "big")
    path.write_bytes(data)


def test_a_day_of_audio_is_no_clip(tmp_path: Path) -> None:
    """REVIEW D5: nothing bounded what a header may promise."""
    path = tmp_path / "x.flac"
    day = 24 * 3600 * 16000
    for samples, channels, kind in (
        (4096, 1, None),
        (day + 1, 1, "too long"),
        (2**36 - 1, 1, "too long"),
        (day // 2, 8, "too long"),
    ):
        promise(path, samples, channels)
        clip = examine(path)
        assert clip.kind == kind
        assert kind is None or str(path) in str(clip.problem)
    with pytest.raises(UserError, match="more than a clip can have"):
        duration(path)


def test_no_file_stays_open(tmp_path: Path) -> None:
    good, odd, text = tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav"
    soundfile.write(good, sine(16000, 0.1), 16000)
    soundfile.write(odd, sine(16000, 0.1), 1)
    text.write_text("no audio")
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        for path in (good, odd, text, tmp_path / "gone.wav", tmp_path):
            examine(path)
    assert len(list(Path("/dev/fd").iterdir())) == before
