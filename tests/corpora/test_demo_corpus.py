"""The demo corpus: whole, the same every time, learnable and not trivially so."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emopeft.commands import door, modules
from emopeft.downstream.corpora import demo
from emopeft.downstream.corpora import demo_domains as demo_domains_module
from emopeft.downstream.corpora.base import CORPORA, Utterance
from emopeft.downstream.protocols.protocol import load_protocol
from emopeft.errors import UserError
from tests.protocols.cases import plan_of, sides

pytest.importorskip("espeakng_loader", reason="no eSpeak NG: pip install 'emopeft[demo]'")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    steps = []
    demo.synthesise(root, lambda done, total: steps.append((done, total)))
    assert steps == [(n, 240) for n in range(1, 241)]
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_tree_as_read(tree):
    corpus = CORPORA["demo"]
    assert "synthetic" in corpus.title and "synthetic" in corpus.licence
    assert "SYNTHETIC" in (tree / "README.txt").read_text()
    utterances = corpus.load(tree)
    assert len(utterances) == 240 and len({u.speaker for u in utterances}) == 10
    one = next(u for u in utterances if u.id == "ses1_F_angry_03")
    assert one.path == tree / "session1/ses1_F_angry_03.wav"
    assert (one.speaker, one.session, one.sex, one.emotion) == ("ses1_F", "1", "female", "angry")


def test_ratings_are_the_settings(tree):
    """By hand, from the jittered settings of a clip and the ends that any clip could have."""
    corpus = CORPORA["demo"]
    found = {u.id: u.ratings for u in corpus.load(tree)}
    assert corpus.scales == {"valence": (1.0, 5.0), "arousal": (1.0, 5.0)}
    for clip in demo.clips():
        rate, pitch, span, volume = clip.settings
        arousal = 1 + 2 * ((rate - 110) / (235 - 110) + (volume - 16) / (102 - 16))
        valence = 1 + 2 * ((pitch - 17) / (83 - 17) + (span - 3) / (92 - 3))
        got = found[Path(clip.path).stem]
        assert got == pytest.approx({"arousal": arousal, "valence": valence}, abs=1e-12)
        assert all(1 <= x <= 5 for x in got.values())
    mean = {
        (e, name): np.mean([r[name] for i, r in found.items() if e in i])
        for e in demo.SETTINGS for name in ("arousal", "valence")
    }  # fmt: skip
    assert mean["angry", "arousal"] > mean["happy", "arousal"] > mean["neutral", "arousal"]
    assert mean["sad", "arousal"] < 2 < 4 < mean["angry", "arousal"]
    assert mean["happy", "valence"] > 4 and mean["sad", "valence"] < 2


def test_a_clip_of_no_known_settings_has_no_ratings(tmp_path):
    clip = tmp_path / "session1/ses1_F_sad_99.wav"
    clip.parent.mkdir()
    clip.touch()
    (one,) = CORPORA["demo"].load(tmp_path)
    assert one.ratings == {} and one.emotion == "sad"


def test_the_protocol_fits_and_is_clean(tree):
    plan = plan_of(load_protocol("demo-5fold"), CORPORA["demo"].load(tree))
    plan.check_leaks()
    assert [len(f.tests["test"]) for f in plan.folds] == [48] * 5
    found = [sides(plan, i) for i in range(5)]
    sessions = [({u.session for u in s["test"]}, {u.session for u in s["dev"]}) for s in found]
    assert sessions[0] == ({"1"}, {"2"}) and sessions[4] == ({"5"}, {"1"})


def test_clips_are_16_khz_mono_speech(tree):
    for path in tree.glob("session*/*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 0.8 < info.duration < 3
        samples, _ = soundfile.read(path)
        assert 0.05 < np.abs(samples).max() < 0.95  # neither silent nor clipped


def test_the_same_bytes_every_time(tree, tmp_path):
    demo.synthesise(tmp_path)
    assert contents(tmp_path) == contents(tree)
    clips = [data for name, data in contents(tree).items() if name.endswith(".wav")]
    assert len(set(clips)) == 240


def test_a_whole_tree_is_left_alone_and_a_broken_one_made_whole(tree, monkeypatch):
    before = contents(tree)
    (tree / "session2/ses2_M_sad_04.wav").unlink()
    demo.synthesise(tree)
    assert contents(tree) == before
    monkeypatch.setattr(demo, "_spoken", lambda todo: pytest.fail("spoke again"))
    times = {p: p.stat().st_mtime_ns for p in tree.rglob("*")}
    demo.synthesise(tree)
    assert times == {p: p.stat().st_mtime_ns for p in tree.rglob("*")}


def spectra(utterances: list[Utterance]) -> np.ndarray:
    """Mean and deviation over time of log energies in 40 bands, (clips, 80)."""
    rows = []
    for u in utterances:
        samples, _ = soundfile.read(u.path)
        frames = np.lib.stride_tricks.sliding_window_view(samples / samples.std(), 400)[::160]
        power = np.abs(np.fft.rfft(frames * np.hanning(400)))[:, :200].reshape(-1, 40, 5) ** 2
        log = np.log(power.mean(2) + 1e-3)
        rows.append(np.concatenate([log.mean(0), log.std(0)]))
    return np.asarray(rows)


def accuracy(
    features: np.ndarray, train: list[Utterance], test: list[Utterance] | None = None
) -> float:
    """Of a linear model, leaving one session out; features are those of train, then of test."""
    everyone = train + (test or [])
    labels = np.array([u.emotion for u in everyone])
    sessions = np.array([u.session for u in everyone])
    of_test = np.arange(len(everyone)) >= (len(train) if test else 0)
    hits = []
    for session in sorted(set(sessions)):
        held = sessions == session
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        fit = ~held & (~of_test if test else True)
        model.fit(features[fit], labels[fit])
        hits.append(model.score(features[held & of_test], labels[held & of_test]))
    return float(np.mean(hits))


def test_learnable_across_sessions_but_not_from_one_number(tree):
    utterances = CORPORA["demo"].load(tree)
    durations = np.array([[soundfile.info(u.path).frames] for u in utterances])
    assert 0.6 < accuracy(spectra(utterances), utterances) < 0.97
    assert accuracy(durations, utterances) < 0.7


def test_two_domains_are_one_tree_and_three_corpora(demo_domains):
    whole = CORPORA["demo-domains"].load(demo_domains)
    halves = {}
    for style in ("acted", "natural"):
        corpus = CORPORA[f"demo-{style}"]
        halves[style] = corpus.load(demo_domains)  # as place_of gives it, or the tree
        assert halves[style] == corpus.load(demo_domains / f"demo-{style}")
        assert {(u.style, u.emotion) for u in halves[style]} == {(style, e) for e in demo.SETTINGS}
        assert all(1 <= x <= 5 for u in halves[style] for x in u.ratings.values())
    ids = [u.id for half in halves.values() for u in half]
    assert [u.id for u in whole] == ids and len(set(ids)) == 192
    assert len({u.path.read_bytes() for u in whole}) == 192
    speakers = [{u.speaker for u in half} for half in halves.values()]
    assert [len(s) for s in speakers] == [6, 6] and not speakers[0] & speakers[1]
    for name, clips in (("demo-domains", whole), ("demo-natural", halves["natural"])):
        plan = plan_of(load_protocol(f"{name}-3fold"), clips)
        plan.check_leaks()
        assert plan.complete and len(plan.folds[0].tests["test"]) == len(clips) / 3
    with pytest.raises(UserError, match="emopeft demo --domains"):
        CORPORA["demo-natural"].load(demo_domains / "demo-acted")


def test_there_is_something_to_gain_from_the_other_domain(demo_domains):
    """Each half is learned better from its own sessions than from the other half's."""
    acted, natural = (CORPORA[f"demo-{x}"].load(demo_domains) for x in ("acted", "natural"))
    for mine, other in ((acted, natural), (natural, acted)):
        features = spectra(other + mine)
        home, away = accuracy(features[len(other) :], mine), accuracy(features, other, mine)
        assert 0.5 < home < 0.9 and 0.25 < away < home - 0.05


def test_the_door_makes_two_domains(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(demo_domains_module, "synthesise", lambda root, show: made.append(root))
    monkeypatch.setattr(demo_domains_module, "read", lambda root, styles: [])
    assert door.main(["demo", "--domains", str(tmp_path)]) == 0
    assert made == [tmp_path / "demo_domains"] and not contents(tmp_path)
    assert "--corpus demo-acted+demo-natural --data" in capsys.readouterr().out


def test_without_espeak_the_way_out_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r'pip install "emopeft\[demo\]"'):
        demo.synthesise(tmp_path)
    assert modules.demo_corpus([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not contents(tmp_path)


def test_a_crash_of_the_library_is_one_sentence(tmp_path, monkeypatch):
    bad = demo.Clip("session1/x.wav", "no-such-voice", "Hello.", (170, 50, 50, 50), 1)
    monkeypatch.setattr(demo, "clips", lambda: iter([bad]))
    with pytest.raises(UserError, match="SetVoiceByName.*no-such-voice"):
        demo.synthesise(tmp_path)
    assert not contents(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "session1").write_text("a file where a folder belongs")
    with pytest.raises(UserError, match="cannot write .*ses1_F_neutral_01.wav"):
        demo.synthesise(tmp_path)


def test_an_empty_folder_says_how_to_make_the_corpus(tmp_path):
    with pytest.raises(UserError, match="python -m downstream.corpora.demo"):
        CORPORA["demo"].load(tmp_path)
