"""What `emopeft onnx` wrote: how it was checked, and what eight bits cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emopeft.downstream.reports.numbers import NONE, value
from emopeft.downstream.reports.sections import Grid, Section
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.text import plain
from emopeft.units import size

if TYPE_CHECKING:
    from emopeft.downstream.models.onnx_files import OnnxFacts


def onnx_sections(facts: OnnxFacts) -> list[Section]:
    """The graph's check and sizes, and the loss of int8 where there is such a graph."""
    check = facts.check
    clips = check["clips"]
    lengths = ", ".join(f"{c['samples'] / facts.sample_rate:.4g}" for c in clips)
    how = (
        "merged into the weights"
        if facts.merged
        else f"not merged: {plain(facts.not_merged or '', 300)}"
    )
    parts: list[str | Grid] = [
        f"{plain(facts.upstream['name'])} with '{plain(facts.method)}', {how}. "
        f"Opset {facts.opset}, onnxruntime {facts.versions['onnxruntime']}.",
        f"Against torch, on clips of {lengths} s (the last one silent): outputs differ by at most "
        f"{check['largest']:.1e} of a clip's largest, {check['tolerance']:g} was allowed.",
        "Waveform: " + facts.preprocessing + ".",
        Grid(["file", "size"], [[n, size(count)] for n, count in facts.files.items()]),
    ]
    if facts.int8 is not None:
        task = task_of(facts.task)
        parts += [_losses(task, test) for test in facts.int8["tests"]]
    return [Section("ONNX", parts)]


def _losses(task: Task, test: Mapping[str, Any]) -> Grid:
    """Metrics of both graphs on a test's clips."""
    metrics = [m for m in task.shown if m.name in test["metrics"]["fp32"]]
    rows = [
        [kind, *(value(m, test["metrics"][kind][m.name]) for m in metrics)]
        for kind in ("fp32", "int8")
    ]
    said = [f"{plain(test['test'])}, {test['clips']} clips"]
    if test["changed"] is not None:
        said.append(f"int8 predicts another class of {test['changed']}")
    said.append(f"its largest change of a number is {test['largest']:.2g}")
    unlike = NONE if test["unlike_recorded"] is None else test["unlike_recorded"]
    said.append(f"fp32 and predictions.csv differ in the class of {unlike}")
    return Grid(["graph", *(m.title for m in metrics)], rows, "; ".join(said))
