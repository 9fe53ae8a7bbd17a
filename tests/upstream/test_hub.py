"""Loading from directories and the hub: what is accepted, and how refusals read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from emopeft.errors import UserError
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import load
from emopeft.upstream.hub import PINNED
from tests.tiny import CONFIGS, plain, tiny

# A name of the list for each family, to load the tiny models with.
NAMES = {
    "hubert_base_like": "hubert",
    "hubert_large_like": "hubert_large_ll60k",
    "distilhubert_like": "distilhubert",
    "wav2vec2": "wav2vec2",
    "wavlm_large_like": "wavlm",
    "unispeech_sat": "unispeech_sat",
    "data2vec": "data2vec",
    "whisper": "whisper_tiny",
    "moonshine": "moonshine_tiny",
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    plain("hubert_base_like").save_pretrained(tmp_path)
    return tmp_path


def same(one: Upstream, other: Upstream) -> bool:
    wav = [0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))]
    pairs = zip(one(wav).layers, other(wav).layers, strict=True)
    return one.weights == other.weights and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", list(NAMES))
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    plain(name).save_pretrained(tmp_path)
    upstream = load(NAMES[name], tmp_path)
    assert same(upstream, tiny(name))
    assert (upstream.name, upstream.source) == (NAMES[name], str(tmp_path))
    assert (upstream.loader, upstream.revision) == ("transformers", None)
    assert upstream.parameter_count == sum(p.numel() for p in plain(name).parameters())
    assert upstream.licence != "unknown"


# Whole models, of which the encoder alone is wanted, under three different prefixes.
WHOLE = {
    "whisper": ["WhisperModel", "WhisperForConditionalGeneration", "WhisperForAudioClassification"],
    "moonshine": ["MoonshineModel", "MoonshineForConditionalGeneration"],
    "hubert_base_like": ["HubertForCTC", "HubertForSequenceClassification"],
    "wav2vec2": ["Wav2Vec2ForPreTraining"],
}


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, kinds in WHOLE.items() for k in kinds])
def test_the_encoder_of_a_whole_model(name: str, kind: str, tmp_path: Path) -> None:
    config, values = CONFIGS[name]
    whole: Any = getattr(transformers, kind)(getattr(transformers, config)(**values))
    inner = next(m for m in whole.modules() if type(m) is type(plain(name)))
    inner.load_state_dict(plain(name).state_dict())
    whole.save_pretrained(tmp_path)
    upstream = load(NAMES[name], tmp_path)
    assert same(upstream, tiny(name))
    # What is exported later is the plain encoder.
    again = tmp_path / "again"
    upstream.model.save_pretrained(again)
    assert set(load_file(again / "model.safetensors")) <= set(plain(name).state_dict())
    assert same(load(NAMES[name], again), upstream)


def test_half_precision_files_are_loaded_as_float32(tmp_path: Path) -> None:
    plain("whisper").half().save_pretrained(tmp_path)
    assert {p.dtype for p in load("whisper_tiny", tmp_path).parameters()} == {torch.float32}


def test_pytorch_bin_is_read_without_unpickling(saved: Path) -> None:
    state = plain("hubert_base_like").state_dict()
    (saved / "model.safetensors").unlink()
    torch.save(state, saved / "pytorch_model.bin")
    assert same(load("hubert", saved), tiny("hubert_base_like"))

    class Code:
        def __reduce__(self) -> Any:
            return (Path.touch, (saved / "was_run",))

    torch.save(state | {"x": Code()}, saved / "pytorch_model.bin")
    text = refusal("hubert", saved)
    assert "pickled code" in text and "pytorch_model.bin" in text
    assert "weights_only" not in text  # REVIEW D7: torch's message tells how to run it
    assert not (saved / "was_run").exists()


def test_preprocessor_config_is_obeyed(saved: Path) -> None:
    assert load("hubert", saved).options["normalize"] is False
    (saved / "preprocessor_config.json").write_text('{"do_normalize": true}')
    assert load("hubert", saved).options["normalize"] is True


# ---- refusals ------------------------------------------------------------------------------


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_another_familys_directory(saved: Path) -> None:
    text = refusal("wav2vec2", saved)
    assert "'hubert'" in text and "'wav2vec2'" in text and str(saved) in text


def test_an_unsupported_model_names_the_supported(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    text = refusal("hubert", saved)
    assert "'bert'" in text and "hubert, moonshine, unispeech-sat" in text


def test_missing_files_are_named(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert "model.safetensors" in refusal("hubert", saved)
    (saved / "config.json").unlink()
    assert "config.json" in refusal("hubert", saved)
    assert "is not a directory" in refusal("hubert", tmp_path / "nowhere")
    assert "is not a directory" in refusal("hubert", Path(__file__))


def test_damaged_files_are_named(saved: Path) -> None:
    weights, config = saved / "model.safetensors", saved / "config.json"
    whole, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    assert str(saved) in refusal("hubert", saved)
    weights.write_bytes(b"nonsense")
    assert str(saved) in refusal("hubert", saved)
    weights.write_bytes(whole)
    config.write_text(text[: len(text) // 2])
    assert "config.json is not valid JSON" in refusal("hubert", saved)
    config.write_text("[]")
    assert "not a JSON object" in refusal("hubert", saved)
    broken = json.loads(text) | {"hidden_size": "many"}
    config.write_text(json.dumps(broken))
    assert "not a valid hubert configuration" in refusal("hubert", saved)
    config.write_text(json.dumps(json.loads(text) | {"hidden_size": 64}))
    assert "do not fit its config.json" in refusal("hubert", saved)
    config.write_text(text)
    load("hubert", saved)


def test_no_tensor_is_left_random(saved: Path) -> None:
    file = saved / "model.safetensors"
    state = load_file(file)
    del state["masked_spec_embed"]  # never used, and absent from published checkpoints
    save_file(state, file, {"format": "pt"})
    assert load("hubert", saved).num_blocks == 3
    del state["encoder.layers.1.attention.q_proj.weight"]
    save_file(state, file, {"format": "pt"})
    assert "lack 1 tensors of the encoder (encoder.layers.1" in refusal("hubert", saved)


def test_options_of_another_family(saved: Path) -> None:
    assert "unknown option" in refusal("hubert", saved, window="30s")
    plain("whisper").save_pretrained(saved)
    assert "window=5s must be one of clip, 30s" in refusal("whisper_tiny", saved, window="5s")


def test_weightless_upstreams_take_no_directory(tmp_path: Path) -> None:
    for name in ("demo", "fbank", "egemaps"):
        assert "--upstream-path" in refusal(name, tmp_path)


# ---- the hub, simulated: nothing here touches a network ------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the hub switched off; returns the cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_network_and_cache(offline: Path) -> None:
    for name in ("hubert", "hf:facebook/hubert-base-ls960"):
        started = time.monotonic()
        text = refusal(name)
        assert "config.json of facebook/hubert-base-ls960" in text
        assert "--upstream-path" in text
        assert time.monotonic() - started < 10


def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from emopeft.upstream.source import reachable

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    started = time.monotonic()
    assert not reachable(seconds=2)
    assert time.monotonic() - started < 3


def put(cache: Path, repository: str, source: Path) -> None:
    """Lay a directory into the cache as huggingface_hub does."""
    place = cache / f"models--{repository.replace('/', '--')}"
    commit = PINNED.get(repository, COMMIT)
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots").mkdir()
    source.rename(place / "snapshots" / commit)


def test_from_the_cache_with_its_commit(offline: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    plain("hubert_base_like").save_pretrained(source)
    put(offline, "facebook/hubert-base-ls960", source)
    for name in ("hubert", "hf:facebook/hubert-base-ls960"):
        upstream = load(name)
        assert same(upstream, tiny("hubert_base_like"))
        assert upstream.revision == PINNED["facebook/hubert-base-ls960"]
        assert upstream.source == "facebook/hubert-base-ls960"
        assert upstream.name == name
    assert load("hubert", revision="main").revision == PINNED["facebook/hubert-base-ls960"]
    assert "config.json" in refusal("hubert", revision="other")


def test_weights_missing_from_the_cache(offline: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    plain("hubert_base_like").save_pretrained(source)
    (source / "model.safetensors").unlink()
    put(offline, "facebook/hubert-base-ls960", source)
    assert "model.safetensors of facebook/hubert-base-ls960" in refusal("hubert")


def test_an_encoder_that_is_not_pinned_records_its_commit(offline: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    plain("distilhubert_like").save_pretrained(source)
    put(offline, "ntu-spml/distilhubert", source)
    assert load("distilhubert").revision == COMMIT


def test_hf_picks_the_family(offline: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    plain("wavlm").save_pretrained(source)
    put(offline, "someone/wavlm-mine", source)
    upstream = load("hf:someone/wavlm-mine")
    assert same(upstream, tiny("wavlm"))
    assert "no option 'window'" in refusal("hf:someone/wavlm-mine", window="30s")
