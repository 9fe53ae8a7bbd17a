"""A fold and seed that is to be trained, and what training it gave."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from emopeft.downstream.data.fold import Fold, Stage
from emopeft.downstream.feature_cache.kept_states import ProbeResult
from emopeft.downstream.training.selection import Fit

PROBE = "probe"  # where a fold keeps the progress of the probe that it starts from


@dataclasses.dataclass
class Work:
    """A fold and seed to be trained."""

    fold: Fold
    seed: int
    place: Path

    @property
    def label(self) -> str:
        """For progress bars and errors."""
        return f"fold {self.fold.name} seed {self.seed}"

    def progress(self, stage: Stage, rate: float | None = None) -> Path:
        """Where the progress of a stage, or of one rate of its search, is kept."""
        number = [s.name for s in self.fold.stages].index(stage.name) + 1
        return self.place / (
            f"stage{number}.pt" if rate is None else f"stage{number}_lr{rate:g}.pt"
        )

    def clear(self) -> None:
        """Progress is not needed once the fold is written."""
        for place in (self.place, self.place / PROBE):
            for path in place.glob("stage*.pt"):
                path.unlink(missing_ok=True)


@dataclasses.dataclass
class Start:
    """A frozen probe that a fold starts from: the head's whole state, and how it came about."""

    state: dict[str, Tensor]
    result: ProbeResult


@dataclasses.dataclass
class StageOutcome:
    """What training a stage gave.

    Attributes:
        fit: steps, best step, dev metrics, history, seconds.
        lr: the rate; tried: rate to the dev metric that it reached (a diverged one: the worst).
        tuning: seconds of the search, the winner's own not counted.
        state: all that the stage's model keeps, for the checkpoint or the next stage.
        shared: whether it was trained before, by another fold or run, and read.
        method: of the model that ``state`` is of, where that is not the one that was trained.
    """

    fit: Fit
    lr: float
    tried: dict[str, float]
    tuning: float
    state: dict[str, Tensor]
    shared: bool = False
    method: str | None = None


@dataclasses.dataclass
class Outcome:
    """What training a fold gave.

    Attributes:
        stages: by name, those that were trained, in order. last: the last of them.
        tests: per named test the head's outputs (utterances, outputs); dev: of the last stage's.
        tested: seconds of the tests. peak: bytes of host and device.
        probe: that the first stage started from, None where it started at random.
        unscored: as tests, of the unscored ones.
        transfer: of a transfer plan, or a run that goes on from another.
    """

    stages: dict[str, StageOutcome]
    tests: dict[str, Tensor]
    dev: Tensor
    tested: float
    peak: dict[str, int | None]
    probe: ProbeResult | None = None
    unscored: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    transfer: Transferred | None = None

    @property
    def last(self) -> StageOutcome:
        return list(self.stages.values())[-1]


@dataclasses.dataclass
class Transferred:
    """What is known of a fold that was trained in two domains.

    Attributes:
        moments: "before" (the start) and, where the target's stage went on from the source's end,
            "between": per named test the head's outputs (utterances, outputs).
    """

    moments: dict[str, dict[str, Tensor]] = dataclasses.field(default_factory=dict)
