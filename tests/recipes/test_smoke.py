"""--smoke: every paper's recipe runs to its end on the demo corpus, all but its size as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from emopeft.commands import card
from emopeft.commands.run import recipe_of
from emopeft.downstream.data.papers import EXPERIMENTS, experiments, folder_of, papers, read_paper
from emopeft.downstream.data.recipe import flatten, shipped
from tests.calls import call, read

CASES = (
    "superb/probe.yaml -u hubert",
    "lashkarashvili2024/classes.yaml -p lora+ba+ws+wg",
    "lashkarashvili2024/ratings.yaml -p ba",
    "lashkarashvili2024/two-stages.yaml -o transfer.freeze=[ba]",
    "peft-ser2023/classes.yaml -p lora@peft-ser",
    "sampath2025/ratings.yaml -p partial:3 -o train.precision=bf16 -o cache.enabled=true",
    "hubert8/classes.yaml -p lora:targets=classifier-only",
    "odyssey2024/classes.yaml",
    "odyssey2024/attributes.yaml",
)
PLACES = {"upstream", "corpus", "protocol", "folds", "seeds", "train.steps", "train.epochs",
          "train.eval_every", "labels.dimensions", "loss.dimension_weights"}  # fmt: skip


@pytest.fixture(autouse=True)
def demo(demo_corpus: Path, demo_domains: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOPEFT_DEMO", str(demo_corpus))
    monkeypatch.setenv("EMOPEFT_DEMO_DOMAINS", str(demo_domains))


@pytest.mark.parametrize("line", CASES)
def test_a_smoke_run_ends(line: str, tmp_path: Path) -> None:
    words = f"-c recipes/{line} --data /nowhere --smoke".split()
    assert call(*words, "--out", tmp_path, "-n", "r") == 0
    record = read(tmp_path / "r" / "result.json")
    [fold] = record["folds"]
    assert fold["status"] == "finished" and fold["stages"][-1]["result"]["steps"] == 2
    two = "transfer-demo-domains-acted-to-natural-4class"
    protocol = two if "two-stages" in line else "demo-5fold"
    assert (record["upstream"]["name"], record["plan"]["protocol"]) == ("demo_base", protocol)


def test_every_recipe_is_among_them() -> None:
    used = {f"{name}/{e.table.recipe}" for name in papers()
            for e in experiments(folder_of(name), read_paper(folder_of(name)))
            if e.table.recipe}  # fmt: skip
    assert {line.split()[0] for line in CASES} == used
    files = {f"{p.parent.name}/{p.name}" for name in papers() for p in shipped(name).glob("*.yaml")
             if p.name != EXPERIMENTS}  # fmt: skip
    assert files - used == {"lashkarashvili2024/training.yaml"}  # which the others extend


def test_nothing_but_the_size_changes() -> None:
    for name in papers():
        for experiment in experiments(folder_of(name), read_paper(folder_of(name))):
            ends = experiment.table.rows[0], experiment.table.rows[-1]
            if not experiment.table.recipe or experiment.row not in ends:
                continue
            small = flatten(experiment.recipe(smoke=True).to_dict(), "small")
            whole = flatten(experiment.recipe().to_dict(), "whole")
            changed = {key for key in whole if small[key] != whole[key]}
            sections = {key if key in PLACES else key.partition(".")[0] for key in changed}
            assert sections <= PLACES, experiment.name
            assert small["upstream.dropout"] == whole["upstream.dropout"]
            rated = small["labels.dimensions"]
            assert rated == [r for r in whole["labels.dimensions"] if r in ("arousal", "valence")]
            assert set(small["loss.dimension_weights"]) <= set(rated)


def test_what_stands_above_smoke_and_what_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places, sizes and corpus are smoke's whatever is asked for; all else is the user's."""
    line = (
        "-u whisper_base --upstream-path /x --data /y --corpus ravdess -p ba:bottleneck=3 "
        "--seed 4,5 -o train.steps=99 -o train.lr=0.5 -o upstream.window=30s --smoke"
    )
    flags = card.parser().parse_args(line.split())
    recipe = recipe_of(flags)
    assert (recipe.method, recipe.train.lr, recipe.train.steps) == ("ba:bottleneck=3", 0.5, 2)
    assert (recipe.upstream.path, recipe.upstream.window, recipe.seeds) == (None, "clip", [0])
    assert (
        recipe.train.head_lr == 2e-3
    )  # of recipes/default/peft.yaml: the protocol's that was asked
    monkeypatch.delenv("EMOPEFT_DEMO")
    assert recipe_of(flags).corpus.data == "demo_corpus"
