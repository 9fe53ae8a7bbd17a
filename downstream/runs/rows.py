"""What is taken of each example: of dev and tests one row, of training clips all their ways."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from emopeft.downstream.data.augment import LIVE, alternatives, drawing_of
from emopeft.downstream.data.fold import Example, Stage
from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.data.resolve import stage_keys
from emopeft.downstream.feature_cache.excerpts import Row, rows_of
from emopeft.downstream.views.base import Crowd, Voice
from emopeft.errors import UserError


@dataclasses.dataclass
class Rows:
    """Rows of examples, and what an epoch of training draws from.

    Attributes:
        rows: first one of each example, as dev and tests take it, then the others.
        owners: of each row the place of its example.
        ways: of each example the rows that it may be trained as.
        crowded: the same of the examples of one training part, by the digest of who babbles there
            (`Crowd.digest`); empty where nobody does.
        in_turn: each epoch takes the next of the ways: there is one for each.
    """

    rows: list[Row]
    owners: list[int]
    ways: list[list[int]]
    crowded: dict[str, dict[int, list[int]]]
    in_turn: bool = False

    def add(self, place: int, rows: Sequence[Row]) -> list[int]:
        """More rows of an example; where they stand."""
        first = len(self.rows)
        self.rows += rows
        self.owners += [place] * len(rows)
        return list(range(first, len(self.rows)))


def all_rows(recipe: Recipe, plan: Plan, examples: Sequence[Example], augmented: bool) -> Rows:
    """The rows of examples of the chosen folds.

    Args:
        augmented: whether training clips get the views of the recipe's section ``augment``.
    """
    stages = [stage for fold in plan.choose(recipe.folds) for stage in fold.stages]
    trained = {e.key for stage in stages for e in stage.train}
    made = Rows([], [], [], {})
    more: list[tuple[int, list[Row]]] = []
    for place, e in enumerate(examples):
        first, *others = _clean(recipe, plan, e, e.key in trained)
        made.ways.append(made.add(place, [first]))
        more.append((place, others))
    for place, others in more:
        made.ways[place] += made.add(place, others)
    if augmented and alternatives(recipe.augment.apply):
        _augment(made, recipe, plan, examples, stages)
    return made


def _clean(recipe: Recipe, plan: Plan, e: Example, training: bool) -> list[Row]:
    audio, seconds = plan.audio[e.uid], plan.seconds[e.uid]
    drawing = e.drawing(audio)
    return rows_of(recipe.clips, e.utterance.path, audio, seconds, training, drawing)


def _augment(
    made: Rows, recipe: Recipe, plan: Plan, examples: Sequence[Example], stages: Sequence[Stage]
) -> None:
    """Give training clips their views: as many as are kept, or one for each epoch."""
    live = recipe.augment.views == LIVE
    made.in_turn = live
    count = _epochs(recipe, stages) if live else int(recipe.augment.views)
    places = {e.key: place for place, e in enumerate(examples)}
    crowded = any(view.crowded for view in alternatives(recipe.augment.apply))
    if crowded and any(len(fold.stages) > 1 for fold in plan.folds):
        raise UserError(
            f"augment.apply={recipe.augment.apply}: babble is made of the voices of one training "
            f"part, and the folds of {plan.protocol.name} have several; take another noise"
        )
    done: set[tuple[str, int]] = set()
    for stage in stages:
        crowd = crowd_of(plan, stage) if crowded else None
        name = "" if crowd is None else crowd.digest
        ways = made.crowded.setdefault(name, {}) if crowded else None
        for e in stage.train:
            place = places[e.key]
            if (name, place) in done:
                continue
            done.add((name, place))
            rows = [
                row
                for number in range(count)
                for row in _drawn(recipe, plan, e, number, crowd, live)
            ]
            clean = [] if live else made.ways[place]
            new = [*clean, *made.add(place, rows)]
            if ways is None:
                made.ways[place] = new
            else:
                ways[place] = new


def _drawn(
    recipe: Recipe, plan: Plan, e: Example, number: int, crowd: Crowd | None, live: bool
) -> list[Row]:
    """A view of a training clip; where it may be cropped in several ways, live takes one."""
    audio, seconds = plan.audio[e.uid], plan.seconds[e.uid]
    drawing = drawing_of(recipe.augment, e, audio, number, crowd)
    rows = rows_of(recipe.clips, e.utterance.path, audio, seconds, True, drawing, not live)
    return [rows[number % len(rows)]] if live else rows


def crowd_of(plan: Plan, stage: Stage) -> Crowd:
    """Who may babble behind a training clip: all of its training part, each clip once."""
    return crowd_among(plan, stage.train)


def crowd_among(plan: Plan, examples: Iterable[Example]) -> Crowd:
    """These clips as a crowd, each once."""
    voices = {e.uid: e.utterance for e in examples}
    return Crowd(
        tuple(Voice(u.path, plan.audio[uid], u.speaker_uid) for uid, u in sorted(voices.items()))
    )


def _epochs(recipe: Recipe, stages: Sequence[Stage]) -> int:
    """Of the longest training."""
    return max(epochs_of(keys_of(recipe, stage), len(stage.train)) for stage in stages)


def keys_of(recipe: Recipe, stage: Stage) -> TrainKeys:
    """How a stage of a plan is trained."""
    if not stage.keys:
        return recipe.train
    return stage_keys(recipe, stage.keys, f"stage {stage.name}", True)


def epochs_of(keys: TrainKeys, clips: int) -> int:
    """How many epochs a training begins at most."""
    if keys.steps is None:
        return max(1, math.ceil(keys.epochs or 1))
    return max(1, math.ceil(keys.steps / math.ceil(clips / keys.batch_size)))
