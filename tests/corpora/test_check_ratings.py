"""What the checker says of ratings and votes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from emopeft.downstream.corpora.check import check
from tests.corpora.test_check import COMPLETE, found, toy
from tests.corpora.trees import write_all


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
