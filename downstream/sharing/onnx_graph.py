"""An adapted model as one ONNX graph: waveform -> outputs and scores of one clip of any length."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.models.onnx_files import INPUT, MISSING, OUTPUTS, SCORES
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.tasks.classes import SCORE, ClassTask
from emopeft.downstream.tasks.dimensional import PREDICTION, DimensionalTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.errors import UserError
from emopeft.upstream.base import SAMPLE_RATE
from emopeft.upstream.states import States

OPSET = 20
SINGLE_FILE = 1_500_000_000  # bytes of weights; a file of protobuf may have no more than 2 GB
TRACED = 20_123  # samples of the clip that the graph is traced with


class OneClip(nn.Module):
    """``forward(waveform)`` gives outputs (outputs,) and scores (scores,) of one clip (samples,).

    All in fp32 and from the waveform, wherever training started. Nothing depends on the length's
    value, so that a graph of one length is one of all.

    Args:
        model: in eval mode; its upstream is marked as traced.
    """

    def __init__(self, model: AdaptedModel, task: Task):
        super().__init__()
        self.model, self.task = model.requires_grad_(False), task
        model.upstream.traced = True

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        upstream, head = self.model.upstream, self.model.head
        frames = upstream.embed(upstream.extract([waveform]))[0][None]
        # The number of frames as a tensor: as a number it would be fixed.
        states = States(frames, torch.ones_like(frames[:, :, 0]).long().sum(1))
        layers = [frames]
        for i in range(upstream.num_blocks):
            states = upstream.block(i, states)
            layers.append(states.frames)
        layers[-1] = upstream.finish(layers[-1])
        seen = [x.mean(1) for x in layers] if head.pooled else layers
        outputs = head(torch.stack(seen, dim=1), states.lengths)[0]
        scores = scores_of(self.task, outputs)
        return (outputs,) if scores is None else (outputs, scores)


def scores_of(task: Task, outputs: Tensor) -> Tensor | None:
    """What stands in predictions.csv, of outputs (outputs,): probabilities of classes, ratings on
    their scale; None for a task that we do not know."""
    if isinstance(task, JointTask):
        parts, first = [], 0
        for part in task.parts.values():
            parts.append(scores_of(part, outputs[first : first + part.outputs]))
            first += part.outputs
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    if isinstance(task, ClassTask):
        return torch.softmax(outputs, -1)
    if isinstance(task, DimensionalTask):
        low, high = (outputs.new_tensor(ends) for ends in zip(*task.scales.values(), strict=True))
        return low + outputs * (high - low)
    return None


def score_names(task: Task) -> list[str] | None:
    """The columns of predictions.csv that `scores_of` gives, in its order."""
    if isinstance(task, JointTask):
        parts = {name: score_names(part) for name, part in task.parts.items()}
        if any(names is None for names in parts.values()):
            return None
        return [f"{part}.{name}" for part, names in parts.items() for name in names or ()]
    if isinstance(task, ClassTask):
        return [SCORE + name for name in task.classes]
    return (
        [PREDICTION + name for name in task.scales] if isinstance(task, DimensionalTask) else None
    )


def write_graph(path: Path, model: AdaptedModel, task: Task, clips: ClipKeys) -> int:
    """Write the graph of a model, which is not to be used for anything else afterwards.

    Args:
        clips: where it crops, the graph takes the beginning of a longer clip.

    Returns:
        the opset.

    Raises:
        UserError: onnx is not installed, or torch cannot make a graph of this model.
    """
    onnx = _packages()
    upstream = model.upstream
    what = f"{upstream.name} with '{model.adaptation.spec}'"
    if "opensmile" in upstream.options:
        raise UserError(f"{what} cannot become an ONNX graph: opensmile makes its features")
    if upstream.loader == "s3prl":
        raise UserError(
            f"{what} cannot become an ONNX graph: s3prl's code takes the length of the clip for a "
            "fixed number; train the upstream of the same name without s3prl:"
        )
    clip = torch.randn(max(TRACED, 2 * upstream.min_samples)) * 0.1
    graph = OneClip(model, task).eval()
    names = [OUTPUTS, SCORES] if score_names(task) else [OUTPUTS]
    shapes = {"waveform": {0: torch.export.Dim.DYNAMIC}}
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(graph, (clip,), dynamic_shapes=shapes, strict=False)
            exported: Any = torch.onnx.export(
                program, (clip,), dynamo=True, input_names=[INPUT], output_names=names,
                opset_version=OPSET, verbose=False,
            )  # fmt: skip
            proto = exported.model_proto
    except Exception as error:  # the exporter has a class for each of its stages
        raise UserError(
            f"{what} cannot become an ONNX graph (torch.onnx says: {_why(error)}); use "
            "emopeft export or merge, which keep it in torch"
        ) from error
    _clean(proto)
    if (most := most_samples(upstream.max_samples, clips)) is not None:
        _cut(proto, most)
    weights = sum(tensor.ByteSize() for tensor in proto.graph.initializer)
    large = weights > SINGLE_FILE
    onnx.save(proto, str(path), save_as_external_data=large, location=path.name + ".data")
    try:
        onnx.checker.check_model(str(path), full_check=not large)
    except Exception as error:
        raise UserError(f"the graph of {what} is not sound ({_why(error)}); use export") from error
    return int(next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")))


def most_samples(max_samples: int | None, clips: ClipKeys) -> int | None:
    """How many samples of a clip's beginning are used at most; None: all."""
    ends = [] if max_samples is None else [max_samples]
    if clips.mode == "crop" and clips.seconds is not None:
        ends.append(round(clips.seconds * SAMPLE_RATE))
    return min(ends, default=None)


def _packages() -> Any:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise UserError(MISSING.format(name)) from None
    import onnx

    return onnx


def _clean(proto: Any) -> None:
    """Take out what says where it was made (stack traces), and name the free length."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]  # shapes that every reader infers again
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "samples"


def _cut(proto: Any, most: int) -> None:
    """Have the graph take the first ``most`` samples of a longer clip, as the model does."""
    from onnx import TensorProto
    from onnx.helper import make_node, make_tensor

    graph = proto.graph
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == INPUT:
                node.input[i] = f"{INPUT}_cut"
    for name, value in (("cut_start", 0), ("cut_end", most), ("cut_axis", 0)):
        graph.initializer.append(make_tensor(name, TensorProto.INT64, [1], [value]))
    inputs = [INPUT, "cut_start", "cut_end", "cut_axis"]
    graph.node.insert(0, make_node("Slice", inputs, [f"{INPUT}_cut"], "cut"))


def _why(error: BaseException) -> str:
    """The first line of what went wrong at the bottom of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter's advice, some of it given by the root logger, is noise to our users."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
