"""Baselines without weights: `fbank` (log-mel energies) and `egemaps` (opensmile functionals).

Both have no blocks and one state, their features, which are not on a common scale: a linear head
needs them standardised over the training set (``standardise``). Within an utterance nothing is
normalised: a head that is linear in the time means would see zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emopeft.errors import UserError
from emopeft.upstream.base import SAMPLE_RATE, Upstream
from emopeft.upstream.catalogue import Entry, register
from emopeft.upstream.states import by_length


class Baseline(Upstream):
    """An upstream whose ``extract`` is all there is."""

    loader = "emopeft"
    num_blocks = 0
    standardise = True

    def __init__(self) -> None:
        super().__init__()
        self._none = nn.ModuleList()

    @property
    def blocks(self) -> nn.ModuleList:
        return self._none

    def parts(self) -> dict[str, list[nn.Module]]:
        return {"extract": [], "embed": [], "finish": []}

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        return list(features)


class Fbank(Baseline):
    """80 log-mel energies, 25 ms windows every 10 ms, as Kaldi computes them (no dither).

    Per window: mean removed, pre-emphasis 0.97, Povey window, power spectrum of 512 points, 80
    triangles between 20 and 8000 Hz on Kaldi's mel scale, natural logarithm.
    """

    width = 80
    stride = 160
    min_samples = 400
    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        from transformers.audio_utils import mel_filter_bank

        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=257,
            num_mel_filters=self.width,
            min_frequency=20.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        # Persistent: they are this upstream's weights, as far as its hash is concerned.
        self.register_buffer("filters", torch.from_numpy(filters).float())
        self.register_buffer(
            "window", torch.hann_window(self.min_samples, periodic=False).pow(0.85)
        )
        self.options = {"baseline": "fbank"}

    def frames_of(self, samples: int) -> int:
        return max(0, (samples - self.min_samples) // self.stride + 1)

    def extract(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        return by_length(self._extract, [x.to(self.window.device, torch.float32) for x in wavs])

    def _extract(self, wavs: Tensor) -> Tensor:
        with torch.autocast(wavs.device.type, enabled=False):
            # Kaldi works on 16-bit amplitudes: an offset of the logarithm, and where it floors.
            frames = (wavs * 32768.0).unfold(1, self.min_samples, self.stride)
            frames = frames - frames.mean(2, keepdim=True)
            before = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
            frames = (frames - 0.97 * before) * self.window
            power = torch.fft.rfft(frames, n=512).abs().square()
            return (power @ self.filters).clamp(min=torch.finfo(torch.float32).eps).log()


class Egemaps(Baseline):
    """The 88 functionals of eGeMAPSv02 (Eyben et al. 2016), one frame per clip; by opensmile."""

    width = 88
    stride = SAMPLE_RATE  # nominal: there is one frame, whatever the length
    min_samples = 960  # 60 ms: the longest analysis window

    def __init__(self) -> None:
        super().__init__()
        try:
            import opensmile
        except ImportError as error:
            raise UserError(
                "egemaps needs opensmile, which is not installed: pip install 'emopeft[egemaps]'"
            ) from error
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.Functionals,
        )
        self.options = {"baseline": "egemaps", "opensmile": opensmile.__version__}
        # So that results of `extract` are where the rest of a run is.
        self.register_buffer("_place", torch.zeros(0), persistent=False)

    def frames_of(self, samples: int) -> int:
        return 1

    def extract(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        place = self.get_buffer("_place").device
        return [
            torch.tensor(
                self._smile.process_signal(x.detach().cpu().float().numpy(), SAMPLE_RATE).values,
                dtype=torch.float32,
                device=place,
            )
            for x in wavs
        ]


def _load(entry: Entry, path: Path | None, revision: str | None, **options: Any) -> Upstream:
    if path is not None or revision is not None:
        raise UserError(f"{entry.name} has no weights: leave out --upstream-path and the revision")
    upstream = Fbank() if entry.name == "fbank" else Egemaps()
    upstream.source = entry.name
    upstream.licence = entry.licence
    return upstream.seal()


register(Entry(name="fbank", family="baseline", load=_load, licence="none", parameters=0.0))
register(
    Entry(
        name="egemaps",
        family="baseline",
        load=_load,
        licence="opensmile: research and private use only",
        parameters=0.0,
    )
)
