"""Running the command line in this process, as a user would call it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import run_downstream

SHORT = ["-o", "train.epochs=2", "-o", "train.lr=3e-3"]


def call(*argv: object) -> int:
    """The exit status of ``run_downstream.py ARGV``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run_downstream.py", *map(str, argv)])
        with pytest.raises(SystemExit) as caught:
            run_downstream.entry_point()
    return int(caught.value.code or 0)


def demo_run(corpus: Path, out: Path, *more: object, method: str = "lora", name: str = "r") -> int:
    """A short run on the demo corpus, fold 1; flags in ``more`` take the place of these."""
    flags = {"-u": "demo", "-d": "emotion", "-p": method, "--corpus": "demo", "--data": corpus,
             "--fold": "1", "--out": out, "-n": name}  # fmt: skip
    words = [word for flag, value in flags.items() if flag not in more for word in (flag, value)]
    return call(*words, *SHORT, *more)


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def predictions(path: Path) -> list[dict[str, str]]:
    """The rows of a predictions.csv."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores(run: Path) -> list[tuple[str, dict[str, float]]]:
    """Id and scores of a run's test utterances."""
    return [
        (row["id"], {k: float(v) for k, v in row.items() if k.startswith("score_")})
        for row in predictions(run / "predictions.csv")
    ]
