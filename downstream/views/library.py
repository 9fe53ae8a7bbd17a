"""What audiomentations computes of a waveform. What it would draw is drawn by us and given to it:
its own draws come from generators that all threads share."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, ClassVar

from emopeft.downstream.corpora.audio import SAMPLE_RATE
from emopeft.downstream.views.base import Samples, Transform, version
from emopeft.errors import UserError


class Library(Transform):
    """A transformation that audiomentations computes."""

    library: ClassVar[str] = "audiomentations"

    def made(self, name: str, **options: Any) -> Any:
        """audiomentations' transformation; raises UserError where it is not installed."""
        try:
            module = importlib.import_module("audiomentations")
        except ImportError:
            raise UserError(
                f"the view {self.name} needs audiomentations, which is not installed: pip install "
                "'emopeft[views]'"
            ) from None
        return getattr(module, name)(p=1.0, **options)

    def run(self, made: Any, wav: Samples, **parameters: float) -> Samples:
        """Apply it with these parameters."""
        made.parameters = {"should_apply": True, **parameters}
        made.freeze_parameters()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result: Samples = made(samples=wav, sample_rate=SAMPLE_RATE)
        return result

    def describe(self) -> dict[str, Any]:
        stretch = {"python-stretch": version("python-stretch")}
        told = super().describe()
        return told | {"library": told["library"] | stretch}
