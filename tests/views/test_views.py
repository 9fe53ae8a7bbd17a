"""What views do, heard by machine: the ratio, pitch, tempo and band are measured on the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import welch

from emopeft.downstream.corpora.audio import SAMPLE_RATE
from emopeft.downstream.views.base import (
    CLEAN,
    TRANSFORMS,
    Clip,
    Crowd,
    Drawing,
    Samples,
    View,
    Voice,
    parse_view,
)
from emopeft.downstream.views.channel import Mp3, Opus
from emopeft.downstream.views.conditions import SETS, conditions
from emopeft.downstream.views.room import impulse_response
from emopeft.errors import UserError

CLIP = Clip("a" * 64, "corpus/anna")
TIME = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
RNG = np.random.default_rng(0)


def tone(hertz: float = 440.0) -> Samples:
    return (0.1 * np.sin(2 * np.pi * hertz * TIME)).astype(np.float32)


def noise() -> Samples:
    return (0.1 * np.random.default_rng(5).standard_normal(len(TIME))).astype(np.float32)


def of(text: str, wav: Samples, clip: Clip = CLIP, number: int = 0) -> Samples:
    return Drawing(parse_view(text), clip, number).of(wav)


def db(power: float) -> float:
    return 10 * float(np.log10(power))


def power(wav: np.ndarray) -> float:
    return float(np.mean(np.square(wav, dtype=np.float64)))


def peak(wav: Samples) -> float:
    """The frequency of the strongest component, Hz."""
    spectrum = np.abs(np.fft.rfft(wav * np.hanning(len(wav))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(wav))


def slope(wav: np.ndarray) -> float:
    """Of the power spectrum, dB per octave."""
    frequency, density = welch(wav, SAMPLE_RATE, nperseg=1024)
    inner = (frequency > 100) & (frequency < 4000)
    return float(np.polyfit(np.log2(frequency[inner]), 10 * np.log10(density[inner]), 1)[0])


# ---- noise ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "per_octave"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)]
)
@pytest.mark.parametrize("snr", [20, 0, -5])
def test_noise_has_its_ratio_and_its_colour(kind: str, per_octave: float, snr: int) -> None:
    wav = tone()
    added = of(f"noise:snr={snr},kind={kind}", wav).astype(np.float64) - wav
    assert db(power(wav) / power(added)) == pytest.approx(snr, abs=0.01)
    assert slope(added) == pytest.approx(per_octave, abs=0.3)


def test_the_noise_of_one_ratio_is_that_of_another_louder() -> None:
    """Curves over ratios compare the same noise."""
    wav = tone()
    soft, loud = (of(f"noise:snr={snr}", wav).astype(np.float64) - wav for snr in (20, 0))
    assert loud == pytest.approx(10 * soft, abs=1e-6)


def test_a_range_is_drawn_evenly_and_each_clip_has_its_own() -> None:
    wav = tone()
    clips = [Clip(f"{i:064x}") for i in range(200)]
    ratios = [db(power(wav) / power(of("noise:snr=5..20", wav, c) - wav)) for c in clips]
    assert 5 <= min(ratios) < 6 and 19 < max(ratios) <= 20
    assert np.mean(ratios) == pytest.approx(12.5, abs=1.0)
    first, again = of("noise:snr=5..20", wav), of("noise:snr=5..20", wav)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, of("noise:snr=5..20", wav, number=1))


def test_silence_stays_silence() -> None:
    assert not of("noise:snr=0", np.zeros(1000, np.float32)).any()
    assert not of("reverb", np.zeros(1000, np.float32)).any()


def voices(tmp_path: Path, speakers: str) -> Crowd:
    made = []
    for number, speaker in enumerate(speakers):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, tone(300.0 + 200 * number), SAMPLE_RATE, subtype="FLOAT")
        made.append(Voice(path, f"{number:064x}", f"corpus/{speaker}"))
    return Crowd(tuple(made))


def test_babble_is_of_other_speakers_at_its_ratio(tmp_path: Path) -> None:
    crowd = voices(tmp_path, "abcc")
    wav = noise()
    clip = Clip("b" * 64, "corpus/c", crowd)
    added = of("babble:snr=3,voices=20", wav, clip).astype(np.float64) - wav
    assert db(power(wav) / power(added)) == pytest.approx(3, abs=0.01)
    spectrum = np.abs(np.fft.rfft(added * np.hanning(len(added))))
    heard = [
        spectrum[round(2 * hertz)] > 50 * np.median(spectrum) for hertz in (300, 500, 700, 900)
    ]
    assert heard == [True, True, False, False]  # c does not babble behind c
    with pytest.raises(UserError, match="there are none here"):
        of("babble", wav, Clip("b" * 64, "corpus/c"))
    other = Drawing(parse_view("babble"), Clip("b" * 64, "corpus/c", voices(tmp_path, "ab")))
    assert Drawing(parse_view("babble"), clip).name != other.name


def test_a_folder_of_noises_is_drawn_from_and_known_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "noises" / "deep"
    folder.mkdir(parents=True)
    soundfile.write(folder / "hum.wav", tone(100), SAMPLE_RATE, subtype="FLOAT")
    text = f"noise:snr=0,folder={tmp_path / 'noises'}"
    assert peak(of(text, noise()) - noise()) == pytest.approx(100, abs=1)
    assert str(parse_view(text).spelling) == "noise:snr=0,folder=noises"
    other = tmp_path / "other" / "noises" / "deep"
    other.mkdir(parents=True)
    soundfile.write(other / "hum.wav", tone(120), SAMPLE_RATE, subtype="FLOAT")
    names = {
        Drawing(parse_view(f"noise:snr=0,folder={root / 'noises'}"), CLIP).name
        for root in (tmp_path, tmp_path / "other")
    }
    assert len(names) == 2
    with pytest.raises(UserError, match="is not a folder"):
        of("noise:folder=/nowhere", noise())


# ---- rooms and channels -------------------------------------------------------------------------


@pytest.mark.parametrize("rt60", [0.3, 1.2])
def test_reverberation_decays_as_it_says_and_keeps_level_and_length(rt60: float) -> None:
    """Schroeder's backward integral of the response falls from -5 to -25 dB in a third of RT60."""
    response = impulse_response(rt60, 0.0, np.random.default_rng(1))
    energy = np.cumsum(response[:0:-1] ** 2)[::-1]  # of the tail
    level = 10 * np.log10(energy / energy[0])
    low, high = (int(np.argmax(level < x)) for x in (-25, -5))
    assert 3 * (low - high) / SAMPLE_RATE == pytest.approx(rt60, rel=0.1)
    assert db(1 / np.sum(response[1:] ** 2)) == pytest.approx(0, abs=1e-9)  # direct against tail
    wav = noise()
    heard = of(f"reverb:rt60={rt60}", wav)
    assert len(heard) == len(wav) and power(heard) == pytest.approx(power(wav), rel=1e-4)


def test_a_folder_of_responses_is_applied_from_its_direct_sound_on(tmp_path: Path) -> None:
    response = np.zeros(400, np.float32)
    response[100] = 0.9  # a delay only
    soundfile.write(tmp_path / "ir.wav", response, SAMPLE_RATE, subtype="FLOAT")
    assert of(f"reverb:folder={tmp_path}", tone()) == pytest.approx(tone(), abs=1e-5)


def test_a_telephone_passes_its_band_alone() -> None:
    heard = of("telephone", noise())
    frequency, density = welch(heard, SAMPLE_RATE, nperseg=2048)
    inside = density[(frequency > 500) & (frequency < 3000)].mean()
    for low, high, most in ((0, 150, -25), (4100, 8000, -60), (3900, 4000, -9)):
        outside = density[(frequency > low) & (frequency < high)].mean()
        assert db(outside / inside) < most
    edges = frequency[density > inside / 4]
    assert edges.min() == pytest.approx(300, abs=60) and edges.max() == pytest.approx(3400, abs=150)
    assert _lag(heard, noise()) == 0


CODECS = [("mp3:kbps=16", 3), ("mp3:kbps=64", 8), ("opus:kbps=16", 2)]


def _lag(one: np.ndarray, other: np.ndarray) -> int:
    """By how many samples ``one`` is late."""
    length = len(one) + len(other)
    product = np.fft.rfft(one, length) * np.conj(np.fft.rfft(other, length))
    place = int(np.argmax(np.fft.irfft(product, length)))
    return place if place < length // 2 else place - length


@pytest.mark.parametrize(("text", "least"), CODECS)
def test_a_codec_loses_something_and_delays_nothing(text: str, least: float) -> None:
    wav = (tone(300) + tone(1700) + 0.1 * noise()).astype(np.float32)
    heard = of(text, wav)
    assert len(heard) == len(wav) and abs(_lag(heard, wav)) <= 1
    difference = power(heard - wav) / power(wav)
    assert 1e-6 < difference < 10 ** (-least / 10)


@pytest.mark.parametrize(("codec", "kbps"), [(Mp3, 16), (Mp3, 64), (Opus, 12)])
def test_a_codec_keeps_to_its_rate(codec: type, kbps: int) -> None:
    wav = np.tile(noise(), 5)
    made = parse_view(f"{codec.name}:kbps={kbps}").transforms[0]
    assert isinstance(made, codec)
    measured = len(made.coded(wav)) * 8 / (len(wav) / SAMPLE_RATE) / 1000  # type: ignore[attr-defined]
    assert measured == pytest.approx(kbps, rel=0.35)


def test_loud_clips_are_not_clipped_by_a_codec() -> None:
    wav = 20 * tone()
    assert np.abs(of("opus:kbps=64", wav)).max() == pytest.approx(2.0, rel=0.15)


def test_gain() -> None:
    assert db(power(of("gain:db=-6", noise())) / power(noise())) == pytest.approx(-6, abs=1e-3)


# ---- time and pitch -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hertz", "seconds"),
    [
        ("speed:rate=1.25", 550, 1.6),
        ("stretch:rate=1.25", 440, 1.6),
        ("stretch:rate=0.8", 440, 2.5),
        ("pitch:semitones=3", 440 * 2 ** (3 / 12), 2.0),
        ("pitch:semitones=-5", 440 * 2 ** (-5 / 12), 2.0),
    ],
)
def test_pitch_and_tempo(text: str, hertz: float, seconds: float) -> None:
    heard = of(text, tone())
    assert len(heard) / SAMPLE_RATE == pytest.approx(seconds, abs=1e-4)
    assert peak(heard) == pytest.approx(hertz, rel=0.01)


def test_tempo_by_two_clicks() -> None:
    wav = np.zeros(len(TIME), np.float32)
    wav[[8000, 24000]] = 0.9
    wav = np.convolve(wav, np.hanning(64), "same").astype(np.float32)
    heard = np.abs(of("stretch:rate=0.8", wav))
    first = int(np.argmax(heard[: len(heard) // 2]))
    second = len(heard) // 2 + int(np.argmax(heard[len(heard) // 2 :]))
    assert (second - first) / SAMPLE_RATE == pytest.approx(1.25, abs=0.03)


@pytest.mark.parametrize(
    ("at", "start"), [("start", 0), ("middle", SAMPLE_RATE // 2), ("end", SAMPLE_RATE)]
)
def test_an_excerpt_is_that_stretch(at: str, start: int) -> None:
    wav = noise()
    assert np.array_equal(of(f"excerpt:seconds=1,at={at}", wav), wav[start : start + SAMPLE_RATE])
    assert np.array_equal(of(f"excerpt:seconds=3,at={at}", wav), wav)


def test_masks() -> None:
    wav = noise()
    silent = of("timemask:share=0.25", wav) == 0
    assert silent.mean() == pytest.approx(0.25, abs=0.01)
    assert np.diff(np.flatnonzero(silent)).max() == 1  # in one piece
    changes = welch(of("freqmask:width=0.5", wav), SAMPLE_RATE)[1] / welch(wav, SAMPLE_RATE)[1]
    frequency = welch(wav, SAMPLE_RATE)[0]
    masked = frequency[changes < 0.5]
    assert (masked.max() - masked.min()) / masked.mean() == pytest.approx(0.5, abs=0.2)
    assert np.median(changes) == pytest.approx(1, abs=0.02)


# ---- how they are written -----------------------------------------------------------------------


def test_every_view_keeps_its_word_on_length_type_and_repetition() -> None:
    wav, crowd = tone(), Crowd(())
    for name in TRANSFORMS:
        if TRANSFORMS[name].crowded:
            continue
        for number in range(3):
            drawing = Drawing(parse_view(name), Clip("c" * 64, "", crowd), number)
            heard = drawing.of(wav)
            assert heard.dtype == np.float32 and len(heard) == drawing.length(len(wav)), name
            assert np.array_equal(heard, drawing.of(wav)), name
        assert np.array_equal(wav, tone()), name  # what was given stays as it is


def test_views_follow_each_other_and_are_spelled_one_way() -> None:
    view = parse_view(" noise:snr=10.0 + pitch : semitones=-2..2")
    assert view.spelling == "noise:snr=10+pitch"
    assert parse_view(view.spelling) == view
    both = of("gain:db=6+excerpt:seconds=1", noise())
    assert both == pytest.approx(of("excerpt:seconds=1", of("gain:db=6", noise())))
    assert parse_view(CLEAN) == View() and View().spelling == CLEAN


def test_two_views_that_differ_share_no_name() -> None:
    texts = ["clean", "noise", "noise:snr=11", "noise:kind=pink", "reverb", "noise+reverb",
             "reverb+noise", "mp3", "opus"]  # fmt: skip
    drawings = [Drawing(parse_view(text), CLIP) for text in texts]
    drawings += [
        Drawing(parse_view("noise"), CLIP, 1),
        Drawing(parse_view("noise"), Clip("d" * 64)),
    ]
    assert len({d.name for d in drawings}) == len(drawings)
    assert Drawing(parse_view("noise"), CLIP).name == Drawing(parse_view("noise:snr=10"), CLIP).name


def test_conditions_are_named_sets_or_views() -> None:
    views = [v.spelling for v in conditions(["standard", "noise", "babble:snr=3", CLEAN])]
    assert views == [*SETS["standard"], "babble:snr=3"]
    for texts in SETS.values():
        assert [parse_view(text).spelling for text in texts] == list(texts)
    with pytest.raises(UserError, match="did you mean .*sets of conditions: noise"):
        conditions(["standart"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nois", "unknown transformation 'nois': did you mean noise"),
        ("noise:snr", "'snr' in 'noise:snr' is not option=value"),
        ("noise:sn=3", "unknown option of noise 'sn': did you mean snr"),
        ("noise:snr=loud", "noise:snr = loud must be a number, or a range as 5..20"),
        ("noise:snr=20..5", "a range goes from low to high"),
        ("noise:snr=90", "noise:snr = 90.0 must be at most 60"),
        ("noise:snr=nan", "noise:snr = nan must be a number"),
        ("noise:snr=1,snr=2", "option snr stands twice"),
        ("noise:kind=blue", "unknown value of noise:kind 'blue'"),
        ("clean+noise", "unknown transformation 'clean'"),
        ("", "unknown transformation ''"),
        ("noise+" * 60, "is longer than 200 characters"),
    ],
)
def test_a_wrong_view_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse_view(text)
