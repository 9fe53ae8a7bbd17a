"""experiments.yaml: every row is a recipe, its command gives it, its numbers are the papers'."""

from __future__ import annotations

import csv
import dataclasses
import io
import shlex
from pathlib import Path

import pytest

from emopeft.commands import door
from emopeft.commands.run import recipe_of
from emopeft.downstream.corpora.base import CORPORA
from emopeft.downstream.data.papers import (
    Experiment,
    experiments,
    folder_of,
    papers,
    read_paper,
)
from emopeft.downstream.data.recipe import build, from_file, merge, shipped
from emopeft.downstream.measures.detection import DETAILS
from emopeft.downstream.protocols.makers.base import is_made, make
from emopeft.downstream.protocols.protocol import load_protocol
from emopeft.downstream.reports.papers import command, list_papers, show_paper
from emopeft.downstream.tasks.classes import ClassTask
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.errors import UserError
from emopeft.peft_modules.base import canonical, parse
from tests.peft_modules.cases import FIFTEEN
from tests.peft_modules.test_counts import counts
from tests.protocols.cases import SHIPPED, fake_corpus

# Metrics of papers that no record has: they are never compared with another.
NOT_HERE = {("hubert8", "f1")}

# As the papers print them, by hand: paper, table, row, test, metric, number, mark.
NUMBERS = """
superb,published,fbank,test,accuracy,35.39,code
superb,published,hubert_base,test,accuracy,64.92,code
superb,published,wavlm_large,test,accuracy,70.03,code
superb,published,mockingjay,test,accuracy,50.28,code
lashkarashvili2024,sums,lora,test,accuracy,67.7,fig
lashkarashvili2024,sums,lora-ws,test,accuracy,68.6,fig
lashkarashvili2024,sums,ba,test,accuracy,69.5,fig
lashkarashvili2024,rank,lora-r4,test,accuracy,64.2,fig
lashkarashvili2024,rank,lora-r4-ws,test,accuracy,65.0,fig
lashkarashvili2024,bottleneck,ba-384,test,accuracy,63.2,fig
lashkarashvili2024,bottleneck,ba-64-last3,test,accuracy,54.5,fig
lashkarashvili2024,hubert-large,full,test,accuracy,68.53,later
lashkarashvili2024,hubert-large,lora-ba-ws-wg,test,accuracy,71.88,later
peft-ser2023,iemocap,whisper_tiny-adapter,test,uar,59.7,fig
peft-ser2023,iemocap,whisper_base-frozen,test,uar,67.1,fig
peft-ser2023,iemocap,whisper_small-lora,test,uar,65.1,fig
peft-ser2023,iemocap,wav2vec2_base-prompt,test,uar,65.2,fig
peft-ser2023,iemocap,wavlm_base_plus-lora,test,uar,70.9,fig
hubert8,pool,full,test,eer,7.13,abs
hubert8,pool,lora-classifier,test,accuracy,44.61,abs
hubert8,pool-speakers-shared,lora,test,accuracy,67.15,abs
odyssey2024,attributes,multi-task,test3,ccc_dominance,40.5,code
odyssey2024,attributes,multi-task,dev,ccc_valence,68.8,code
odyssey2024,attributes,valence,test3,ccc,60.7,code
odyssey2024,classes,weighted,test3,macro_f1,31.1,code
"""
HOW_MANY = {  # rows with numbers of the paper
    "superb": 19, "lashkarashvili2024": 12, "peft-ser2023": 23, "sampath2025": 4, "hubert8": 8,
    "odyssey2024": 5,
}  # fmt: skip


def of(name: str) -> dict[str, Experiment]:
    folder = folder_of(name)
    return {e.name: e for e in experiments(folder, read_paper(folder))}


EVERY = [(name, e) for name in papers() for e in of(name).values()]
RUNNABLE = [(name, e) for name, e in EVERY if e.table.recipe]
SAMPLE = [(name, e) for name, e in RUNNABLE if e.row in (e.table.rows[0], e.table.rows[-1])]


def test_every_paper_has_experiments() -> None:
    assert set(papers()) == set(HOW_MANY)
    known = {name: sum(bool(e.row.paper or e.row.relative) for e in of(name).values())
             for name in papers()}  # fmt: skip
    assert known == HOW_MANY


@pytest.mark.parametrize(("name", "experiment"), SAMPLE,
                         ids=[f"{name}-{e.name}" for name, e in SAMPLE])  # fmt: skip
def test_its_command_gives_its_recipe(name: str, experiment: Experiment) -> None:
    recipe = experiment.recipe()
    place = experiment.folder / str(experiment.table.recipe)
    alone = build(merge([from_file(place), experiment.keys]))
    assert alone == recipe  # the paper's alone: nothing of the protocol's defaults comes in
    words = shlex.split(command(experiment))
    assert words[:2] == ["emopeft", "run"] and words[3].startswith(f"recipes/{name}/")
    parser, _ = door.parser()
    assert recipe_of(parser.parse_args(words[1:])) == recipe
    if is_made(recipe.protocol or ""):
        assert experiment.made  # see test_made_protocols
        return
    protocol = load_protocol(recipe.protocol or "")
    corpora = str(recipe.corpus.name).split("+")
    assert list(protocol.corpora) == corpora and all(corpus in CORPORA for corpus in corpora)
    assert recipe.task in protocol.tasks


def test_made_protocols_are_called_as_their_rows_say() -> None:
    """On corpora of the published names; runs are known by what their protocol is called."""
    names = {"iemocap": SHIPPED["iemocap-superb-random-dev"], "esd": SHIPPED["esd-english-5fold"]}
    clips = {
        name: [
            dataclasses.replace(u, corpus=name, style="natural" if "impro" in u.id else "acted")
            for u in fake_corpus(protocol)
        ]
        for name, protocol in names.items()
    }
    made = {(str(r.protocol), str(r.corpus.name), e.made)
            for _, e in SAMPLE for r in [e.recipe()] if is_made(r.protocol or "")}  # fmt: skip
    assert len(made) == 4
    for spec, corpora, called in made:
        of = corpora.split("+")
        utterances = [u for name in of for u in clips[name]]
        assert make(spec, [CORPORA[name] for name in of], utterances).name == called


def test_the_numbers_are_the_papers() -> None:
    for name, table, row, test, metric, number, mark in csv.reader(io.StringIO(NUMBERS.strip())):
        experiment = of(name)[f"{table}/{row}"]
        assert experiment.row.paper[test][metric] == pytest.approx(float(number) / 100), row
        assert experiment.source == mark
    best = of("peft-ser2023")
    means = {m: sum(v for n, e in best.items() for v in [e.row.paper.get("test", {}).get("uar")]
                    if n.startswith("iemocap/") and n.endswith(m) and v) for m in
             ("frozen", "adapter", "prompt", "lora")}  # fmt: skip
    assert means == pytest.approx({"frozen": 3.329, "adapter": 3.21, "prompt": 3.084,
                                   "lora": 3.327})  # fmt: skip
    fast = of("sampath2025")
    assert (fast["iemocap/last3-mixed"].row.relative or 0).speed == 3.0  # type: ignore[union-attr]
    cached = fast["iemocap/last3-mixed-cached"].row.relative
    assert cached and (cached.speed, cached.trainable, cached.to) == (8.3, 0.29, "full")


def test_the_numbers_are_of_metrics_that_the_task_has() -> None:
    """A number given in percent, or of a metric that no record has, could never be compared."""
    for name, experiment in RUNNABLE:
        if not experiment.row.paper:
            continue
        recipe = experiment.recipe()
        ratings = recipe.labels.dimensions
        task = ClassTask("ab") if recipe.task == "emotion" else DimensionalTask(
            dict.fromkeys(ratings, (1.0, 7.0))
        )  # fmt: skip
        for numbers in experiment.row.paper.values():
            for metric, value in numbers.items():
                if (name, metric) in NOT_HERE:
                    continue
                finer = {of.name: of for of in DETAILS}  # which reports count from predictions
                known = finer.get(metric) or task.metric(metric)
                assert known.low <= value <= known.high, (name, experiment.name)


def test_the_parameters_are_those_that_we_count() -> None:
    found = {e.name: (e, e.row.parameters) for _, e in EVERY if e.row.parameters}
    assert len(found) == 5
    for name, (experiment, parameters) in found.items():
        ours = counts("base", str(experiment.keys["method"]))
        assert {part: ours[part] for part in parameters} == parameters, name


def test_all_fifteen_sums_are_there_twice() -> None:
    rows = of("lashkarashvili2024")
    for table in ("sums", "ratings"):
        methods = {canonical(parse(str(e.keys["method"]))) for e in rows.values()
                   if e.table.name == table}  # fmt: skip
        assert methods == {canonical(parse(spec)) for spec in FIFTEEN}
    ranks = {parse(str(e.keys["method"]))[0].r for e in rows.values() if e.table.name == "rank"}  # type: ignore[attr-defined]
    assert ranks == {1, 4, 8, 16}


def test_what_a_user_sees() -> None:
    assert all(name in list_papers() for name in papers())
    shown = show_paper("recipes/lashkarashvili2024/")
    assert "accuracy 0.695 [fig]; 1,189,632 method parameters" in shown
    assert "emopeft run -c recipes/lashkarashvili2024/classes.yaml -p lora:r=4+ws" in shown
    assert "[fig] read off a figure" in shown and "[abs]" not in shown
    pool = show_paper("hubert8")
    assert "-o 'augment.apply=pitch:semitones=-2..2|stretch" in pool and "eer 0.0713 [abs]" in pool
    assert "8.3 times faster, 0.29 of the trainable parameters of full [abs]" in show_paper(
        "sampath2025"
    )
    with pytest.raises(UserError, match="unknown paper 'lashkarashvili': did you mean lash"):
        show_paper("lashkarashvili")


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: hubert8/classes.yaml\ntrain: {lr: 0.1}\n")
    (tmp_path / "experiments.yaml").write_text(
        "schema: 1\ntitle: a\nauthors: b\ntables: [{name: t, title: c, recipe: mine.yaml, "
        "rows: [{name: one, keys: {train.epochs: 2, seeds: [1, 2]}}]}, "
        "{name: later, title: d, waits: a thing that is not here, rows: [{name: two}]}]\n"
    )
    experiment, later = experiments(tmp_path, read_paper(folder_of(str(tmp_path))))
    with pytest.raises(UserError, match="later/two cannot be run yet: a thing that is not here"):
        later.recipe()
    assert "cannot be run yet: a thing that is not here" in show_paper(str(tmp_path))
    recipe = experiment.recipe()
    assert (recipe.train.lr, recipe.train.epochs, recipe.seeds) == (0.1, 2, [1, 2])
    parser, _ = door.parser()
    assert recipe_of(parser.parse_args(shlex.split(command(experiment))[1:])) == recipe


GOOD = "{name: t, title: c, recipe: mine.yaml, rows: [ROW]}"
WRONG = {
    "tables: []": "key 'tables' must have at least 1 item",
    f"tables: [{GOOD.replace('ROW', '{name: a, nme: b}')}]": "unknown key 'tables.0.rows.0.nme'",
    f"tables: [{GOOD.replace('ROW', '{name: a}, {name: a}')}]": "'a' stands twice",
    f"tables: [{GOOD.replace('ROW', '{name: a, paper: {test: {uar: 0.5}}}')}]":
        "row 'a' has numbers and no 'source'",
    f"tables: [{GOOD.replace('ROW', '{name: a, source: web}')}]": "tables.0.rows.0.source",
    f"tables: [{GOOD.replace('ROW', '{name: a, paper: {test: {uar: high}}, source: fig}')}]":
        "paper.test.uar' must be a valid number",
    f"tables: [{GOOD.replace('ROW', '{name: a, source: fig, relative: {to: b}}')}]":
        "row 'a' is relative to 'b', no row",
    f"tables: [{GOOD.replace('mine', '../x').replace('ROW', '{name: a}')}]": "tables.0.recipe",
    "tables: [{name: t, title: c, rows: [{name: a}]}]": "must hold 'recipe', or 'waits'",
    "tables: [": "is not valid YAML",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "experiments.yaml").write_text(f"schema: 1\ntitle: a\nauthors: b\n{text}\n")
    with pytest.raises(UserError) as caught:
        read_paper(tmp_path)
    assert WRONG[text] in str(caught.value) and "\n" not in str(caught.value)
    assert "experiments.yaml" in str(caught.value)


def test_the_readme_names_every_paper() -> None:
    text = (shipped("README.md")).read_text()
    for name in papers():
        assert f"`{name}`" in text and f"emopeft recipes {name}" in text
