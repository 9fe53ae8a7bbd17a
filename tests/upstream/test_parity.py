"""The states of every upstream are those of transformers, on every device there is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from emopeft.upstream.catalogue import load
from tests.shared import SHARED
from tests.tiny import TINY, plain, tiny
from tests.upstream.upstreams import REAL, allowed, clips, furthest, get, on


def reference(model: Any, inputs: Tensor) -> list[Tensor]:
    """All states of transformers' own forward; the last one after the final norm (trap 12)."""
    with torch.no_grad():
        output = model(inputs, output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


def reference_model(name: str) -> Any:
    if name in REAL:
        from emopeft.upstream.hub import FAMILIES

        kind = FAMILIES[name.split("_")[0]].model_class()
        assert SHARED is not None
        return kind.from_pretrained(SHARED / "models" / REAL[name], dtype=torch.float32).eval()
    return plain(name)


@pytest.mark.parametrize("name", [*TINY, *REAL])
def test_parity_with_transformers(name: str, device: torch.device) -> None:
    upstream, model, wav = get(name), reference_model(name), clips()[0]
    if "whisper" in name:  # parity needs its 30 s window (trap 7)
        upstream = (
            tiny(name, window="30s") if name in TINY else load(name, upstream.source, window="30s")
        )
        extractor = transformers.WhisperFeatureExtractor()
        inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    elif getattr(upstream, "normalize", False):
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
        inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    else:
        inputs = wav[None]
    # Its attention is another order of additions; the normaliser adds in another order, too.
    exact = "wavlm" not in name and not getattr(upstream, "normalize", False)
    upstream = copy.deepcopy(upstream).to(device)
    ours, theirs = upstream([wav]).layers, reference(model, inputs)
    assert len(ours) == len(theirs) == upstream.num_blocks + 1
    differences = [furthest(a, b) for a, b in zip(ours, theirs, strict=True)]
    assert max(differences) <= allowed(device, 0.0 if exact else 5e-6), differences


@pytest.mark.parametrize("name", [n for n in TINY if "large" in n or n == "data2vec"])
def test_parity_is_exact_behind_the_normaliser(name: str, device: torch.device) -> None:
    upstream, wav = on(name, device), clips()[0]
    normalised = (wav - wav.mean()) / (wav.var(unbiased=False) + 1e-7).sqrt()
    ours, theirs = upstream([wav]).layers, reference(plain(name), normalised[None])
    exact = "wavlm" not in name
    assert max(map(furthest, ours, theirs)) <= allowed(device, 0.0 if exact else 5e-6)


def test_normalisation_follows_the_preprocessor() -> None:
    def normalizes(name: str, preprocessor: dict[str, Any]) -> bool:
        from emopeft.upstream.speech import SpeechUpstream

        upstream = SpeechUpstream(plain(name), preprocessor).seal()
        loud, quiet = upstream.extract([clips()[0], 0.1 * clips()[0]])
        assert (furthest(quiet, loud) < 1e-3) == upstream.normalize
        assert upstream.options["normalize"] is upstream.normalize
        return upstream.normalize

    # With layer norms in the CNN, loudness would still show without normalisation.
    assert normalizes("hubert_large_like", {}) is True
    assert normalizes("hubert_large_like", {"do_normalize": False}) is False
    assert tiny("hubert_base_like").options["normalize"] is False
    assert tiny("data2vec").options["normalize"] is True
