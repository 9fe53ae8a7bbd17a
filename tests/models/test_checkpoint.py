"""Checkpoints: rebuilt from what they hold alone; whatever is damaged is told in one sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emopeft.downstream.heads.base import LAYERS, MAX_HIDDEN, NUMBER
from emopeft.downstream.models.adapter_config import AdapterConfig, HeadFacts
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.checkpoint import (
    CONFIG,
    TENSORS,
)
from emopeft.errors import UserError
from emopeft.peft_modules.base import METHODS, from_parts, parse, to_parts
from emopeft.peft_modules.lora import Lora
from tests.models.folds import edit, outputs, trained_fold

SCHEMA_1 = Path(__file__).parent / "schema1.json"


@pytest.fixture(scope="module")
def lora_fold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    return trained_fold(tmp_path_factory.mktemp("lora"), "lora:r=2+ws")


@pytest.fixture
def fold(lora_fold: tuple[Path, torch.Tensor], tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(lora_fold[0], tmp_path / "fold1_seed3"))


# ---- what a checkpoint must say -------------------------------------------------------------


def test_options_are_the_recorded_ones_whatever_the_defaults_are(
    lora_fold: tuple[Path, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW A7: with another default of alpha, an old checkpoint loaded and computed otherwise."""
    fields = {f.name: f for f in dataclasses.fields(Lora)}
    changed = dataclasses.make_dataclass(
        "Lora",
        [("alpha", float, dataclasses.field(default=16.0, metadata=fields["alpha"].metadata))],
        bases=(Lora,),
        frozen=True,
    )
    monkeypatch.setitem(METHODS._items, "lora", changed)
    assert parse("lora")[0].alpha == 16.0  # type: ignore[attr-defined]
    folder, expected = lora_fold
    model, config = restore(folder)
    assert torch.equal(outputs(model), expected)
    assert config["method"]["parts"][0]["options"]["alpha"] == 1.0


def test_options_of_every_method_are_written_in_full() -> None:
    """REVIEW A7: and give the very method back, through JSON."""
    for name, cls in METHODS.items():
        parts = json.loads(json.dumps(to_parts([cls()])))
        assert set(parts[0]["options"]) == {f.name for f in dataclasses.fields(cls)}, name
        assert from_parts(parts) == [cls()], name


def test_another_peft_that_means_something_else_is_refused(fold: Path) -> None:
    """REVIEW A7: fields of peft's that are no options of ours."""
    facts = json.loads((fold / CONFIG).read_text())["method"]["peft"]
    assert facts["configs"]["lora"]["use_rslora"] is False and facts["version"]
    edit(fold, "method", "peft", "version", value="0.1.0")
    edit(fold, "method", "peft", "configs", "lora", "use_rslora", value=True)
    with pytest.raises(UserError, match=r"peft 0\.1\.0, where use_rslora is True.* peft==0\.1\.0"):
        restore(fold)
    edit(fold, "method", "peft", "configs", "lora", "use_rslora", value=False)
    edit(fold, "method", "peft", "configs", "lora", "was_taken_out", value=True)
    with pytest.raises(UserError, match="was_taken_out is True.*it is not known"):
        restore(fold)


def test_an_option_that_the_installed_peft_lacks_is_a_sentence(fold: Path) -> None:
    """REVIEW A7."""
    parts = [{"name": "dora", "options": {"r": 2, "quantum": 1}}]
    edit(fold, "method", "parts", value=parts)
    with pytest.raises(UserError, match="the option dora:quantum is not known here"):
        restore(fold)


@pytest.mark.parametrize(
    "method", ["vera:r=8", "pissa:r=2", "adamss:r=8", "fourierft", "olora:r=2"]
)
def test_no_seed_takes_part_in_restoring(method: str, tmp_path: Path) -> None:
    """REVIEW A8: shared matrices, residual weights and chosen places stand in the file."""
    folder, expected = trained_fold(tmp_path, method)
    edit(folder, "seed", value=99)
    torch.manual_seed(1234)
    model, _ = restore(folder)
    assert torch.equal(outputs(model), expected)


def test_a_frozen_lora_a_stands_in_the_file(tmp_path: Path) -> None:
    """REVIEW A8: it was drawn, does not train, and cannot be drawn again."""
    from emopeft.downstream.models.checkpoint import write_adapter
    from tests.models.folds import blueprint, config_of
    from tests.peft_modules.cases import batch_of
    from tests.peft_modules.test_battery import train

    made = blueprint(tmp_path, "lora:r=2")
    model = made.model(3)
    frozen = model.freeze(["lora_A"])
    assert frozen and all("lora_A" in name for name in frozen)
    train(model, batch_of(model), steps=2)
    write_adapter(tmp_path / "f", model.kept_state(), config_of(made, model, tmp_path, 5))
    assert set(frozen) <= set(load_file(tmp_path / "f" / TENSORS))
    assert torch.equal(outputs(restore(tmp_path / "f")[0]), outputs(model))


def test_a_base_with_other_options_is_refused(fold: Path, tmp_path: Path) -> None:
    """REVIEW A9: the same weights, but the waveform is normalised."""
    weights = Path(json.loads((fold / CONFIG).read_text())["upstream"]["path"])
    other = Path(shutil.copytree(weights, tmp_path / "other"))
    (other / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    with pytest.raises(UserError, match="option normalize is True, not False"):
        restore(fold, str(other))


def test_schema_1_is_still_read(tmp_path: Path) -> None:
    """A checkpoint of before: only what trained, drawn things from the seed, default options."""
    from emopeft.peft_modules.apply import adapt
    from emopeft.upstream.catalogue import load
    from tests.models.folds import blueprint

    made = blueprint(tmp_path, "vera:r=8")
    torch.manual_seed(3)
    upstream = load("hubert", tmp_path / "weights")
    adaptation = adapt(upstream, "vera:r=8", prove=False)
    model = made.model(3, adaptation)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in upstream.trainable():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    data = json.loads(SCHEMA_1.read_text())
    data["upstream"] |= {"path": str(tmp_path / "weights"), "weights": upstream.weights}
    (tmp_path / CONFIG).write_text(json.dumps(data))
    save_file(model.trainable_state(), tmp_path / TENSORS)
    assert not any("vera_A" in name for name in load_file(tmp_path / TENSORS))
    found, config = restore(tmp_path)
    assert torch.equal(outputs(found), outputs(model))
    assert config["schema"] == 2 and config["seeded"] and config["numerics"]["precision"] == "bf16"
    assert config["task"] == {"name": "emotion", "version": 1, "classes": ["calm", "angry"]}
    assert config["method"]["parts"][0]["options"]["d_initial"] == 0.1


def test_the_models_name_what_the_heads_have() -> None:
    schema = AdapterConfig.model_json_schema()
    head = schema["$defs"]["HeadFacts"]["properties"]
    named, numbered = head["layers"]["anyOf"]
    assert named["enum"] == list(LAYERS) and numbered["pattern"] == f"^({NUMBER})$"
    assert head["hidden"]["maximum"] == MAX_HIDDEN == 8192
    assert HeadFacts(name="conv", width=4, states=2, outputs=2).dropout == 0.1
    assert schema["properties"]["schema"]["const"] == 2
