"""A paper beside the runs at hand: what matches, what is near, and the numbers that are shown."""

from __future__ import annotations

import copy
import csv
import dataclasses
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from emopeft.commands import door
from emopeft.downstream.data.papers import Experiment, experiments, folder_of, read_paper
from emopeft.leaderboard.gather import Row, gather
from emopeft.leaderboard.matching import differences
from emopeft.leaderboard.papers import Outcome, comparisons, outcomes
from emopeft.leaderboard.render_paper import together
from tests.calls import call
from tests.records.cases import make_record

RECIPE = """
upstream: {name: demo}
corpus: {name: demo}
protocol: demo-5fold
method: none
train: {optimizer: adam, lr: 0.003, epochs: 2, steps: null, patience: null, select: uar}
"""
PAPER = """
schema: 1
title: A paper
authors: Somebody
tables:
  - name: main
    title: Numbers.
    recipe: mine.yaml
    source: fig
    rows:
      - {name: frozen, paper: {test: {accuracy: 0.5, eer: 0.2, f1: 0.5}, dev: {uar: 0.6, eer: 0.1},
         test3: {uar: 0.7, eer: 0.3}},
         parameters: {total: 169639}}
      - {name: faster, keys: {train.lr: 0.1}, paper: {test: {uar: 0.9}}}
      - {name: more, keys: {method: lora, train.lr: 0.001}, relative: {to: frozen, trainable: 2}}
      - {name: elsewhere, keys: {corpus.name: savee, protocol: savee-4fold}}
  - name: later
    title: Not yet.
    waits: a thing that is not here
    rows: [{name: one}]
"""


@pytest.fixture(scope="module")
def place(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A paper of one's own, its first experiment run on all five folds, and a tampered copy."""
    root = tmp_path_factory.mktemp("report")
    (root / "paper").mkdir()
    (root / "paper/mine.yaml").write_text(RECIPE)
    (root / "paper/experiments.yaml").write_text(PAPER)
    words = ("-c", root / "paper/mine.yaml", "--data", demo_corpus, "--out", root / "runs")
    assert call(*words, "-n", "a-name") == 0
    shutil.copytree(root / "runs/a-name", root / "runs/better")
    table = root / "runs/better/fold1_seed0/predictions.csv"
    lines = table.read_text().splitlines()
    cells = lines[1].split(",")
    truth = lines[0].split(",").index("truth")
    cells[truth + 1] = "sad" if cells[truth + 1] != "sad" else "angry"
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    return root


def found(place: Path, **more: Any) -> dict[str, Outcome]:
    paper = read_paper(place / "paper")
    return {o.experiment.row.name: o
            for o in outcomes(place / "paper", paper, gather(place / "runs"), **more)}  # fmt: skip


def test_what_is_the_experiment_what_is_near_and_what_was_not_run(place: Path) -> None:
    asked: list[str] = []
    of = found(place, expected=lambda recipe: asked.append(recipe.method) or "corpus needed: x")
    assert [row.place for row in of["frozen"].runs] == ["a-name"] and of["frozen"].expected is None
    near = of["faster"].near
    assert near and near[0].place == "a-name" and not of["faster"].runs
    assert [str(d) for d in near[1]] == ["train.lr 0.003, not 0.1"]
    assert of["more"].near is None and of["more"].expected == "corpus needed: x"
    keys = [d.key for d in of["elsewhere"].near[1]]  # type: ignore[index]
    assert keys == ["corpus.name", "protocol"]
    assert of["one"].waits == "a thing that is not here" and of["one"].expected is None
    assert asked == ["none", "lora", "none"]


def test_the_page(
    place: Path, demo_corpus: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Through the door: numbers are the leaderboard's, the interval that of the book's table."""
    monkeypatch.setenv("EMOPEFT_DEMO", str(demo_corpus))
    page = place / "page.md"
    words = ["report", str(place / "paper"), str(place / "runs"), "--output", str(page)]
    assert door.main(words) == 1  # a record was refused
    assert "1 record(s) refused" in capsys.readouterr().err
    text = page.read_text()
    board = gather(place / "runs")
    [row] = board.tables[0].rows
    ours = row.mean("test", "accuracy")
    of_folds = [fold["metrics"]["test"]["accuracy"] for fold in row.folds]
    half = 2.776445 * statistics.stdev(of_folds) / 5**0.5  # t of 4 degrees of freedom, 0.975
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = {(c[0], c[1]): c[2:] for c in
             ([x.strip() for x in line.strip("|").split("|")] for line in lines)}  # fmt: skip
    difference = f"{100 * (ours - 0.5):+.2f} ± {100 * half:.2f}"
    assert cells["frozen", "accuracy"] == ["50 [fig]", f"{100 * ours:.2f}", difference, "a-name"]
    assert cells["frozen", "f1"] == ["50 [fig]", "no such metric here", "–", "a-name"]
    rates = [macro_rate(place / f"runs/a-name/fold{fold}_seed0/predictions.csv")
             for fold in range(1, 6)]  # fmt: skip
    ours, half = statistics.mean(rates), 2.776445 * statistics.stdev(rates) / 5**0.5
    difference = f"{100 * (ours - 0.2):+.2f} ± {100 * half:.2f}"
    assert cells["frozen", "eer"] == ["20 [fig]", f"{100 * ours:.2f}", difference, "a-name"]
    rates = [macro_rate(place / f"runs/a-name/fold{fold}_seed0/dev.csv") for fold in range(1, 6)]
    ours = statistics.mean(rates)
    assert cells["frozen", "dev: eer"][:2] == ["10 [fig]", f"{100 * ours:.2f}"]
    assert cells["frozen", "test3: eer"][1] == "no such test here"
    dev = statistics.mean(f["stages"][-1]["result"]["dev"]["uar"] for f in row.folds)
    assert cells["frozen", "dev: uar"][:2] == ["60 [fig]", f"{100 * dev:.2f}"]
    assert cells["frozen", "test3: uar"][1] == "no such test here"
    assert cells["frozen", "total parameters"][:3] == ["169,639", "169,639", "equal"]
    assert cells["faster", "uar"][:2] == ["90 [fig]", "–"]
    assert cells["more", "trainable, of those of frozen"][0] == "2 [fig]"
    assert cells["more", "trainable, of those of frozen"][-1].startswith("not run; at most ")
    assert cells["elsewhere", "–"][-1] == "not run; corpus needed: savee"
    assert cells["one", "–"][-1] == "cannot be run yet"
    assert "- near faster: a-name, but train.lr 0.003, not 0.1" in text
    assert "mine.yaml -p lora -o train.lr=0.001  # more" in text
    assert "**1 of 5 experiments were run; 2 more take at most " in text
    refused = text.partition("## Left out: records that do not hold")[2]
    assert "- better: " in refused and "predictions.csv" in refused


def macro_rate(path: Path) -> float:
    """The mean EER over classes of a file, on scikit-learn's ROC."""
    rows = list(csv.DictReader(path.open()))
    names = [name for name in rows[0] if name.startswith("score_")]
    found = []
    for name in names:
        own = np.array([f"score_{row['truth']}" == name for row in rows])
        scores = np.array([float(row[name]) for row in rows])
        false, hits, _ = roc_curve(own, scores, drop_intermediate=False)
        along = np.linspace(0, len(false) - 1, 200_001)
        false, hits = (np.interp(along, np.arange(len(of)), of) for of in (false, hits))
        found.append(false[np.argmin(np.abs(false - (1 - hits)))])
    return float(np.mean(found))


def identity(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        section = data
        for name in path[:-1]:
            section = section[name]
        section[path[-1]] = value

    return change


# What else a run may be, and the key that is then said.
OTHERS = {
    "upstream.name": identity("upstream", "name", value="whisper_base"),
    "upstream.window": identity("upstream", "options", value={"window": "30s"}),
    "upstream.dropout": identity("identity", "upstream", "dropout", value={"0.x": 0.1}),
    "corpus.allow_incomplete": identity("plan", "complete", value=False),
    "protocol": identity("plan", "protocol", value="demo-5fold-mine"),
    "version of the protocol": identity("plan", "version", value=2),
    "method": identity("method", "parts", value=[{"name": "lora", "options": {"r": 4}}]),
    "clips.mode": identity(
        "identity", "clips", value={"mode": "crop", "seconds": 6.0, "starts": 1}
    ),
    "head.layers": identity("head", "layers", value="last"),
    "head.init": identity("identity", "head", "init", value="probe"),
    "loss.classes": identity("identity", "loss", value={"classes": {"focal": 2.0}}),
    "train.epochs": identity("train", "epochs", value=3),
    "train.select": identity("train", "select", value="accuracy"),
    "train.precision": identity("identity", "numerics", "precision", value="bf16"),
    "cache.enabled": identity("identity", "cache", value="off"),
    "transfer.freeze": identity("identity", "transfer", value={"freeze": ["ba"]}),
    "transfer.origin": identity("identity", "transfer", value={"origin": {"id": "x"}}),
    "views": identity("identity", "views", value={"noise": 10}),
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(place: Path) -> tuple[Experiment, Row]:
    [row] = gather(place / "runs").tables[0].rows
    return next(experiments(place / "paper", read_paper(place / "paper"))), row


@pytest.mark.parametrize("key", OTHERS)
def test_a_run_that_differs_in_one_thing_is_not_the_experiment(
    key: str, pair: tuple[Experiment, Row]
) -> None:
    experiment, row = pair
    recipe = experiment.recipe()
    assert not differences(experiment, recipe, row)
    data = copy.deepcopy(row.data)
    OTHERS[key](data)
    differing = differences(experiment, recipe, dataclasses.replace(row, data=data))
    assert differing[0].key == key and len(differing) <= 2  # cache.dtype with cache.enabled


def test_seeds_and_how_a_step_is_computed_are_no_difference(pair: tuple[Experiment, Row]) -> None:
    experiment, row = pair
    recipe = experiment.recipe()
    data = copy.deepcopy(row.data)
    data["train"] |= {"batch_seconds": 5.0, "compile": True}
    data["train"].pop("choose")  # of a record that is older than the key
    assert not differences(experiment, recipe, dataclasses.replace(row, data=data))
    made = dataclasses.replace(recipe, protocol="pool:folds=3")
    named = dataclasses.replace(experiment, row=experiment.row.model_copy(update={"made": "p-3"}))
    data["plan"]["protocol"] = "p-3"
    assert not differences(named, made, dataclasses.replace(row, data=data))
    assert differences(experiment, made, row)[0].key == "protocol"


def test_a_record_of_which_little_is_known_is_no_experiment(
    tmp_path: Path, pair: tuple[Experiment, Row]
) -> None:
    make_record(tmp_path / "a", (4, 4, 4), method="none")
    [row] = gather(tmp_path).tables[0].rows
    experiment, _ = pair
    for broken in ({}, {"identity": {"numerics": 3}}):
        other = dataclasses.replace(row, data=row.data | broken)
        assert "not recorded" in " ".join(
            map(str, differences(experiment, experiment.recipe(), other))
        )


def test_a_record_of_schema_1_tells_no_eer(pair: tuple[Experiment, Row]) -> None:
    experiment, row = pair
    old = dataclasses.replace(row, data=row.data | {"schema": 1})
    of = {(c.test, c.metric): c for c in comparisons(experiment, old)}
    assert of["test", "accuracy"].ours is not None and of["test", "eer"].ours is None
    assert of["test", "eer"].reason == "a record of schema 1 does not tell"


def test_what_several_experiments_share_is_said_once(place: Path) -> None:
    [one] = found(place)["faster"].near[1]  # type: ignore[index]
    assert together([one, one]) == "train.lr 0.003, not 0.1"
    assert together([one, dataclasses.replace(one, experiment=9)]) == "train.lr 0.003, not theirs"


@pytest.mark.parametrize("name", ["sampath2025"])
def test_a_shipped_paper_beside_runs_of_another(name: str, place: Path) -> None:
    folder = folder_of(name)
    of = outcomes(folder, read_paper(folder), gather(place / "runs"))
    assert of and not any(one.runs for one in of)
