"""Recipes: unknown keys and wrong values are named before anything is loaded; layers merge."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emopeft.downstream.data import recipe as recipes
from emopeft.downstream.runs.evaluate import recipe_of_run
from emopeft.errors import UserError

# experiments.yaml is read by downstream/data/papers.py.
SHIPPED = sorted(
    path for path in recipes.shipped(".").rglob("*.yaml") if path.name != "experiments.yaml"
)

WRONG = {
    "trian:\n  lr: 1": r"key in .*: did you mean train",
    "train:\n  learning_rate: 1": r"unknown key in .*'train.learning_rate'",
    "train: 3": r"'train' in .* is a section",
    "train:\n  lr: fast": r"train.lr = 'fast' must be a number",
    "train:\n  batch_size: 2.5": r"train.batch_size = 2.5 must be a whole number",
    "train:\n  optimizer: adma": r"'adma': did you mean adam",
    "upstream:\n  dropout: 1": r"upstream.dropout = 1 must be true or false",
    "train:\n  lr: 0": r"train.lr = 0.0 must be greater than 0",
    "train:\n  warmup: 1": r"train.warmup = 1.0 must be below 1",
    "seeds: [-1]": r"seeds = -1 must be at least 0",
    "task: emotoin": r"unknown task 'emotoin': did you mean emotion",
    "lr: 1": r"unknown key in .* 'lr': did you mean train.lr",
    "method: lora,ws": r"a sum of methods is written with \+: lora\+ws",
    "method: lora+ws,wg:4": r"written with \+: lora\+ws\+wg:4",
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
    assert len(SHIPPED) >= 17
    for path in SHIPPED:
        method = {"peft": "lora", "finetune": "full"}.get(path.stem, "none")
        recipes.validate(
            recipes.build(recipes.merge([{"method": method}, recipes.from_file(path)]))
        )


def test_superb_is_run_as_published() -> None:
    place = recipes.default_recipe("iemocap-superb-random-dev", "frozen")
    train = recipes.build(recipes.from_file(place)).train
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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  lr: .inf", "train.lr = inf must be a finite number"),
        ("train:\n  lr: inf", "train.lr = 'inf' must be a finite number"),
        ("train:\n  lr: .nan", "train.lr = nan must be a finite number"),
        ("train:\n  weight_decay: nan", "train.weight_decay = 'nan' must be a finite number"),
        ("train:\n  lr_grid: [1e-3, .inf]", "train.lr_grid = inf must be a finite number"),
        ("train:\n  lr: 1e400", "train.lr = '1e400' must be a finite number"),
        (f"train:\n  lr: {'9' * 5000}", "holds a number that cannot be read"),
        (f"train:\n  lr: 0x{'f' * 5000}", "a number of thousands of digits must be a number"),
        (f"train:\n  steps: {'9' * 400}", "must be a whole number below"),
        ("train:\n  steps: 1000000000000", "train.steps = 1000000000000 must be at most"),
        ("head:\n  dropout: 2", "head.dropout = 2.0 must be below 1"),
        ("head:\n  hidden: 1000000000", "head.hidden = 1000000000 must be at most 65,536"),
        ("seeds: [9223372036854775808]", "seeds = 9223372036854775808 must be at most"),
        ("seeds: 4294967295", "seeds = 4294967295 must be at most 4,000,000,000"),
        ("seeds: [0, 0]", "seeds holds 0 twice"),
        ("seeds: []", "seeds is empty"),
        ("train:\n  lr_grid: []", "train.lr_grid is empty"),
        ("name: ''", "name is empty"),
        ("out: ''", "out is empty"),
        ("name: ../x", "must be a plain name"),
        ("name: a/b", "must be a plain name"),
        ('name: "a\\0b"', r"'a\x00b' holds '\x00'"),
        ('name: "a\\x1b[2Jb"', r"holds '\x1b'"),
        ('description: "\\ud800"', r"'\ud800' holds '\ud800'"),
        (f"name: {'n' * 300}", "longer than 200 bytes"),
        ("folds: {a: 1}", "folds = {'a': 1} must be text"),
        ("train:\n  optimizer: [adam]", "train.optimizer = ['adam'] must be text"),
        ("train:\n  lr: [1, 2]", "train.lr = [1, 2] must be a number"),
        ("corpus:\n  data: {ravdess: [1]}", "corpus.data.ravdess = [1] must be text"),
        ("corpus: {options: {uar: .nan}}", "corpus.options.uar = nan must be a finite number"),
        ("corpus: {options: {uar: !!set {a}}}", "not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("train: {lr: 1, lr: 2}", "holds key 'lr' twice"),
        ("description: &a [*a]", "holds '*a', which refers to itself"),
        ("corpus: &a {b: *a}", "holds '*a', which refers to itself"),
        ("corpus: " + "[" * 5000, "is nested deeper than 20 levels"),
        ("#" * 300_000, "has 300 kB, more than"),
    ],
)
def test_a_hostile_recipe_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    """REVIEW D5, D6: numbers that are none, names that cannot be written, YAML that unfolds."""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        resolved(path)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()


def resolved(path: Path) -> recipes.Recipe:
    return recipes.validate(recipes.build(recipes.flatten(recipes.read_yaml(path), str(path))))


def test_an_alias_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    """REVIEW D5: ten lines that would be ten thousand million values."""
    lines = ["corpus:", "  a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(lines))
    started = time.monotonic()
    with pytest.raises(UserError, match="unfolds into more than 20,000 values"):
        resolved(path)
    assert time.monotonic() - started < 5
    with pytest.raises(UserError, match="-o corpus.options unfolds"):
        recipes.parse_override("corpus.options={" + ", ".join(x.strip() for x in lines[1:]) + "}")


def test_a_recipe_extends_a_shipped_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: lashkarashvili2024/ratings.yaml\ntrain: {epochs: 3, lr: 0.1}\n")
    flat = recipes.from_file(path)
    assert (flat["train.lr"], flat["train.epochs"], flat["train.steps"]) == (0.1, 3, None)
    assert (flat["task"], flat["method"]) == ("dimensional", "lora")  # two files further down
    assert flat["train.optimizer"] == "adamw"
    for name in ("ratings.yaml", "../setup.cfg", "/etc/passwd", str(path), "[1]", "3",
                 "lashkarashvili2024/experiments.yaml"):  # fmt: skip
        path.write_text(f"extends: {name}\n")
        with pytest.raises(UserError, match="recipe that .*mine.yaml extends") as caught:
            recipes.from_file(path)
        assert "\n" not in str(caught.value)


def test_a_shipped_recipe_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Path("recipes/superb/probe.yaml")
    assert recipes.located(asked) == recipes.shipped("superb/probe.yaml")
    for other in ("superb/probe.yaml", "recipes/superb/nowhere.yaml", "recipes/../setup.cfg"):
        assert recipes.located(Path(other)) == Path(other)
    asked.parent.mkdir(parents=True)
    asked.write_text("method: lora")  # a file of one's own comes first
    assert recipes.located(asked) == asked


def test_a_few_aliases_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("method: lora\ntrain: {lr: &rate 0.01, head_lr: *rate}\n")
    assert resolved(path).train.head_lr == 0.01


def test_a_recipe_must_be_a_regular_file(tmp_path: Path) -> None:
    """REVIEW D5: a FIFO has no end."""
    import os

    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match=r"recipe\.yaml"):
        recipes.read_yaml(tmp_path / "recipe.yaml")


def test_dates_stay_text_and_several_corpora_have_places(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: 2024-01-31\ncorpus: {data: {ravdess: a, emodb: b}}\n")
    recipe = resolved(path)
    assert recipe.name == "2024-01-31" and recipe.corpus.data == {"ravdess": "a", "emodb": "b"}
    assert recipes.build({"corpus.data": "a"}).corpus.data == "a"


def test_a_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for place in SHIPPED:
        recipe = recipes.build(recipes.from_file(place))
        path.write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False))
        assert recipes.build(recipes.from_file(path)) == recipe


def test_the_default_metric_is_the_tasks() -> None:
    assert recipes.Recipe().train.select is None
    papers = {"emotion": ("uar", "accuracy", "macro_f1"), "dimensional": ("ccc", None)}
    for place in SHIPPED:
        recipe = recipes.from_file(place)
        select, task = recipe.get("train.select"), recipe.get("task", "emotion")
        # What suits any task names no metric; a paper's recipe names the paper's.
        general = place.parent.name in ("default", "demo-5fold", "probe-start", "recipes")
        assert select in ((None,) if general else papers[task]), place


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.none().map(lambda _: 10**4999), st.sampled_from(("\ud800", "nan", "1e999", "")),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(recipes.known_keys()), VALUES)
def test_any_value_of_any_key_is_taken_or_answered(name: str, value: Any) -> None:
    """REVIEW D6: one leaf replaced by anything: a recipe that can be written, or a sentence."""
    try:
        recipe = recipes.validate(recipes.build({name: value}))
    except UserError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        return
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    text.encode("utf-8")
    if name not in ("corpus.options", "description"):
        assert ".nan" not in text and ".inf" not in text


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_byte_of_a_file_flipped_is_read_or_answered(data: Any) -> None:
    """REVIEW D6: a damaged recipe file is one sentence or a recipe."""
    place = recipes.shipped("peft-ser2023/classes.yaml")
    content = bytearray(place.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    try:
        text = content.decode("utf-8")
        recipes.validate(recipes.build(recipes.flatten(recipes.nested(text, "it"), "it")))
    except UnicodeDecodeError:
        return
    except UserError as error:
        assert "\n" not in str(error)


def test_a_runs_recipe_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("method: lora\nreports: {}\ntrain: {lr: 0.01}\n")
    recipe = recipe_of_run(tmp_path)
    assert (recipe.method, recipe.train.lr) == ("lora", 0.01)
    (tmp_path / "recipe.yaml").write_text("method: lora\nreport: {}\n")
    with pytest.raises(UserError, match="unknown key .*'report'"):
        recipe_of_run(tmp_path)
