"""Recipes: unknown keys and wrong values are named before anything is loaded; layers merge."""

from pathlib import Path

import pytest

from emopeft.downstream.data import recipe as recipes
from emopeft.errors import UserError

WRONG = {
    "trian:\n  lr: 1": r"key in .*: did you mean train",
    "train:\n  learning_rate: 1": r"unknown key in .*'train.learning_rate'",
    "train: 3": r"'train' in .* is a section",
    "train:\n  lr: fast": r"train.lr = 'fast' must be a number",
    "train:\n  batch_size: 2.5": r"train.batch_size = 2.5 must be a whole number",
    "train:\n  optimizer: adma": r"'adma': did you mean adam",
    "upstream:\n  dropout: 1": r"upstream.dropout = 1 must be true or false",
    "train:\n  lr: 0": r"train.lr = 0.0 must be greater than 0",
    "train:\n  warmup: 1": r"train.warmup",
    "seeds: [-1]": r"seeds",
    "train: [": r"not valid YAML",
    "- a": r"must hold keys and values",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_recipe_is_one_sentence_that_names_the_key(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=WRONG[text]) as caught:
        recipes.validate(recipes.build(recipes.flatten(recipes.read_yaml(path), str(path))))
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.yaml does not exist"):
        recipes.read_yaml(tmp_path / "nowhere.yaml")


def test_overrides_are_read_as_yaml() -> None:
    assert recipes.parse_override("train.patience=null") == {"train.patience": None}
    assert recipes.parse_override("seeds=[1, 2]") == {"seeds": [1, 2]}
    assert recipes.parse_override("method=lora:r=4") == {"method": "lora:r=4"}
    # YAML 1.1 reads 1e-4 as text; a key that wants a number takes it.
    assert recipes.build(recipes.parse_override("train.lr=1e-4")).train.lr == 1e-4
    with pytest.raises(UserError, match="did you mean train.lr"):
        recipes.parse_override("train.lrr=1")
    with pytest.raises(UserError, match="must be key=value"):
        recipes.parse_override("train.lr")


def test_later_layers_win_and_steps_replace_epochs() -> None:
    merged = recipes.merge([{"train.epochs": 3, "train.lr": 1}, {"train.steps": 10}])
    assert merged == {"train.epochs": None, "train.steps": 10, "train.lr": 1}
    merged = recipes.merge([{"train.steps": 3, "train.epochs": None}, {"train.epochs": 1}])
    assert merged == {"train.steps": None, "train.epochs": 1}


def test_every_shipped_recipe_is_valid() -> None:
    files = sorted(recipes.shipped(".").rglob("*.yaml"))
    assert len(files) >= 7
    for path in files:
        flat = recipes.flatten(recipes.read_yaml(path), str(path))
        method = {"peft": "lora", "finetune": "full"}.get(path.stem, "none")
        recipes.validate(recipes.build(recipes.merge([{"method": method}, flat])))


def test_superb_is_run_as_published() -> None:
    place = recipes.default_recipe("iemocap-superb-random-dev", "frozen")
    train = recipes.build(recipes.flatten(recipes.read_yaml(place), "it")).train
    assert (train.optimizer, train.lr, train.steps, train.batch_size) == ("adam", 1e-4, 30000, 32)
    assert (train.eval_every, train.select, train.patience, train.clip) == (
        1000, "accuracy", None, 1.0
    )  # fmt: skip
    assert recipes.default_recipe("ravdess-6fold", "frozen").parent.name == "default"


def test_a_head_rate_needs_an_upstream_that_trains() -> None:
    flat = {"train.head_lr": 1e-3, "method": "ws"}
    with pytest.raises(UserError, match="with -p ws only the head trains: set train.lr"):
        recipes.validate(recipes.build(flat))
    assert recipes.validate(recipes.build(flat | {"method": "lora"})).train.head_lr == 1e-3
