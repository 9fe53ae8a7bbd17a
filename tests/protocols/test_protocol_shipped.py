"""The shipped folds against their published sources."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from sklearn.model_selection import KFold

from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.protocols import build
from emopeft.downstream.protocols.protocol import load_protocol
from emopeft.errors import UserError
from tests.protocols.cases import (
    SHIPPED,
    SUPERB,
    fake_corpus,
    plan_of,
    sides,
)
from tests.shared import SHARED, needs_shared

PUBLISHED = SHARED / "protocols/iemocap_s3prl/meta_data" if SHARED else Path()


def test_the_protocols_of_the_issue_are_there():
    assert set(SHIPPED) == {
        SUPERB, "iemocap-loso", "iemocap-loso-all", "ravdess-6fold", "ravdess-6fold-4class",
        "cremad-5fold", "cremad-5fold-4class", "emodb-loso", "emodb-loso-4class", "savee-4fold",
        "savee-4fold-4class", "tess-2fold-random-dev", "tess-2fold-4class-random-dev",
        "esd-english-5fold", "esd-english-5fold-4class", "manifest-speakers", "manifest-sessions",
        "manifest-split", "manifest-split-random-dev", "demo-5fold", "iemocap-vad-loso",
        "iemocap-vad-random-dev", "iemocap-votes-loso", "msp-improv-loso", "msp-improv-vad-loso",
        "msp-improv-votes-loso", "meld-official-leaks", "esd-mandarin-5fold",
        "esd-mandarin-5fold-4class", "emovo-loso", "emovo-loso-4class", "jl-loso",
        "jl-loso-4class", "cafe-6fold", "cafe-6fold-4class", "subesco-5fold",
        "subesco-5fold-4class", "aesdd-loso", "shemo-5fold", "shemo-5fold-4class", "urdu-5fold",
        "emozionalmente-5fold", "emozionalmente-5fold-4class",
        "demo-domains-3fold", "demo-acted-3fold", "demo-natural-3fold",
        "eight-emotions", "eight-emotions-random-leaks",
        *(f"msp-podcast-{release}{kind}" for release in ("1.7", "1.11", "1.12")
          for kind in ("", "-4class", "-vad", "-votes")),
    }  # fmt: skip


def test_every_corpus_has_its_default_protocol_and_knows_its_labels():
    for name, corpus in CORPORA.items():
        if corpus.folds is None:  # else it brings its own
            assert load_protocol(corpus.protocol).corpora in ((name,), (corpus.like,))
    for protocol in SHIPPED.values():
        for corpus in protocol.corpora:
            known = CORPORA[corpus].emotions
            assert not known or set(protocol.labels.get(corpus, ())) <= set(known)


def own_split(protocol) -> bool:
    return protocol.rule is not None and protocol.rule.by == "split"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, protocol in SHIPPED.items()
        if "emotion" in protocol.tasks
        and not (own_split(protocol) and protocol.corpus != "manifest")  # test_protocol_msp.py
        and "leaks" not in name  # test_pools.py
    ],
)
def test_shipped_protocol_on_a_corpus_of_published_size(name):
    protocol = SHIPPED[name]
    plan = plan_of(protocol, fake_corpus(protocol))
    plan.check_leaks()
    assert plan.complete and not plan.missing
    tested = Counter(e.utterance.id for fold in plan.folds for e in fold.tests["test"])
    assert set(tested.values()) == {1}  # everyone once
    for i in range(len(plan.folds)):
        everyone = [u.id for side in sides(plan, i).values() for u in side]
        assert len(set(everyone)) == len(everyone)
        if not own_split(protocol):
            assert set(everyone) == set(tested)  # no one forgotten
        who = {side: {u.speaker_uid for u in found} for side, found in sides(plan, i).items()}
        assert not who["test"] & (who["train"] | who["dev"])
        assert bool(who["dev"] & who["train"]) == ("random-dev" in name and not protocol.rule)


def test_files_are_what_the_kept_script_makes():
    cremad = SHARED / "data/cremad_meta" if SHARED else Path()
    made = build.build(
        PUBLISHED if (PUBLISHED / "Session1").is_dir() else None,
        cremad if (cremad / "VideoDemographics.csv").is_file() else None,
    )
    assert len(made) >= 18
    for name, text in made.items():
        assert (build.HERE / name).read_text(encoding="utf-8") == text, name
    assert {p.stem for p in build.HERE.glob("*.json")} <= {n[:-5] for n in made} | {
        SUPERB, "iemocap-loso", "eight-emotions"
    }  # fmt: skip


def test_the_tasks_that_protocols_are_for():
    rated, voted = ("emotion", "dimensional"), ("emotion-soft", "emotion-multi")
    more = {"ravdess-6fold": rated, "demo-5fold": rated, "iemocap-loso": rated, SUPERB: rated}
    more |= {"cremad-5fold": ("emotion", *voted), "iemocap-votes-loso": voted}
    more |= {f"demo-{what}-3fold": rated for what in ("domains", "acted", "natural")}
    more |= {"cafe-6fold": rated, "emozionalmente-5fold": ("emotion", *voted)}
    more |= {name: ("dimensional",) for name in SHIPPED if "-vad" in name}
    more |= {name: voted for name in SHIPPED if "-votes" in name}
    for name, protocol in SHIPPED.items():
        usual = (*rated, *voted) if name.startswith("manifest") else ("emotion",)
        assert protocol.tasks == more.get(name, usual), name


# Frozen on ec61fdd, before ratings and votes: whoever changes folds or labels raises the version.
HASHES = {
    "cremad-5fold": "da5ddb52fc18e4a7",
    "cremad-5fold-4class": "760182f8c980efff",
    "demo-5fold": "33d34ed0b930375e",
    "emodb-loso": "da930e0ce7a9c904",
    "emodb-loso-4class": "ae624f8def61f384",
    "esd-english-5fold": "de7e45cb0146406f",
    "esd-english-5fold-4class": "1829e7913e63a3ad",
    "iemocap-loso": "c17b7c697c7822c9",
    "iemocap-loso-all": "64c4160a758c1816",
    "iemocap-superb-random-dev": "fb6373b06343456b",
    "manifest-sessions": "1ba9c8ba666637d9",
    "manifest-speakers": "1ba9c8ba666637d9",
    "manifest-split": "99dd203d7cd2bda5",
    "manifest-split-random-dev": "99dd203d7cd2bda5",
    "ravdess-6fold": "60102b54ce8b73a6",
    "ravdess-6fold-4class": "eb958bc8d2ac55b7",
    "savee-4fold": "47666c5d7ff94e28",
    "savee-4fold-4class": "60d8092f5314fad3",
    "tess-2fold-4class-random-dev": "e7c546a8c52f2d99",
    "tess-2fold-random-dev": "5c193603f67c116d",
}


def test_plans_of_emotion_are_what_they_were_before_other_tasks():
    for name, known in HASHES.items():
        assert plan_of(SHIPPED[name], fake_corpus(SHIPPED[name])).hash[:16] == known, name


def test_build_check_and_wrong_metadata(capsys, tmp_path):
    assert build.main(["--check"]) == 0
    assert build.main(["--check", "--iemocap-metadata", str(tmp_path)]) == 2
    assert "train_meta_data.json" in (err := capsys.readouterr().err) or "test_meta_data" in err


def test_cremad_folds_are_kfold_over_the_actors_in_order():
    actors = [str(n) for n in range(1001, 1092)]
    for fold, (rest, test) in zip(
        SHIPPED["cremad-5fold"].folds, KFold(5).split(actors), strict=True
    ):
        assert fold.tests["test"] == tuple(actors[i] for i in test)
        assert fold.stages[0].dev == tuple(
            actors[i] for i in rest[-len(rest) // 5 :]
        )  # PEFT-SER's line


def test_ravdess_test_actors_are_emoboxs_and_dev_is_balanced():
    folds = SHIPPED["ravdess-6fold"].folds
    assert [" ".join(fold.tests["test"]) for fold in folds] == [
        "01 11 20 21", "04 10 12 14", "08 09 19 23", "03 05 07 24", "02 15 16 18", "06 13 17 22"
    ]  # fmt: skip
    for fold in folds:
        assert sorted(int(actor) % 2 for actor in fold.stages[0].dev) == [0, 0, 1, 1]  # odd = male


def test_emodb_and_esd_dev_parts_hold_both_sexes():
    male = {"03", "10", "11", "12", "15", "0011", "0012", "0013", "0014", "0020"}
    for name in ("emodb-loso", "esd-english-5fold"):
        for fold in SHIPPED[name].folds:
            assert [s in male for s in fold.stages[0].dev].count(True) == 1


def test_tess_dev_words_by_hand():
    plan = plan_of(SHIPPED["tess-2fold-random-dev"], fake_corpus(SHIPPED["tess-2fold-random-dev"]))
    for i in range(2):
        words = {s: {u.id.split("_")[1] for u in us} for s, us in sides(plan, i).items()}
        assert not words["dev"] & words["train"]
        for word in words["dev"] | words["train"]:
            chosen = int(hashlib.sha256(word.encode()).hexdigest(), 16) % 5 == 0
            assert chosen == (word in words["dev"])
        assert 30 <= len(words["dev"]) <= 50


RAVDESS_HASH = "14b0df9e789e1364"


@needs_shared
def test_real_ravdess_and_emodb():
    assert SHARED
    ravdess = CORPORA["ravdess"].load(SHARED / "data/ravdess")
    plan = plan_of(SHIPPED["ravdess-6fold"], ravdess)
    plan.check_leaks()
    assert len(plan.folds) == 6 and sum(len(f.tests["test"]) for f in plan.folds) == 1440
    total = Counter(plan.task.class_of(e.utterance) for f in plan.folds for e in f.tests["test"])
    assert total.pop("neutral") == 96 and set(total.values()) == {192} and len(total) == 7
    assert {len(f.tests["test"]) for f in plan.folds} == {240}
    # Frozen: whoever changes the folds, the order or the labels raises the version.
    assert plan.hash[:16] == RAVDESS_HASH
    four = plan_of(SHIPPED["ravdess-6fold-4class"], ravdess)
    assert four.dropped == {"calm": 192, "fearful": 192, "disgusted": 192, "surprised": 192}

    utterances = CORPORA["emodb"].load(SHARED / "data/emodb")  # three emotions are missing there
    plan = plan_of(SHIPPED["emodb-loso-4class"], utterances)
    plan.check_leaks()
    assert sum(len(f.tests["test"]) for f in plan.folds) == 339 and len(plan.folds) == 10
    with pytest.raises(UserError, match="bored 0 instead of 81"):
        plan_of(SHIPPED["emodb-loso"], utterances)
