"""Eight-bit weights for an ONNX graph, and what they cost on a fold's own test clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.data.fold import Example
from emopeft.downstream.data.plan import Plan
from emopeft.downstream.measures.columns import Table
from emopeft.downstream.models.onnx_files import OnnxModel
from emopeft.downstream.records.folds import by_test, read_fold
from emopeft.downstream.sharing.onnx_graph import quiet
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError
from emopeft.upstream.base import SAMPLE_RATE

# Products with weights: linear layers of blocks and projections. Convolutions (the front end) stay
# in single precision: onnxruntime's are slower in eight bits on processors, and the spectrum of a
# quiet sound would be lost. The head stays, too: it is small, and half of all change came from it
# (docs/onnx.md).
OPERATIONS = ["MatMul", "Gemm"]
HEAD = "model.head."  # what the names of its weights begin with in the graph (`OneClip`)


def write_int8(source: Path, target: Path) -> int:
    """Quantise the weights of linear layers dynamically: activations at each call, per tensor.

    Weights: signed, one scale per output column, symmetric; by onnxruntime.quantization.

    Returns:
        how many products were quantised.

    Raises:
        UserError: there is nothing to quantise.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = source.with_name(source.name + ".data").exists()
    with quiet():
        quantize_dynamic(
            source, target, op_types_to_quantize=OPERATIONS, per_channel=True,
            weight_type=QuantType.QInt8, use_external_data_format=large,
            nodes_to_exclude=_of_the_head(onnx.load(str(source), load_external_data=False).graph),
        )  # fmt: skip
    graph = onnx.load(str(target), load_external_data=False).graph
    count = sum(node.op_type == "MatMulInteger" for node in graph.node)
    if not count:
        raise UserError("there are no linear layers to quantise in this graph; leave out --int8")
    return count


def _of_the_head(graph: Any) -> list[str]:
    """The names of its products, as they are and as they are called when made a MatMul."""
    names = [node.name for node in graph.node if any(HEAD in name for name in node.input)]
    return [*names, *(f"{name}_MatMul" for name in names)]


def loss_of_int8(
    folder: Path,
    fold: str,
    plan: Plan,
    graphs: Mapping[str, OnnxModel],
) -> list[dict[str, Any]]:
    """Test a fold with both graphs, on the clips that it was tested on.

    Args:
        fold: its name. plan: that it was trained on (`evaluate.plan_of_run`, `check_plan`).

    Returns:
        per test: "test", "clips", "metrics" of "fp32" and "int8", "changed": clips whose predicted
        class is another in int8 (None of ratings), "largest": the largest change of a number that
        is predicted, "unlike_recorded": clips whose class in fp32 is not that of predictions.csv
        (None where nothing was recorded).
    """
    recorded = read_fold(folder)
    before = by_test(recorded.tests) if recorded is not None and recorded.finished else {}
    found = []
    for name, examples in plan.fold(fold).tests.items():
        tables = _tables(plan, graphs, examples, f"{folder.name} {name}")
        own = {row.id: row.values for row in before.get(name, [])}
        known = [own.get(e.key) for e in examples]
        measured = {kind: plan.task.measure(table) for kind, table in tables.items()}
        shown = [metric.name for metric in plan.task.shown]
        found.append(
            {
                "test": name,
                "clips": len(examples),
                "metrics": {k: {n: m[n] for n in shown if n in m} for k, m in measured.items()},
                "changed": changed(plan.task, tables["fp32"], tables["int8"]),
                "largest": largest_change(plan.task, tables["fp32"], tables["int8"]),
                "unlike_recorded": None
                if None in known
                else changed(plan.task, tables["fp32"], _as_table(known)),
            }
        )
    return found


def changed(task: Task, first: Table, second: Table) -> int | None:
    """How many rows have another class predicted; None where no class is."""
    names = [c.name for c in task.columns if c.role == "prediction" and c.classes is not None]
    if not names:
        return None
    rows = zip(*(zip(first[n], second[n], strict=True) for n in names), strict=True)
    return sum(any(one != other for one, other in row) for row in rows)


def largest_change(task: Task, first: Table, second: Table) -> float:
    """Of all numbers that are predicted."""
    names = [c.name for c in task.columns if c.role != "truth" and c.classes is None]
    pairs = [pair for n in names for pair in zip(first[n], second[n], strict=True)]
    return max(abs(one - other) for one, other in pairs)


def _tables(
    plan: Plan, graphs: Mapping[str, OnnxModel], examples: Sequence[Example], label: str
) -> dict[str, Table]:
    outputs: dict[str, list[Tensor]] = {kind: [] for kind in graphs}
    for example in tqdm(examples, desc=label, unit="clip", disable=None, leave=False):
        wav = torch.from_numpy(decode(example.utterance.path, SAMPLE_RATE))
        for kind, graph in graphs.items():
            outputs[kind].append(graph.outputs(wav))
    targets = torch.tensor([plan.target(e) for e in examples])
    table: Callable[..., Table] = plan.task.table
    return {kind: table(torch.stack(of), targets) for kind, of in outputs.items()}


def _as_table(rows: Sequence[Any]) -> Table:
    return {name: [row[name] for row in rows] for name in rows[0]}
