"""What the checker says of ratings, votes and traits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.corpora.check import check
from tests.corpora.test_check import COMPLETE, found, toy
from tests.corpora.trees import touch_all, write_all
from tests.shared import SHARED, needs_shared


def test_ratings_and_votes(tmp_path: Path) -> None:
    root = write_all(tmp_path, COMPLETE)
    assert not {"ratings", "votes"} & {f.check for f in check(toy(), root).findings}
    ratings: list[dict[str, float]] = [{"valence": 0.5}, {"valence": 5.5}, {"valence": 3}, {"x": 1}]
    votes: list[dict[str, float]] = [{"sad": 3}, {"sad": 2, "happy": 1}, {"sad": 1, "happy": 1}, {}]
    utterances = [
        dataclasses.replace(u, ratings=r, votes=v, emotion=u.emotion if i != 2 else None)
        for i, (u, r, v) in enumerate(zip(toy().load(root), ratings, votes, strict=True))
    ]
    rated = toy(scales={"valence": (1.0, 5.0), "arousal": (1.0, 5.0)})
    report = check(rated, root, utterances)
    assert found(report, "ratings") == (
        "information",
        [
            "valence: 3 rated, 0.5 to 5.5 (scale 1 to 5, 2 beyond it)",
            "arousal: 0 rated (scale 1 to 5, 0 beyond it)",
            "x: 1 rated, 1 to 1",
        ],
    )
    assert found(report, "votes") == (
        "information",
        [
            "3 of 4 utterances have votes",
            "votes each: 2 (1), 3 (2)",
            "1 utterances with votes have no label",
        ],
    )
    assert "valence: 3 rated" in report.text() and report.data()["findings"]


def test_traits(tmp_path: Path) -> None:
    root = write_all(tmp_path, COMPLETE)
    traits = [("female", "a"), ("female", "b"), ("male", "a"), (None, "")]
    utterances = [
        dataclasses.replace(u, sex=sex, speaker=who, traits={"place": f"p{i}"} if i else {})
        for i, (u, (sex, who)) in enumerate(zip(toy().load(root), traits, strict=True))
    ]
    level, items = found(check(toy(), root, utterances), "traits")
    assert level == "information" and items[:2] == [
        "place: 3 utterances, p1 (1), p2 (1), p3 (1); speakers: p1 1, p2 1",
        "sex: 3 utterances, female (2), male (1); speakers: female 2, male 1",
    ]


@needs_shared
def test_all_of_cremads_tables(tmp_path: Path) -> None:
    assert SHARED is not None
    meta = SHARED / "data" / "cremad_meta"
    touch_all(tmp_path, [f"AudioWAV/{actor}_IEO_ANG_HI.wav" for actor in range(1001, 1092)])
    options = {"demographics": str(meta / "VideoDemographics.csv"), "votes": str(meta)}
    report = check(CORPORA["cremad"], tmp_path, options=options)
    traits = {item.partition(":")[0]: item for item in found(report, "traits")[1]}
    assert traits["sex"].endswith("speakers: female 43, male 48")
    assert traits["age"] == "age: 91 utterances, 38 values"
    assert traits["race"].startswith("race: 90 utterances") and "unknown" not in traits["race"]
    assert "african american 22" in traits["race"] and "hispanic 10" in traits["ethnicity"]
    assert found(report, "votes")[1][0] == "91 of 91 utterances have votes"
