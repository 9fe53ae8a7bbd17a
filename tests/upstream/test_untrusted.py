"""Directories from elsewhere: nothing of theirs is run, fetched, or read without end."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from emopeft.errors import UserError
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import load
from emopeft.upstream.identity import same_base
from tests.tiny import plain, tiny

WAV = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A good directory, as save_pretrained writes it, with a preprocessor."""
    folder = tmp_path / "encoder"
    plain("hubert_base_like").save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    return folder


def changed(folder: Path, **values: Any) -> Path:
    """The directory with these keys of its config.json replaced."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def refusal(folder: Path, name: str = "hubert") -> str:
    """The one sentence that this directory is refused with, soon."""
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        load(name, folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text and len(text) < 600
    assert time.monotonic() - started < 20
    return text


# ---- what the states come from ----------------------------------------------------------------


def test_without_a_mask_embedding_the_weights_are_the_same_every_time(saved: Path) -> None:
    """REVIEW A1: it was drawn from the global random state, and the hash with it."""
    state = load_file(saved / "model.safetensors")
    del state["masked_spec_embed"]
    save_file(state, saved / "model.safetensors", {"format": "pt"})
    hashes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        hashes.append(load("hubert", saved).weights)
        assert torch.equal(torch.get_rng_state(), before)
    assert hashes[0] == hashes[1]
    assert not load("hubert", saved).get_parameter("model.masked_spec_embed").any()


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_data2vec_is_as_transformers_has_it(stable: bool, norm: str, tmp_path: Path) -> None:
    """REVIEW A2: its model reads neither setting, and obeying them moved the states by 4.6."""
    from transformers import Data2VecAudioModel

    plain("data2vec").save_pretrained(tmp_path)
    changed(tmp_path, do_stable_layer_norm=stable, feat_extract_norm=norm)
    upstream = load("data2vec", tmp_path)
    assert upstream.options["normalize"] is True
    model = Data2VecAudioModel.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    normalised = (WAV - WAV.mean()) / (WAV.var(unbiased=False) + 1e-7).sqrt()
    with torch.no_grad():
        theirs = model(normalised[None], output_hidden_states=True).hidden_states
    for a, b in zip(upstream([WAV]).layers, theirs, strict=True):
        assert float((a - b).abs().max()) <= 1e-6
    assert upstream.options == tiny("data2vec").options


def test_same_base_says_what_differs(saved: Path) -> None:
    """REVIEW A9: a copy with another ``do_normalize`` passed for the original."""
    upstream = load("hubert", saved)
    recorded = {n: getattr(upstream, n) for n in ("weights", "loader", "options", "code")}
    recorded = json.loads(json.dumps(recorded))
    assert same_base(recorded, upstream) is None
    assert same_base({"weights": upstream.weights}, upstream) is None
    (saved / "preprocessor_config.json").write_text('{"do_normalize": true}')
    other = load("hubert", saved)
    assert same_base(recorded, other) == "its option normalize is True, not False"
    assert "weights are others" in str(same_base(recorded | {"weights": "ab" * 32}, upstream))
    assert "not by s3prl" in str(same_base(recorded | {"loader": "s3prl"}, upstream))
    assert "revision 1, not 0" in str(same_base(recorded | {"code": "0"}, upstream))
    assert "damaged" in str(same_base(recorded | {"options": 3}, upstream))
    assert "its option extra" in str(
        same_base(recorded | {"options": recorded["options"] | {"extra": 1}}, upstream)
    )


def test_other_code_of_a_family_is_another_upstream() -> None:
    """REVIEW A21: a revision of our own code that cache keys and identities can hold."""
    assert Upstream.code == "1" == tiny("whisper").code


# ---- code -------------------------------------------------------------------------------------


@pytest.fixture
def no_fetching(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Whatever transformers would ask the hub's kernels for."""
    from transformers import modeling_utils

    asked: list[Any] = []
    monkeypatch.setattr(
        modeling_utils, "lazy_import_flash_attention", lambda *a, **k: asked.append(a)
    )
    yield asked
    assert asked == []


@pytest.mark.parametrize(
    "key", ["_attn_implementation", "attn_implementation", "_experts_implementation"]
)
@pytest.mark.parametrize("name", ["wavlm", "hubert_base_like", "whisper"])
def test_no_attention_is_fetched(
    name: str, key: str, tmp_path: Path, no_fetching: list[Any]
) -> None:
    """REVIEW D3: WavLM was given no attention, so its directory chose one of the hub's."""
    plain(name).save_pretrained(tmp_path)
    family = {"hubert_base_like": "hubert", "whisper": "whisper_tiny"}.get(name, name)
    changed(tmp_path, **{key: "someone/kernel"})
    text = refusal(tmp_path, family)
    assert "someone/kernel" in text and key in text
    changed(tmp_path, **{key: "flash_attention_2", "_attn_implementation_autoset": True})
    assert load(family, tmp_path).weights == tiny(name).weights
    changed(tmp_path, **{key: {"": "someone/kernel"}})
    assert "someone/kernel" in refusal(tmp_path, family)


@pytest.mark.parametrize(
    "key",
    [
        "auto_map",
        "custom_pipelines",
        "quantization_config",
        "kernel_config",
        "fusion_config",
        "distributed_config",
        "per_layer_config",
        "transformers_weights",
    ],
)
def test_keys_that_ask_for_more_than_numbers(saved: Path, key: str) -> None:
    """REVIEW D3."""
    assert f"'{key}'" in refusal(changed(saved, **{key: {"AutoModel": "x--y.Z"}}))
    load("hubert", changed(saved, **{key: None}))


def test_unknown_keys_never_reach_transformers(saved: Path) -> None:
    """REVIEW D3: only what the configuration class declares is handed on."""
    keys = {"num_labels": 10**9, "id2label": {"0": "x"}, "dtype": "load", "name_or_path": "x/y"}
    upstream = load("hubert", changed(saved, surprise="x", _name_or_path="x/y", **keys))
    config: Any = upstream.model.config  # type: ignore[union-attr]
    assert not hasattr(config, "surprise") and config.num_labels == 2
    assert "x/y" not in str(config.to_dict())
    assert upstream.weights == tiny("hubert_base_like").weights


def test_an_adapter_beside_the_encoder(saved: Path) -> None:
    """REVIEW D7: it was looked at, and neither applied nor mentioned."""
    (saved / "adapter_config.json").write_text("{}")
    assert "peft adapter" in refusal(saved)
    (saved / "config.json").unlink()  # an adapter alone
    assert "peft adapter" in refusal(saved)


# ---- files and sizes --------------------------------------------------------------------------


def sharded(folder: Path, *, shard: str = "part.safetensors") -> Path:
    """The directory with its weights in one shard, under an index."""
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_an_index_of_shards(saved: Path) -> None:
    assert load("hubert", sharded(saved)).weights == tiny("hubert_base_like").weights
    (saved / "part.safetensors").unlink()
    assert "part.safetensors" in refusal(saved)


@pytest.mark.parametrize("place", ["..", "sub", "absolute"])
def test_an_index_names_files_beside_itself(saved: Path, place: str) -> None:
    """REVIEW D7: a shard elsewhere was read."""
    elsewhere = saved.parent if place != "sub" else saved / "sub"
    elsewhere.mkdir(exist_ok=True)
    shutil.copy(saved / "model.safetensors", elsewhere / "x.safetensors")
    shard = str(elsewhere / "x.safetensors") if place == "absolute" else f"{place}/x.safetensors"
    assert "beside it" in refusal(sharded(saved, shard=shard))


@pytest.mark.parametrize("index", [[], {}, {"weight_map": 3}, {"weight_map": {"a": 3}}])
def test_an_index_that_is_none(saved: Path, index: Any) -> None:
    (sharded(saved) / "model.safetensors.index.json").write_text(json.dumps(index))
    refusal(saved)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "model.safetensors", "adapter_config.json"]
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_only_regular_files_are_read(saved: Path, name: str, kind: str) -> None:
    """REVIEW D5: a pipe as preprocessor_config.json was taken for none, and the states changed."""
    (saved / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(saved / name)
    else:
        (saved / name).symlink_to("/dev/zero")
    text = refusal(saved)
    assert name in text and kind in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 1 << 22),
        ("hidden_size", 10**9),
        ("intermediate_size", 1 << 24),
        ("num_hidden_layers", 200),
        ("num_hidden_layers", 10**9),
        ("num_conv_pos_embeddings", 1 << 24),
        ("conv_dim", [1 << 20] * 7),
        ("conv_dim", [16] * 10**5),
        ("vocab_size", 10**300),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(saved: Path, key: str, value: Any) -> None:
    """REVIEW D5."""
    text = refusal(changed(saved, **{key: value}))
    assert "config.json" in text


def test_the_preprocessor_says_true_or_false(saved: Path) -> None:
    file = saved / "preprocessor_config.json"
    file.write_text('{"do_normalize": "false"}')
    assert "'do_normalize' is 'false'" in refusal(saved)
    file.write_text('{"sampling_rate": 8000}')
    assert "'sampling_rate' is 8000" in refusal(saved)
    file.write_text('{"do_normalize": null, "sampling_rate": 16000}')
    assert load("hubert", saved).options["normalize"] is False


def test_weights_that_are_not_numbers(saved: Path) -> None:
    """As REVIEW D4, of the encoder: NaN and integers."""
    state = load_file(saved / "model.safetensors")
    name = "encoder.layers.1.attention.q_proj.weight"
    for wrong in (torch.full_like(state[name], torch.nan), state[name].to(torch.int32)):
        save_file(state | {name: wrong}, saved / "model.safetensors", {"format": "pt"})
        assert name in refusal(saved)


def test_the_model_does_not_hang_on_its_file(saved: Path) -> None:
    """What was read stays, whatever is written over the file."""
    upstream = load("hubert", saved)
    before = upstream([WAV]).layers[-1]
    file = saved / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\x00" * (file.stat().st_size // 4))
    assert torch.equal(upstream([WAV]).layers[-1], before)


def test_names_that_no_record_could_hold(saved: Path) -> None:
    """REVIEW D6: names that are not UTF-8."""
    odd = Path(os.fsdecode(os.fsencode(saved) + b"\xff"))
    saved.rename(odd)
    with pytest.raises(UserError, match="rename it") as caught:
        load("hubert", odd)
    assert str(caught.value).isascii()


def test_a_local_folder_is_not_taken_for_the_hubs(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be recorded under the name of the hub's repository."""
    place = saved.parent / "facebook" / "hubert-base-ls960"
    place.parent.mkdir()
    saved.rename(place)
    monkeypatch.chdir(saved.parent)
    with pytest.raises(UserError, match="--upstream-path"):
        load("hubert")


def test_names_of_older_files(saved: Path) -> None:
    """Weight norm was stored under other names; transformers translates them from a dict too."""
    state = load_file(saved / "model.safetensors")
    old = {"original0": "weight_g", "original1": "weight_v"}
    for name in [n for n in state if n.rpartition(".")[2] in old]:
        stem, _, kind = name.rpartition(".parametrizations.weight.")
        state[f"{stem}.{old[kind]}"] = state.pop(name)
    assert "encoder.pos_conv_embed.conv.weight_g" in state
    save_file(state, saved / "model.safetensors", {"format": "pt"})
    assert load("hubert", saved).weights == tiny("hubert_base_like").weights


def test_deep_nesting(saved: Path) -> None:
    """REVIEW D6: JSON nested 10,000 deep was a traceback."""
    for name in ("config.json", "preprocessor_config.json"):
        whole = (saved / name).read_bytes()
        (saved / name).write_text('{"a":' * 10_000 + "1" + "}" * 10_000)
        assert name in refusal(saved)
        (saved / name).write_bytes(whole)
