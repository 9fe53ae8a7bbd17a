"""The weightless baselines against the libraries they name."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from emopeft.errors import UserError
from emopeft.upstream.catalogue import load


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("samples", [400, 16000, 12345])
def test_fbank_is_kaldis(samples: int) -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    theirs = kaldi.fbank(
        noise(samples)[None] * 32768.0, num_mel_bins=80, dither=0.0, sample_frequency=16000.0
    )
    ours = load("fbank")([noise(samples)]).layers[0][0]
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 1e-3
    assert float(theirs.abs().max()) > 5


def test_fbank_of_silence_is_finite_and_loudness_shows() -> None:
    fbank = load("fbank")
    assert bool(fbank([torch.zeros(800)]).layers[0].isfinite().all())
    loud, quiet = fbank([noise(8000)]).means(), fbank([0.1 * noise(8000)]).means()
    # Ten times the amplitude is 2 ln 10 in log energy; no utterance's mean is taken out.
    assert torch.allclose(loud - quiet, torch.full_like(loud, 2 * np.log(10)), atol=1e-2)


def test_egemaps_is_opensmiles() -> None:
    opensmile = pytest.importorskip("opensmile")
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    upstream = load("egemaps")
    states = upstream([noise(16000), noise(8000)])
    theirs = smile.process_signal(noise(16000).numpy(), 16000).values[0]
    assert states.layers[0].shape == (2, 1, 88)
    assert np.array_equal(states.layers[0][0, 0].numpy(), theirs.astype(np.float32))
    assert upstream.standardise


def test_egemaps_without_opensmile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(UserError, match=r"pip install 'emopeft\[egemaps\]'"):
        load("egemaps")


def test_what_tells_them_apart() -> None:
    one, two = load("fbank"), load("egemaps")
    assert (one.weights, one.options) != (two.weights, two.options)
    assert one.options != two.options
