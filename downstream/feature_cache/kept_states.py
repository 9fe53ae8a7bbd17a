"""What other trainings start from, kept beside the frozen parts that it was trained on: frozen
probes, the source's stage of a transfer, and the Fisher information where it ended.

A folder holds the states of all folds and seeds that differ in nothing else; it is named by the
hash of what they share, and is listed, cleaned and counted as the folders of frozen parts are. A
state is two files: its tensors, and a JSON with their checksum and how they came about, which is
written last. Both are read as data from anybody: what is damaged is made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from emopeft.downstream.feature_cache.contents import unreadable
from emopeft.downstream.feature_cache.folders import (
    ELSEWHERE,
    FISHER,
    PROBE,
    STAGE,
    holding,
    make_room,
)
from emopeft.errors import UserError
from emopeft.files import Busy, digest, locked, read_bytes, read_json, write_json, writing
from emopeft.validation import Strict, validated

logger = logging.getLogger(__name__)

FORMAT = 1
MAX_FACTS = 1 << 20

Number = Annotated[float, Field(ge=0, le=1e12)]
Whole = Annotated[int, Field(ge=0, lt=2**53)]


class ProbeResult(Strict):
    """What training a probe came to.

    Attributes:
        dev: metrics on dev, null where one is none, at ``best_step`` of ``steps``.
        evaluations: how many states were compared on dev to choose that one.
        lr: the learning rate. seconds: of its training, a search included.
    """

    dev: dict[str, Any]
    lr: Number
    steps: Whole
    best_step: Whole
    evaluations: Whole
    seconds: Number


class StageResult(Strict):
    """What training a stage came to.

    Attributes:
        best: metrics on dev, null where one is none, at ``best_step`` of ``steps``.
        history: of every evaluation. lr: the learning rate; tried: rate to what it reached.
        seconds: of the training; tuning: of the search's others.
    """

    lr: Number
    steps: Whole
    best_step: Whole
    best: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: Number
    tried: dict[str, float | None]
    tuning: Number


class FisherResult(Strict):
    """What the Fisher information was made of. seconds: that it took."""

    utterances: Whole
    seconds: Number


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of states.

    Attributes:
        name: what its files begin with, and where the key of a folder says that they start.
        title: for messages. result: what training one came to.
        largest: bytes of its tensors.
    """

    name: str
    title: str
    result: type[Strict]
    largest: int

    @property
    def facts(self) -> type[Strict]:
        """The JSON beside a state's tensors."""
        fields: dict[str, Any] = {
            "sha256": (Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...),
            self.name: (self.result, ...),
        }
        return create_model("KeptFacts", __base__=Strict, **fields)


# The largest head of the widest encoder has a tenth; a stage may train the largest encoder.
PROBES = Kind(PROBE, "frozen probe", ProbeResult, 1 << 30)
STAGES = Kind(STAGE, "source stage", StageResult, 16 << 30)
FISHERS = Kind(FISHER, "Fisher information", FisherResult, 16 << 30)


class KeptStates:
    """The kept states that share a folder.

    Args:
        root: the folder of all caches.
        kind: which states they are.
        key: JSON-able; all that the states share and that decides them.
        name: what `list` shows; not part of the key.
        limit: bytes that all caches under ``root`` may take (None: no limit).
    """

    def __init__(
        self,
        root: Path,
        kind: Kind,
        key: Mapping[str, Any],
        name: str,
        limit: float | None = None,
    ):
        key = {**key, "format": FORMAT}
        self.root, self.kind, self.limit = root, kind, limit
        self.folder = root / "features" / digest(key)[:24]
        shown = {"name": name, "start": kind.name, "states": key["head"]["name"], "dtype": "fp32"}
        self._held = holding(self.folder, {**key, **shown})

    @contextlib.contextmanager
    def making(self, which: str) -> Iterator[None]:
        """The right to make a state; waits for another process that makes it, and says so.

        Args:
            which: digest of what decides this one of the folder.
        """
        path = self.folder / f".{which[:24]}.lock"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(path, wait=1))
            except Busy:
                title = self.kind.title
                logger.warning("waiting for another process that trains the same %s", title)
                stack.enter_context(locked(path, wait=math.inf))
            yield

    def read(self, which: str, like: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Any] | None:
        """A kept state and its result; None where there is none, or a damaged one.

        Args:
            like: a state whose names, shapes and types it must have.

        Raises:
            UserError: it cannot be read. That says nothing about its content: it stays.
        """
        tensors, facts = self._places(which)
        try:
            for path in (facts, tensors):
                with path.open("rb") as file:
                    file.read(1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            noted: Any = validated(facts, self.kind.facts, read_json(facts, MAX_FACTS))
            data = read_bytes(tensors, self.kind.largest)
            if hashlib.sha256(data).hexdigest() != noted.sha256:
                raise ValueError("its checksum differs")
            state = load(data)
            _check(state, like)
        except (UserError, SafetensorError, ValueError, KeyError, TypeError) as error:
            title, why = self.kind.title, str(error)[:200]
            logger.warning("the kept %s %s is damaged (%s); it is made again", title, tensors, why)
            return None
        return state, getattr(noted, self.kind.name)

    def write(self, which: str, state: Mapping[str, Tensor], result: Strict) -> None:
        """Keep a state; under `making` only."""
        tensors, place = self._places(which)
        data = save({name: t.detach().cpu().contiguous() for name, t in state.items()})
        if self.limit is not None:
            with locked(self.root / "features" / ".lock", wait=math.inf):
                make_room(self.root, self.limit, len(data), keep=self.folder)
        place.unlink(missing_ok=True)  # of a damaged one: no moment shows it beside other tensors
        with writing(tensors, f"free some space or {ELSEWHERE}") as temporary:
            temporary.write_bytes(data)
        noted = {"sha256": hashlib.sha256(data).hexdigest(), self.kind.name: result}
        write_json(place, json.loads(self.kind.facts(**noted).model_dump_json()))

    def _places(self, which: str) -> tuple[Path, Path]:
        name = f"{self.kind.name}-{which[:24]}"
        return self.folder / f"{name}.safetensors", self.folder / f"{name}.json"


def _check(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Raises ValueError where tensors are not those asked for, or not finite."""
    if odd := sorted(state.keys() ^ like.keys()):
        raise ValueError(f"it holds other tensors, e.g. {odd[0][:60]!r}")
    for name, tensor in state.items():
        if tensor.shape != like[name].shape or tensor.dtype != like[name].dtype:
            raise ValueError(f"{name} has another shape or type")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinity")
