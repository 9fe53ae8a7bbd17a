"""The demo corpus as a manifest with made-up ratings, and protocols on it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.demo import read

VALENCE = {"happy": 4.5, "neutral": 3.0, "angry": 2.0, "sad": 1.5}


def manifest(corpus: Path, place: Path, every: int = 1) -> Path:
    """A rated manifest of every n-th clip of the demo corpus; every eleventh is not rated."""
    with place.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "path", "speaker", "label", "session", "sex", "valence"])
        for number, u in enumerate(read(corpus)[::every]):
            rating = "" if number % 11 == 0 else VALENCE[u.emotion or ""] + number % 5 / 10
            out.writerow([u.id, u.path, u.speaker, u.emotion, u.session, u.sex, rating])
    return place


def protocol(
    place: Path, name: str, task: str, folds: list[dict[str, Any]], unit: str = "session"
) -> Path:
    """A protocol of sessions, or of other units, on that manifest."""
    data = {
        "name": name, "version": 1, "corpus": "manifest", "task": task,
        "description": "For tests.", "source": "ours", "unit": unit, "folds": folds,
    }  # fmt: skip
    place.write_text(json.dumps(data))
    return place


TWO_FOLDS = [{"name": "1", "test": ["1"], "dev": ["2"]}, {"name": "2", "test": ["2"], "dev": ["3"]}]
