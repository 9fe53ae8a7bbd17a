"""Testing a run again from its checkpoints, in a new process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.data.fold import Example
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.data.places import places_of
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.prepare import choose_corpora, place_of, prepare
from emopeft.downstream.data.recipe import Recipe, build, flatten, read_yaml
from emopeft.downstream.measures.columns import Table
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.records.folds import by_test, read_fold
from emopeft.downstream.runs.checkpoints import best_device, fold_folders, outputs_of_clip
from emopeft.downstream.tasks.base import rows_of
from emopeft.downstream.views.base import Samples
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from emopeft.upstream.base import SAMPLE_RATE

RETIRED = ("reports",)  # keys of recipes of earlier versions, which decided nothing


def evaluate(
    run: Path,
    fold: str = "all",
    upstream_path: str | None = None,
    data: Sequence[str] | None = None,
    seed: int | None = None,
) -> list[dict[str, Any]]:
    """Test each trained fold, of every seed, again from its checkpoint.

    Args:
        data: where the corpora lie now, as ``--data`` takes it; one that is not named lies where
            it did.

    Returns:
        per fold, seed and named test: "fold", "seed", "test", "clips", "metrics" (None of an
        unscored test), "task", "difference": the largest change of a score against predictions.csv
        or unscored.csv, None where nothing was recorded, and "corpora": the task's columns of each
        corpus of a scored test.

    Raises:
        UserError: no trained fold, or a corpus with other folds or other audio.
    """
    folders = fold_folders(run, fold, seed)
    plan = plan_of_run(run, data)
    results = []
    for folder in folders:
        model, config = restore(folder, upstream_path, best_device())
        recorded = read_fold(folder)
        check_plan(folder, config, plan)
        numerics = Numerics.of(config["numerics"])
        before = {}
        if recorded is not None and recorded.finished:
            before = by_test([*recorded.tests, *recorded.unscored])
        planned = plan.fold(config["fold"])
        for name, examples in {**planned.tests, **planned.unscored}.items():
            clips = ClipKeys(**config["clips"])
            table = _test(plan, model, numerics, clips, examples, f"{folder.name} {name}")
            rows = {row.id: row.values for row in before.get(name, [])}
            results.append(
                {
                    "fold": config["fold"],
                    "seed": config["seed"],
                    "test": name,
                    "task": plan.task,
                    "clips": len(examples),
                    "metrics": plan.task.measure(table) if name in planned.tests else None,
                    "difference": _difference(plan, examples, table, rows),
                    "corpora": _apart(examples, table) if name in planned.tests else {},
                }
            )
    return results


def plan_of_run(run: Path, data: Sequence[str] | None = None) -> Plan:
    """The folds of a run, of its corpora as they lie now; ``data`` as in `evaluate`."""
    recipe = recipe_of_run(run)
    if data is not None:
        recipe.corpus.data = places_now(recipe, data)
    return prepare(recipe).plan


def recipe_of_run(run: Path) -> Recipe:
    """What was run, of a run's or a fold's folder; raises UserError where it holds no recipe."""
    for root in (run, run.parent):
        place = root / "recipe.yaml"
        if place.is_file():
            data = {k: v for k, v in read_yaml(place).items() if k not in RETIRED}
            return build(flatten(data, str(place)))
    what = "holds no recipe.yaml" if run.exists() else "does not exist"
    raise UserError(f"{run} {what}; name a run's folder, e.g. runs/NAME")


def places_now(recipe: Recipe, data: Sequence[str]) -> str | dict[str, str]:
    """``corpus.data`` where corpora have moved: those that are named; the others lie where they
    did."""
    corpora = choose_corpora(recipe)
    places = places_of(data, [c.name for c in corpora])
    if isinstance(places, str):
        return places
    return {
        c.name: str(place_of(c, recipe, True)) for c in corpora if c.name not in places
    } | places


def check_plan(folder: Path, config: dict[str, Any], plan: Plan) -> None:
    """Whether a fold was trained on these folds and this audio; raises UserError where not."""
    if config["protocol"]["hash"] != plan.hash:
        raise UserError(
            f"{folder} was trained on other folds than the corpus gives now (the plan's hash "
            "differs); give the corpus it was trained on with --data"
        )
    recorded = read_fold(folder)
    if recorded is not None and recorded.facts.plan.audio_hash != plan.audio_hash:
        raise UserError(
            f"{folder} was trained on other audio than lies there now, under the same names; give "
            "the corpus it was trained on with --data"
        )


def _test(
    plan: Plan,
    model: AdaptedModel,
    numerics: Numerics,
    clips: ClipKeys,
    examples: tuple[Example, ...],
    label: str,
) -> dict[str, list[Any]]:
    numerics.apply()
    outputs = [
        outputs_of_clip(model, torch.from_numpy(_heard(plan, e)), numerics, clips)
        for e in tqdm(examples, desc=label, unit="clip", disable=None, leave=False)
    ]
    targets = torch.tensor([plan.target(e) for e in examples])
    return plan.task.table(torch.stack(outputs), targets)


def _heard(plan: Plan, example: Example) -> Samples:
    """The waveform of an example, in its view."""
    wav = decode(example.utterance.path, SAMPLE_RATE)
    drawing = example.drawing(plan.audio[example.uid])
    return wav if drawing is None else drawing.of(wav)


def _apart(examples: Sequence[Example], table: Table) -> dict[str, Table]:
    """The rows of each corpus."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(example.utterance.corpus, []).append(place)
    return {
        corpus: {name: [values[i] for i in own] for name, values in table.items()}
        for corpus, own in places.items()
    }


def _difference(
    plan: Plan,
    examples: tuple[Example, ...],
    table: dict[str, list[Any]],
    recorded: dict[str, Any],
) -> float | None:
    """The largest change of a number that was predicted; None where something was not recorded."""
    names = [c.name for c in plan.task.columns if c.role != "truth" and c.classes is None]
    changes = [
        abs(row[name] - recorded[e.key][name]) if e.key in recorded else math.nan
        for e, row in zip(examples, rows_of(table), strict=True)
        for name in names
    ]
    return None if not changes or any(map(math.isnan, changes)) else max(changes)
