"""A fold as an ONNX graph: the folder that `emopeft onnx` writes, read and run by onnxruntime.

model.onnx        waveform (samples,) at 16 kHz -> outputs (outputs,), scores (scores,)
model.int8.onnx   the same with the weights of the blocks' linear layers in eight bits, where asked
onnx.json         `OnnxFacts`: classes, what the waveform must be, how it was checked
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.feature_cache.excerpts import spans
from emopeft.downstream.models.adapter_config import ClipFacts, Name, Plain, ProtocolFacts, Text
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.files import read_json
from emopeft.upstream.base import SAMPLE_RATE
from emopeft.validation import Strict, validated

FACTS = "onnx.json"
GRAPHS = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
INPUT, OUTPUTS, SCORES = "waveform", "outputs", "scores"
AGAIN = "write it again with emopeft onnx"
MISSING = "ONNX needs {}, which is not installed: pip install 'emopeft[onnx]'"

Samples = Annotated[int, Field(ge=1, le=1 << 40)]


class OnnxFacts(Strict):
    """onnx.json.

    Attributes:
        task: its description. classes: of its outputs, in order; none for ratings.
        scores: what each of the graph's scores is, as in predictions.csv; none: it has no scores.
        preprocessing: what a waveform must be, in words. clips: how longer clips are taken.
        min_samples, max_samples: the shortest waveform; what of a longer one is used (None: all).
        merged: whether the adapters stand in the weights; else why not.
        check: the tolerance and the largest difference from torch that was seen, with the lengths.
        int8: what eight bits cost, where there is such a graph.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")]
    task: Plain
    classes: list[Name]
    scores: list[Name]
    sample_rate: Literal[16000]
    min_samples: Samples
    max_samples: Samples | None
    clips: ClipFacts
    preprocessing: Text
    upstream: Plain
    method: Text
    merged: bool
    not_merged: Text | None
    protocol: ProtocolFacts
    fold: Name
    seed: int
    opset: Annotated[int, Field(ge=1, le=1000)]
    versions: dict[Name, Name]
    files: dict[Name, Annotated[int, Field(ge=0)]]
    check: Plain
    int8: Plain | None = None


def is_onnx(place: Path) -> bool:
    """Whether a folder is one of `emopeft onnx`."""
    return (place / FACTS).is_file()


def runtime() -> Any:
    """The module onnxruntime; raises UserError where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(MISSING.format("onnxruntime")) from None
    return onnxruntime


@dataclasses.dataclass
class OnnxModel:
    """A graph that runs: what `checkpoints.outputs_of_clip` is for a model of torch.

    Attributes:
        session: onnxruntime's, on the CPU. clips: how longer clips are taken.
    """

    session: Any
    clips: ClipKeys

    @classmethod
    def open(cls, path: Path, clips: ClipKeys, threads: int | None = None) -> OnnxModel:
        """The graph in a file.

        Args:
            threads: of a single operation; None: as many as torch has.

        Raises:
            UserError: there is none, or onnxruntime cannot read it.
        """
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Threads that wait for the next call by spinning would take the cores of whoever is timed
        # in between.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many classes, which have no common base
            first = str(error).strip().partition("\n")[0][:200]
            raise UserError(f"onnxruntime cannot read {path} ({first}); {AGAIN}") from error
        names = [one.name for one in session.get_inputs()], [o.name for o in session.get_outputs()]
        if names[0] != [INPUT] or names[1][:1] != [OUTPUTS]:
            raise UserError(f"{path} does not lead from '{INPUT}' to '{OUTPUTS}'; {AGAIN}")
        return cls(session, clips)

    def outputs(self, wav: Tensor) -> Tensor:
        """The head's outputs (outputs,) of a waveform (samples,) at 16 kHz."""
        ways = spans(self.clips, len(wav) / SAMPLE_RATE)
        wavs = [span.of(wav) for span in ways[0]] if ways else [wav]
        return torch.from_numpy(np.mean([self._run(one)[0] for one in wavs], axis=0))

    def scores(self, wav: Tensor) -> Tensor | None:
        """The scores (scores,) of a waveform that is taken whole; None where it has none."""
        values = self._run(wav)
        return torch.from_numpy(values[1]) if len(values) > 1 else None

    def _run(self, wav: Tensor) -> list[np.ndarray]:
        return self.session.run(None, {INPUT: wav.numpy()})


def read_facts(place: Path) -> tuple[OnnxFacts, Task]:
    """The facts of a folder, with its task; raises UserError where they are damaged."""
    path = place / FACTS
    facts = validated(path, OnnxFacts, read_json(path), AGAIN)
    try:
        return facts, task_of(facts.task)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def open_folder(place: Path, threads: int | None = None) -> Mapping[str, OnnxModel]:
    """The graphs of a folder by their precision; raises UserError where one is missing."""
    facts, _ = read_facts(place)
    clips = ClipKeys(**facts.clips.model_dump())
    kinds = [kind for kind in GRAPHS if kind == "fp32" or facts.int8 is not None]
    return {kind: OnnxModel.open(place / GRAPHS[kind], clips, threads) for kind in kinds}
