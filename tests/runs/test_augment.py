"""Training on views: what is kept, what is drawn anew, who babbles, and what the record says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from emopeft.downstream.data.augment import augment_identity
from emopeft.downstream.data.keys import AugmentKeys
from emopeft.downstream.data.prepare import prepare
from emopeft.downstream.data.recipe import Recipe, build
from emopeft.downstream.feature_cache.excerpts import drawn
from emopeft.downstream.feature_cache.extracting import Extraction
from emopeft.downstream.feature_cache.live import Live
from emopeft.downstream.records.record import verify
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.runs.rows import all_rows, crowd_of
from emopeft.downstream.runs.session import chosen_examples, open_session
from tests.calls import call, predictions, read

ALTERNATIVES = ["excerpt:seconds=1,at=random+telephone", "noise:snr=5..20"]
VIEWS = "|".join(reversed(ALTERNATIVES))
KEYS: dict[str, Any] = {
    "upstream.name": "demo", "corpus.name": "demo", "folds": "1", "method": "lora",
    "corpus.allow_incomplete": True, "train.epochs": 2, "augment.apply": VIEWS,
    "augment.views": "2",
}  # fmt: skip
FLAGS = ["-u", "demo", "-d", "emotion", "--corpus", "demo", "--fold", "1",
         "-o", "train.epochs=2", "-o", "train.lr=3e-3",
         "-o", "corpus.allow_incomplete=true"]  # fmt: skip


@pytest.fixture(scope="module")
def small(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the clips: 80, 48 of which each fold trains on."""
    root = tmp_path_factory.mktemp("small")
    for clip in demo_corpus.rglob("*_0[12].wav"):
        place = root / clip.relative_to(demo_corpus)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(clip)
    return root


def recipe(corpus: Path, out: Path, **changes: Any) -> Recipe:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    made = build({**KEYS, "corpus.data": str(corpus), "out": str(out), **named})
    assert isinstance(made, Recipe)
    return made


@pytest.mark.parametrize(
    ("method", "views"), [("none", "2"), ("lora", "2"), ("partial:1", "live"), ("none", "live")]
)
def test_a_run_with_views_is_recorded_counted_and_tested_on_clean_clips(
    method: str, views: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*FLAGS, "--data", small, "--out", tmp_path, "-p", method,
             "-o", f"augment.apply={VIEWS}", "-o", f"augment.views={views}"]  # fmt: skip
    assert call(*flags, "-n", "run") == 0
    run = tmp_path / "run"
    assert verify(run) == []
    record = read(run / "result.json")
    told = record["identity"]["augment"]
    assert told["views"] == views and [[t["name"] for t in v] for v in told["apply"]] == [
        ["noise"], ["excerpt", "telephone"]
    ]  # fmt: skip
    assert record["folds"][0]["augment"] == told
    assert not any("@" in row["id"] for row in predictions(run / "predictions.csv"))
    assert max(one["difference"] for one in evaluate(run)) < 1e-5  # on clean clips, again
    capsys.readouterr()
    if (method, views) == ("lora", "2"):  # nothing is kept: the same views are made in every step
        assert call(*flags, "-n", "off", "-o", "cache.enabled=false") == 0
        rows, off = (predictions(tmp_path / n / "predictions.csv") for n in ("run", "off"))
        scores = [name for name in rows[0] if name.startswith("score_")]
        for one, other in zip(rows, off, strict=True):
            assert all(abs(float(one[n]) - float(other[n])) < 2e-3 for n in scores)


def test_what_is_kept_of_a_view_is_what_the_upstream_makes_of_its_waveform(
    small: Path, tmp_path: Path
) -> None:
    session = open_session(recipe(small, tmp_path, method="none"), "test")
    examples, upstream = session.examples, session.upstream
    assert examples.preloaded is not None
    count, plan = len(session.places), session.plan
    train = session.indices(plan.folds[0].stages[0].train)
    dev = session.indices(plan.folds[0].stages[0].dev)
    assert [len(examples.ways[i]) for i in train] == [3] * len(train)  # clean, and two views
    assert [len(examples.ways[i]) for i in dev] == [1] * len(dev)
    assert len(examples.rows) == count + 2 * len(train)
    spelled: list[list[str]] = []
    for i in train[:3]:
        clean, *views = examples.ways[i]
        assert clean == i and examples.rows[i][0].drawing is None
        (excerpts) = [examples.rows[row][0] for row in views]
        spelled.append([e.drawing.view.spelling for e in excerpts if e.drawing is not None])
        for row, excerpt in zip(views, excerpts, strict=True):
            with torch.no_grad():
                means = upstream.forward([excerpt.read()]).means()[0]
            torch.testing.assert_close(examples.preloaded[row], means, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(examples.preloaded[row], examples.preloaded[i], rtol=1e-3)
            assert torch.equal(examples.targets[row], examples.targets[i])
    # Each clip gets both alternatives in turn, some the one first and some the other.
    assert all(sorted(s) == ALTERNATIVES for s in spelled)
    ways = examples.ways_of(train)
    epochs = [drawn(ways, 0, epoch) for epoch in range(60)]
    shares = [sum(row == i for e in epochs for row, i in zip(e, train, strict=True))]
    assert shares[0] / (60 * len(train)) == pytest.approx(1 / 3, abs=0.03)


def test_nothing_is_computed_twice_and_no_view_is_taken_for_another(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOPEFT_CACHE", str(tmp_path / "cache"))
    computed: list[int] = []
    original = Extraction.__call__

    def counted(self: Extraction, names: Sequence[str]) -> Any:
        computed.append(len(names))
        return original(self, names)

    monkeypatch.setattr(Extraction, "__call__", counted)

    def opened(**changes: Any) -> int:
        computed.clear()
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        open_session(recipe(small, out, method="none", **changes), "test")
        return sum(computed)

    trained = 48
    first = opened(augment__apply="noise:snr=10")
    assert first > 2 * trained
    assert opened(augment__apply="noise:snr=10") == 0
    assert opened(augment__apply="noise:snr=10.0", seeds=[1]) == 0
    assert opened(augment__apply="noise:snr=10", augment__views="3") == trained  # one more of each
    assert opened(augment__apply="noise:snr=11") == 2 * trained
    assert opened(augment__apply="noise:snr=10,kind=pink") == 2 * trained
    assert opened(augment__apply="") == 0  # the clean ones are those of every other run


def test_live_views_are_new_in_every_epoch_and_dev_is_kept(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(
        recipe(small, tmp_path, method="none", augment__views="live", train__epochs=3), "t"
    )
    examples = session.examples
    assert examples.preloaded is None and examples.live is not None and examples.in_turn
    train = session.indices(session.plan.folds[0].stages[0].train)
    ways = examples.ways_of(train)
    taken = [drawn(ways, seed, epoch, examples.in_turn) for seed in (0, 1) for epoch in range(4)]
    assert taken[:4] == taken[4:]
    names = [{examples.rows[row][0].name for row in rows} for rows in taken[:3]]
    assert not names[0] & names[1] and not names[1] & names[2]
    assert taken[3] == taken[0]  # never reached: there are three epochs
    assert all(not examples.rows[row][0].kept for row in taken[0])
    made: list[int] = []
    original = Live.inputs
    monkeypatch.setattr(
        Live, "inputs", lambda self, batch: made.append(len(batch.targets)) or original(self, batch)
    )  # type: ignore[func-returns-value]
    batch = examples.batch(taken[1][:3], "cpu")
    assert made == [3] and isinstance(batch.states, torch.Tensor)
    with torch.no_grad():
        wavs = [examples.rows[row][0].read() for row in taken[1][:3]]
        alone = [session.upstream.forward([wav]).means()[0] for wav in wavs]
    torch.testing.assert_close(batch.states, torch.stack(alone), rtol=1e-4, atol=1e-5)
    dev = session.indices(session.plan.folds[0].stages[0].dev)
    kept = examples.batch(dev[:3], "cpu")
    assert made == [3] and not kept.waveforms


def test_only_the_training_parts_own_speakers_babble(small: Path, tmp_path: Path) -> None:
    given = recipe(small, tmp_path, augment__apply="babble:snr=5..10", folds="1,2")
    plan = prepare(given).plan
    chosen = chosen_examples(given, plan)
    made = all_rows(given, plan, chosen, augmented=True)
    assert len(made.crowded) == 2
    places = {e.key: place for place, e in enumerate(chosen)}
    for fold in plan.folds[:2]:
        stage = fold.stages[0]
        crowd = crowd_of(plan, stage)
        own = {e.utterance.speaker_uid for e in stage.train}
        assert {voice.speaker for voice in crowd.voices} == own
        tested = {e.utterance.speaker_uid for _, _, part in fold.parts() for e in part} - own
        assert tested and not tested & {voice.speaker for voice in crowd.voices}
        for e in stage.train[:5]:
            clean, *views = made.crowded[crowd.digest][places[e.key]]
            for row in views:
                drawing = made.rows[row][0].drawing
                assert drawing is not None and drawing.clip.crowd == crowd
                assert drawing.clip.speaker == e.utterance.speaker_uid
    both = {e.key for e in plan.folds[0].stages[0].train} & {
        e.key for e in plan.folds[1].stages[0].train
    }
    place = places[min(both)]
    one, other = (ways[place][1] for ways in made.crowded.values())
    assert made.rows[one][0].name != made.rows[other][0].name


def test_a_probe_that_heads_start_from_is_that_of_clean_clips(small: Path, tmp_path: Path) -> None:
    session = open_session(recipe(small, tmp_path, head__init="probe"), "test")
    assert session.frozen is not None
    assert all(row[0].drawing is None for row in session.frozen.examples.rows)
    assert any(row[0].drawing is not None for row in session.examples.rows)


def test_without_views_nothing_is_said() -> None:
    assert augment_identity(AugmentKeys()) == {}
    assert augment_identity(AugmentKeys(views="live")) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["augment.apply=gain"], "the view gain changes nothing that demo sees"),
        (["augment.apply=noise+gain:db=3"], "the view gain:db=3 changes nothing that demo sees"),
        (["augment.apply=nois"], "augment.apply: unknown transformation 'nois': did you mean"),
        (["augment.apply=noise||pitch"], "augment.apply: unknown transformation ''"),
        (["augment.apply=clean|noise"], "augment.apply holds clean"),
        (
            ["augment.apply=noise", "augment.views=0"],
            "must be a whole number from 1 to 100",
        ),
        (["augment.apply=noise", "augment.views=many"], "augment.views = many must be a whole"),
        (["augment.apply=noise:folder=/none"], "/none is not a folder"),
    ],
)
def test_what_cannot_be_is_said(
    options: list[str], words: str, small: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [part for option in options for part in ("-o", option)]
    place = ["--data", small, "--out", tmp_path]
    assert call(*FLAGS, *place, "-p", "none", *given) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
