"""Keys of a recipe that must agree with each other; each raises UserError naming them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emopeft.downstream.data.keys import ClipKeys, TrainKeys
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.data.recipe import Recipe


def check_clips(clips: ClipKeys) -> None:
    """A length goes with what it is the length of."""
    if (clips.seconds is None) != (clips.mode == "whole"):
        way_out = "give clips.mode crop or segments, with its clips.seconds, or neither"
        raise UserError(f"clips.mode={clips.mode} and clips.seconds={clips.seconds}: {way_out}")
    if clips.starts > 1 and clips.mode != "crop":
        raise UserError(
            f"clips.starts={clips.starts} is for crops, and clips.mode is {clips.mode}: set "
            "clips.mode=crop, or clips.starts=1"
        )


def check_corpora(recipe: Recipe) -> None:
    """Corpora are made even where there are several, and by draws alone."""
    train, name = recipe.train, recipe.corpus.name
    if train.corpora == "as_is":
        return
    if "+" not in (name or ""):
        raise UserError(
            f"train.corpora={train.corpora} is for several corpora, and corpus.name is "
            f"{name or 'not set'}; give --corpus a+b, or train.corpora=as_is"
        )
    if train.class_weights != "none":
        raise UserError(
            f"train.class_weights={train.class_weights} goes by how many clips a class has, and "
            "train.corpora=balanced draws them otherwise; take train.sampling=balanced, which "
            "makes the classes of each corpus even, or set one of the two back"
        )


def check_choice(train: TrainKeys) -> None:
    """The last state is chosen without dev: nothing of dev may end or steer the training."""
    if train.choose != "last":
        return
    if train.patience is not None:
        raise UserError(
            f"train.choose=last keeps the state after the last step, and train.patience="
            f"{train.patience} ends the training by dev: set train.patience=null"
        )
    if train.schedule == "plateau":
        raise UserError(
            "train.choose=last keeps the state of a schedule that has run down, and "
            "train.schedule=plateau goes by dev: set train.schedule=linear or cosine"
        )


def check_probe(recipe: Recipe, frozen: bool) -> None:
    """A start at the probe needs something else to train, and kept states to train it on."""
    if frozen:
        raise UserError(
            f"head.init=probe is where a method starts that trains more than the head, and -p "
            f"{recipe.method} is that probe itself: set head.init=random, or take another method"
        )
    if not recipe.cache.enabled:
        raise UserError(
            "head.init=probe trains a probe on kept states; set cache.enabled=true, or "
            "head.init=random"
        )
