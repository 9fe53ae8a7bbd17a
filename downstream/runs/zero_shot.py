"""A finished run on corpora that it has never heard: zero-shot, from its checkpoints."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.corpora.base import CORPORA, Corpus, Utterance
from emopeft.downstream.corpora.scan import Scan, scan
from emopeft.downstream.data.fold import Example
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.data.plan import read_rows
from emopeft.downstream.data.prepare import read_corpora
from emopeft.downstream.data.recipe import Recipe, build
from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.feature_cache.excerpts import rows_of
from emopeft.downstream.models.build import restore
from emopeft.downstream.protocols.makers.away import check_two
from emopeft.downstream.protocols.rules import some
from emopeft.downstream.records.folds import EXAMPLES
from emopeft.downstream.records.predictions import Prediction, predictions_of
from emopeft.downstream.runs.asked import Asked, asked_of
from emopeft.downstream.runs.checkpoints import best_device, fold_folders
from emopeft.downstream.runs.evaluate import recipe_of_run
from emopeft.downstream.runs.session import make_accelerator
from emopeft.downstream.tasks.base import task_of
from emopeft.downstream.training.evaluating import outputs_of
from emopeft.errors import UserError
from emopeft.files import cache_root
from emopeft.numerics import Numerics


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """The results, as `runs.evaluate` gives them, with the rows behind them, and what was left out
    of each corpus."""

    results: list[dict[str, Any]]
    rows: list[Prediction]
    notes: list[str]


def zero_shot(
    run: Path,
    layers: Mapping[str, Any],
    fold: str = "all",
    upstream_path: str | None = None,
    seed: int | None = None,
    labels: Mapping[str, str] | None = None,
    leaks: bool = False,
) -> ZeroShot:
    """Test each trained fold of a run on whole other corpora.

    Args:
        layers: the recipe's keys ``corpus.*``, which name corpora and places.
        labels: the corpora's label -> the run's class ("" for none), over their own protocol's.
        leaks: go on where a speaker or a recording was trained on or chosen by.

    Raises:
        UserError: no trained fold, a corpus that shares no class with the run, or a leak.
    """
    folders = fold_folders(run, fold, seed)
    recipe = recipe_of_run(run)
    home = [name.strip() for name in (recipe.corpus.name or "").split("+")]
    away = build(dict(layers))
    results: list[dict[str, Any]] = []
    rows: list[Prediction] = []
    notes: list[str] = []
    found = read_corpora(away)
    for number, folder in enumerate(folders):
        model, config = restore(folder, upstream_path, best_device())
        whole = task_of(config["task"])
        for corpus, utterances in found:
            asked = asked_of(whole, corpus, utterances, labels or {})
            scanned = scan(asked.utterances, store=cache_root(recipe.cache.dir))
            scanned.raise_if_broken()
            shared = _known(folder, home, corpus, asked.utterances, scanned)
            if shared and not leaks:
                raise UserError(
                    f"{folder} has heard {corpus.name}: {'; '.join(shared)}; what is measured "
                    "there would not be zero-shot. Take another corpus, or say --leaks to measure "
                    "it all the same"
                )
            if number == 0:
                notes += [f"{corpus.name}: {note}" for note in [*asked.notes, *shared]]
            outputs = _outputs(recipe, model, config, asked, scanned)[:, asked.places]
            targets = torch.tensor([asked.task.target(u) for u in asked.utterances])
            table = asked.task.table(outputs, targets)
            examples = [Example(u) for u in asked.utterances]
            rows += predictions_of(examples, table, config["fold"], config["seed"], corpus.name)
            results.append(
                {
                    "fold": config["fold"],
                    "seed": config["seed"],
                    "test": corpus.name,
                    "task": asked.task,
                    "clips": len(examples),
                    "metrics": asked.task.measure(table),
                }
            )
    return ZeroShot(results, rows, notes)


def plain_rows(rows: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The rows as a table writes them, all with the same columns."""
    flat = [
        {
            "id": r.id,
            "fold": r.fold,
            "seed": r.seed,
            "test": r.test,
            "speaker": r.speaker,
            **r.values,
        }
        for r in rows
    ]
    names = dict.fromkeys(name for row in flat for name in row)
    return [{name: row.get(name, "") for name in names} for row in flat]


# ---- who was heard ------------------------------------------------------------------------------


def _known(
    folder: Path,
    home: Sequence[str],
    corpus: Corpus,
    utterances: Sequence[Utterance],
    scanned: Scan,
) -> list[str]:
    """What of these utterances stood in the fold's train or dev parts, one sentence each."""
    for name in home:
        if name and name != corpus.name:
            check_two(CORPORA[name], corpus)
    speakers, audio = _heard(folder / EXAMPLES)
    found = []
    if voices := sorted({u.speaker_uid for u in utterances} & speakers):
        found.append(f"{len(voices)} speakers were trained on or chosen by ({some(voices)})")
    if clips := sorted(u.uid for u in utterances if scanned.audio[u.uid] in audio):
        found.append(f"{len(clips)} recordings were trained on or chosen by ({some(clips)})")
    return found


@functools.lru_cache(maxsize=8)
def _heard(place: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Speakers and audio of a fold's train and dev parts; raises UserError where unreadable."""
    rows = [row for row in read_rows(place) if row.part in ("train", "dev")]
    return frozenset(r.speaker for r in rows) - {""}, frozenset(r.audio for r in rows) - {""}


# ---- what the model says ------------------------------------------------------------------------


@torch.inference_mode()
def _outputs(
    recipe: Recipe, model: Any, config: Mapping[str, Any], asked: Asked, scanned: Scan
) -> Tensor:
    """All of the head's outputs (utterances, outputs); the frozen part is kept as in a run."""
    numerics, clips = Numerics.of(config["numerics"]), ClipKeys(**config["clips"])
    numerics.apply()
    device = next(model.parameters()).device
    rows = [
        rows_of(clips, u.path, scanned.audio[u.uid], scanned.seconds[u.uid])[0]
        for u in asked.utterances
    ]
    examples = Examples.prepare(
        model.upstream, model.start, model.head.pooled, rows, torch.zeros(len(rows), 1),
        cache_root(recipe.cache.dir), recipe.cache, numerics, recipe.cache.batch_seconds,
    )  # fmt: skip
    accelerator = make_accelerator(numerics.precision)
    with numerics.training(device):
        return outputs_of(model, examples, range(len(rows)), recipe.train, accelerator)
