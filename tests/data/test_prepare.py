"""From a recipe to a plan: which corpora, where they lie, for which task, with which audio."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from emopeft.downstream.corpora import scan, scan_store
from emopeft.downstream.data import prepare as preparing
from emopeft.downstream.data.places import places_of
from emopeft.downstream.data.prepare import prepare
from emopeft.downstream.data.recipe import build
from emopeft.errors import UserError
from tests.corpora.trees import write_all
from tests.protocols.cases import minimal


def recipe_of(cache: Path, **keys: Any) -> Any:
    dotted = {k.replace("__", "."): v for k, v in keys.items()}
    return build({"cache.dir": str(cache), **dotted})


EMODB = [f"wav/{s}a0{i}{e}a.wav" for s in ("03", "08", "09") for i in (1, 2) for e in "WT"]
RAVDESS = [f"Actor_{a}/03-01-{e}-01-01-0{i}-{a}.wav" for a in ("03", "04") for e in ("04", "05")
           for i in (1, 2)]  # fmt: skip
BOTH = minimal(
    corpus=None,
    corpora=["ravdess", "emodb"],
    classes=["sad", "angry"],
    labels=dict.fromkeys(("ravdess", "emodb"), {"sad": "sad", "angry": "angry"}),
    folds=[{"name": "1", "test": ["emodb/03"], "dev": ["emodb/08"]}],
)


@pytest.fixture
def both(tmp_path: Path) -> Path:
    write_all(tmp_path / "ravdess", RAVDESS)
    write_all(tmp_path / "emodb", EMODB)
    (tmp_path / "both.json").write_text(json.dumps(BOTH))
    return tmp_path


def keys_of(both: Path, **more: Any) -> dict[str, Any]:
    return {
        "corpus__name": "emodb+ravdess",
        "corpus__data": str(both),
        "protocol": str(both / "both.json"),
        **more,
    }


def test_several_corpora_in_one_plan(both, monkeypatch):
    data = prepare(recipe_of(both / "cache", **keys_of(both)))
    assert [c.name for c in data.corpora] == ["ravdess", "emodb"]  # the protocol's order
    assert data.roots == [both / "ravdess", both / "emodb"]
    (fold,) = data.plan.folds
    train = {e.utterance.speaker_uid for e in fold.stages[0].train}
    assert train == {"ravdess/03", "ravdess/04", "emodb/09"}
    assert set(data.plan.audio) == {e.uid for e in data.plan.examples()} == set(data.plan.seconds)
    assert data.plan.audit()["clean"] is True

    shutil.move(both / "emodb", both / "elsewhere")
    places = {"ravdess": str(both / "ravdess"), "emodb": str(both / "elsewhere")}
    again = prepare(recipe_of(both / "cache", **keys_of(both, corpus__data=places)))
    assert again.plan.hash == data.plan.hash and again.plan.audio_hash == data.plan.audio_hash
    monkeypatch.setenv("EMOPEFT_EMODB", places["emodb"])
    del places["emodb"]
    prepare(recipe_of(both / "cache", **keys_of(both, corpus__data=places)))
    monkeypatch.delenv("EMOPEFT_EMODB")
    for changes, message in (
        ({"corpus__data": places}, "where Berlin EmoDB lies is not known: .*EMOPEFT_EMODB"),
        ({"corpus__data": {**places, "emobd": "x"}}, "unknown corpus in corpus.data|EmoDB lies"),
        ({"corpus__name": "ravdess"}, "is for corpora ravdess\\+emodb, not ravdess; give --corpus"),
        ({"corpus__name": "ravdess+ravdess"}, "names a corpus twice"),
        ({"protocol": "pol"}, "unknown protocol 'pol': did you mean pool?"),
        ({"protocol": "ravdess-6fold"}, "is for corpus ravdess, not emodb\\+ravdess"),
        ({"corpus__options": {"language": "all"}}, "unknown corpus in corpus.options"),
        ({"corpus__options": {"emodb": {"language": "all"}}}, "unknown option of corpus emodb"),
        ({"corpus__options": {"emodb": 3}}, "corpus.options.emodb must be"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(recipe_of(both / "cache", **keys_of(both, **changes)))


def test_a_recording_in_two_corpora_of_a_pool_is_found(both):
    keys = keys_of(both, protocol="pool:classes=sad+angry", corpus__allow_incomplete=True)
    assert len(prepare(recipe_of(both / "cache", **keys)).plan.folds) == 5
    shutil.copy(both / "emodb" / EMODB[0], both / "ravdess" / RAVDESS[0])
    with pytest.raises(UserError, match=r"the same audio is in .*\(emodb/03a01Wa = ravdess/03-01"):
        prepare(recipe_of(both / "cache", **keys))


@pytest.mark.parametrize(
    ("words", "corpora", "places"),
    [
        (["a/b"], "ravdess", "a/b"),
        (["a=b/c"], "ravdess", "a=b/c"),  # a path may hold a =
        (["ravdess=a=b"], "ravdess", "a=b"),
        (["all"], "ravdess+emodb", "all"),
        (["emodb=a"], "ravdess+emodb", {"emodb": "a"}),
        (["emodb=a", "emobox:x=b"], "emobox:x+emodb", {"emodb": "a", "emobox:x": "b"}),
    ],
)
def test_where_corpora_lie(words, corpora, places):
    assert places_of(words, corpora.split("+")) == places


def table(folder: Path, speakers: str = "abc") -> Path:
    names = [(f"{s}{e}", s, e) for s in speakers for e in ("sad", "happy")]
    write_all(folder, [f"{name}.wav" for name, _, _ in names])
    rows = "".join(f"{name},{name}.wav,{s},{e}\n" for name, s, e in names)
    (folder / "m.csv").write_text("id,path,speaker,label\n" + rows)
    return folder / "m.csv"


def test_the_protocols_task_is_the_recipes(tmp_path):
    """REVIEW A15: a protocol's task was never compared with the recipe's."""
    keys = {"corpus__name": "manifest", "corpus__data": str(table(tmp_path))}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(minimal(task=["ratings", "emotion"])))
    prepare(recipe_of(tmp_path / "cache", protocol=str(file), **keys))
    file.write_text(json.dumps(minimal(task="ratings")))
    with pytest.raises(UserError, match="protocol mine is for -d ratings, not emotion"):
        prepare(recipe_of(tmp_path / "cache", protocol=str(file), **keys))


def test_other_audio_under_the_same_names_is_another_plan(tmp_path):
    """REVIEW A4, A5: the decoded audio is hashed and compared before anything is trained."""
    keys = {"corpus__name": "manifest", "corpus__data": str(table(tmp_path))}
    first = prepare(recipe_of(tmp_path / "cache", **keys)).plan
    write_all(tmp_path / "other", ["asad-again.wav"])
    shutil.copy(tmp_path / "other/asad-again.wav", tmp_path / "asad.wav")
    second = prepare(recipe_of(tmp_path / "cache", **keys)).plan
    assert first.hash == second.hash and first.audio_hash != second.audio_hash
    shutil.copy(tmp_path / "bsad.wav", tmp_path / "asad.wav")
    with pytest.raises(UserError, match="the same audio is in test and in dev"):
        prepare(recipe_of(tmp_path / "cache", **keys))


def test_audio_is_decoded_once_on_a_machine(tmp_path, monkeypatch):
    """REVIEW C9: every run decoded and hashed the whole corpus anew."""
    keys = {"corpus__name": "manifest", "corpus__data": str(table(tmp_path))}
    monkeypatch.setattr(scan_store, "YOUNG", -60.0)  # files made just now are kept, too
    first = prepare(recipe_of(tmp_path / "cache", **keys)).plan
    monkeypatch.setattr(scan, "examine", lambda *a, **k: pytest.fail("decoded again"))
    again = prepare(recipe_of(tmp_path / "cache", **keys)).plan
    assert again.audio == first.audio and again.seconds == first.seconds


def test_broken_audio_and_wrong_folds_are_told_before_training(tmp_path, monkeypatch):
    keys = {"corpus__name": "manifest", "corpus__data": str(table(tmp_path))}
    (tmp_path / "bsad.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match="1 audio file cannot be used"):
        prepare(recipe_of(tmp_path / "cache", **keys))
    monkeypatch.setattr(preparing, "scan", lambda *a, **k: pytest.fail("read before it was known"))
    with pytest.raises(UserError, match="unknown fold of protocol manifest-speakers '9'"):
        prepare(recipe_of(tmp_path / "cache", folds="1,9", **keys))


@pytest.mark.parametrize(
    ("name", "options", "protocol"),
    [
        ("esd", {}, "esd-english-5fold"),
        ("esd", {"language": "mandarin"}, "esd-mandarin-5fold"),
        ("msp-podcast", {}, "msp-podcast-1.11"),
        ("msp-podcast", {"release": 1.12}, "msp-podcast-1.12"),
    ],
)
def test_a_corpus_options_choose_its_protocol(tmp_path, name, options, protocol):
    recipe = recipe_of(tmp_path, corpus__name=name, corpus__options=options)
    assert preparing.protocol_name(recipe) == protocol
    recipe.protocol = "mine"
    assert preparing.protocol_name(recipe) == "mine"
