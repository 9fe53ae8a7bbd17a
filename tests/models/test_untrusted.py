"""Checkpoints from anybody: whatever is damaged or made up is told in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from emopeft.downstream.models.build import restore
from emopeft.downstream.models.checkpoint import (
    CONFIG,
    TENSORS,
    read_adapter,
    read_progress,
    write_progress,
)
from emopeft.errors import UserError
from tests.models.folds import edit, outputs, trained_fold


@pytest.fixture(scope="module")
def lora_fold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    return trained_fold(tmp_path_factory.mktemp("lora"), "lora:r=2+ws")


@pytest.fixture
def fold(lora_fold: tuple[Path, torch.Tensor], tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(lora_fold[0], tmp_path / "fold1_seed3"))


# ---- what may be wrong with one -------------------------------------------------------------


def damage(folder: Path, kind: str) -> None:
    """Change one tensor of a checkpoint."""
    tensors = load_file(folder / TENSORS)
    name = next(n for n in sorted(tensors) if "lora_B" in n)
    whole = tensors[name]
    tensors[name] = {
        "nan": torch.full_like(whole, float("nan")),
        "infinity": torch.full_like(whole, float("inf")),
        "one": torch.zeros(1),
        "scalar": torch.zeros(()),
        "integers": torch.zeros(whole.shape, dtype=torch.int64),
        "double": whole.double(),
    }[kind]
    save_file(tensors, folder / TENSORS)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", "holds NaN or infinity"),
        ("infinity", "holds NaN or infinity"),
        ("one", r"has shape \(1,\) instead of"),
        ("scalar", r"has shape \(\) instead of"),
        ("integers", "holds int64 instead of float32"),
        ("double", "holds float64 instead of float32"),
    ],
)
def test_wrong_tensors_are_refused(kind: str, said: str, fold: Path) -> None:
    """REVIEW D4: they were loaded, broadcast, and gave predictions of NaN."""
    damage(fold, kind)
    with pytest.raises(UserError, match=said) as caught:
        restore(fold)
    assert "lora_B" in str(caught.value) and str(fold) in str(caught.value)


LONG = 10**300


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("method", "parts", 0, "options", "r"), "8", "lora:r=8 must be a whole number"),
        (("method", "parts", 0, "options", "r"), 10**7, "lora:r=10000000 does not fit"),
        (("method", "parts", 0, "options", "r"), LONG, "lora:r="),
        (("method", "parts", 0, "options", "alpha"), 1e300, "must be a finite number"),
        (("method", "parts", 0, "options", "blocks"), "0-99999999999", "blocks="),
        (("method", "parts", 0, "options", "targets"), ["q"], "method.parts.0.options.targets"),
        (("method", "parts", 0, "name"), "lara", "did you mean lora"),
        (("method", "parts"), [], "method.parts"),
        (("method", "parts"), None, "method.parts"),
        (("head", "dropout"), 2, "head.dropout"),
        (("head", "hidden"), 10**9, "head.hidden"),
        (("head", "hidden"), True, "head.hidden"),
        (("head", "width"), 64, "head.width"),
        (("head", "outputs"), 3, "head.outputs"),
        (("upstream", "weights"), ["x"], "upstream.weights"),
        (("upstream", "window"), {}, "upstream.window"),
        (("upstream", "options"), 3, "upstream.options"),
        (("task", "classes"), "calm", "task.classes"),
        (("task",), "emotion", "key 'task'"),
        (("seed",), -1, "seed"),
        (("seed",), 2**63, "seed"),
        (("stages",), {}, "stages"),
        (("numerics", "precision"), "fp8", "numerics.precision"),
        (("corpora", 0, "name"), 3, "corpora.0.name"),
        (("schema",), "2", "schema 1 or 2"),
        (("schema",), True, "schema 1 or 2"),
        (("extra",), 1, "extra"),
    ],
)
def test_wrong_values_are_one_sentence(
    keys: tuple[Any, ...], value: Any, said: str, fold: Path
) -> None:
    """REVIEW D6, D4: wrong types, absurd sizes and numbers anywhere in adapter.json."""
    edit(fold, *keys, value=value)
    with pytest.raises(UserError) as caught:
        restore(fold)
    text = str(caught.value)
    assert said in text and str(fold) in text and "\n" not in text and len(text) < 600


def test_numbers_of_5000_digits_and_infinities_are_one_sentence(fold: Path) -> None:
    """REVIEW D6."""
    text = (fold / CONFIG).read_text()
    for number in ("9" * 5000, "NaN", "Infinity", "1e999"):
        (fold / CONFIG).write_text(text.replace('"seed": 3', f'"seed": {number}'))
        with pytest.raises(UserError, match="not valid JSON"):
            read_adapter(fold)


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_pipes_and_devices_are_no_checkpoints(name: str, fold: Path) -> None:
    """REVIEW D5: reading them never ended."""
    (fold / name).unlink()
    os.mkfifo(fold / name)
    with pytest.raises(UserError, match="is a pipe"):
        restore(fold)
    (fold / name).unlink()
    (fold / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is a device"):
        restore(fold)


# ---- progress -------------------------------------------------------------------------------


def test_every_flipped_byte_of_progress_is_seen(tmp_path: Path) -> None:
    """REVIEW D4: a flipped byte in a tensor was resumed from."""
    path = tmp_path / "progress.pt"
    write_progress(path, {"model": {"w": torch.arange(200.0)}, "step": 3})
    good = path.read_bytes()
    found = read_progress(path, ["step", "model"])
    assert found["step"] == 3 and torch.equal(found["model"]["w"], torch.arange(200.0))
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(UserError, match="is damaged.*delete it to train this fold"):
            read_progress(path)
    for length in (0, 10, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(UserError, match="is damaged"):
            read_progress(path)


def test_foreign_progress_is_a_sentence(tmp_path: Path) -> None:
    """REVIEW D6: another version's, one of another shape, and no file at all."""
    path = tmp_path / "progress.pt"
    torch.save({"step": 3}, path)
    with pytest.raises(UserError, match="another version"):
        read_progress(path)
    write_progress(path, {"step": 3})
    with pytest.raises(UserError, match="lacks model"):
        read_progress(path, ["step", "model"])
    write_progress(path, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="something else"):
        read_progress(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a pipe"):
        read_progress(path)


# ---- anything at all ------------------------------------------------------------------------


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values of JSON data, inner ones too."""
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    found = [(*path, key) for key, _ in inner]
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in inner:
        if isinstance(value, (dict, list)):
            found += leaves(value, (*path, key))
    return found


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "x", "lora", "\u202e", "a" * 2000, "../..", "nan", "1e999", "all", "ws"]),
    st.sampled_from([[], {}, [[]], {"a": 1}, [1] * 100]),
)
CAPPED = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@CAPPED
@given(st.data())
def test_one_wrong_leaf_is_a_sentence_or_harmless(
    lora_fold: tuple[Path, torch.Tensor], tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    """REVIEW D6: never a traceback; what loads gives the same outputs or says other options."""
    folder, expected = lora_fold
    copied = Path(shutil.copytree(folder, tmp_path_factory.mktemp("leaf") / "fold1_seed3"))
    path = data.draw(st.sampled_from(leaves(json.loads((folder / CONFIG).read_text()))))
    edit(copied, *path, value=data.draw(ODD))
    try:
        model, config = restore(copied)
    except UserError as error:
        assert "\n" not in str(error)
        return
    options = json.loads((folder / CONFIG).read_text())["method"]["parts"]
    if config["method"]["parts"] == options and config["head"]["layers"] == "weighted_sum":
        assert torch.equal(outputs(model), expected)
    assert torch.isfinite(outputs(model)).all()


@CAPPED
@given(st.data())
def test_one_flipped_byte_is_a_sentence_or_a_checkpoint(
    lora_fold: tuple[Path, torch.Tensor], tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    """REVIEW D4, D6: in either file."""
    copied = Path(shutil.copytree(lora_fold[0], tmp_path_factory.mktemp("byte") / "fold1_seed3"))
    path = copied / data.draw(st.sampled_from([CONFIG, TENSORS]))
    whole = bytearray(path.read_bytes())
    whole[data.draw(st.integers(0, min(len(whole), 4000) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(whole))
    try:
        model, _ = restore(copied)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(outputs(model), torch.Tensor)
