"""The model card of an exported fold: README.md with the hub's front matter."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.files import read_json
from emopeft.upstream.base import Upstream
from emopeft.upstream.hub import FAMILIES

# Licences by the hub's identifiers; any other is "other" with its name.
LICENCES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0",
    "cc-by-sa-3.0": "cc-by-sa-3.0",
}


@dataclasses.dataclass(frozen=True)
class Base:
    """Where the base weights come from, without places on this machine."""

    name: str
    local: bool
    hub: bool

    @classmethod
    def of(cls, upstream: Upstream, keys: dict[str, Any]) -> Base:
        """The hub's id, the last part of a local path, or our own upstream's name."""
        local = keys.get("path") is not None or Path(upstream.source).is_dir()
        hub = upstream.loader == "transformers" and not local
        name = Path(upstream.source).name if local else upstream.source if hub else keys["name"]
        return cls(name, local, hub)


def render(
    folder: Path, config: dict[str, Any], model: AdaptedModel, base: Base, in_peft: bool
) -> str:
    """The card's text.

    Args:
        folder: the fold's, whose results and run are looked up.
        config: the fold's adapter.json. in_peft: whether peft's own files are there.
    """
    from huggingface_hub import EvalResult, ModelCardData

    task = task_of(config["task"])
    measured = _measured(folder)
    protocol, spec = config["protocol"], config["method"]["spec"]
    names = ", ".join(c["name"] for c in config["corpora"])
    licence = str(model.upstream.licence)
    known = LICENCES.get(licence.lower())
    title = f"{base.name}, {spec}, {names}"
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name=f"Speech {task.name} recognition",
            dataset_type=names,
            dataset_name=names,
            dataset_split=f"{test}, fold {config['fold']} of {protocol['name']}",
            metric_type=metric.name,
            metric_name=metric.title,
            metric_value=round(values[metric.name], 4),
        )
        for test, values in measured.items()
        for metric in task.shown
        if metric.name in values
    ]
    classes = next((c.classes for c in task.columns if c.role == "prediction"), None)
    what = ("classes", classes) if classes else ("targets", task.target_names)
    data = ModelCardData(
        model_name=title,
        license=known or "other",
        license_name=None if known else re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-"),
        library_name="peft" if in_peft else "emopeft",
        pipeline_tag="audio-classification",
        base_model=base.name if base.hub else None,
        tags=["speech-emotion-recognition", "emopeft", *(["peft"] if in_peft else [])],
        metrics=[m.name for m in task.shown],
        eval_results=results or None,
    )
    trained = sum(t.numel() for _, t in model.upstream.trainable())
    lines = [
        *("---", data.to_yaml().strip(), "---", ""),
        *(f"# {title}", ""),
        f"Speech {task.name} recognition: the encoder `{base.name}` adapted with "
        f"`{spec}` and a `{config['head']['name']}` head, trained and tested with "
        "EmoPEFT.",
        "",
        *(["**" + model.upstream.note + "**", ""] if model.upstream.note else []),
        "| | |",
        "|---|---|",
        f"| {what[0]} | {', '.join(what[1])} |",
        *(f"| corpus | {c['name']}, licence: {c['licence']} |" for c in config["corpora"]),
        f"| protocol | {protocol['name']}, hash `{protocol['hash']}` |",
        f"| fold, seed | {config['fold']}, {config['seed']} |",
        f"| base weights | SHA-256 `{config['upstream']['weights']}`, licence: {licence} |",
        f"| trained in the encoder | {trained:,} parameters |",
        "",
        *("## Results", ""),
        *_results(folder, config, task, measured),
        *("", "## Use", ""),
        *_use(base, model.upstream, in_peft),
        "",
        "## Limits",
        "",
        "The numbers hold for this corpus and protocol. Licences of the corpus and of the base "
        "weights both apply to what was trained from them.",
        "",
    ]
    return "\n".join(lines)


def _measured(folder: Path) -> dict[str, dict[str, float]]:
    """Per test of the fold its metrics; {} for a folder without results, such as an import's."""
    try:
        by_test = read_json(folder / "fold.json")["metrics"]
        return {str(test): _numbers(metrics) for test, metrics in by_test.items()}
    except (UserError, KeyError, TypeError, AttributeError):
        return {}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {str(k): float(v) for k, v in metrics.items() if type(v) in (int, float)}


def _results(
    folder: Path, config: dict[str, Any], task: Task, measured: dict[str, dict[str, float]]
) -> list[str]:
    """A table per fold and test, and the run's means where its record is there."""
    rows = ["| | " + " | ".join(m.title for m in task.shown) + " |"]
    rows.append("|---|" + "---|" * len(task.shown))
    summary, folds = _summary(folder)
    for test, values in measured.items():
        of = "" if len(measured) == 1 else f", {test}"
        shown = [m.show(values[m.name]) if m.name in values else "" for m in task.shown]
        rows.append(f"| this fold ({config['fold']}){of} | " + " | ".join(shown) + " |")
        cells = []
        for metric in task.shown:
            mean, std = (summary.get(test, {}).get(metric.name, {}).get(k) for k in ("mean", "std"))
            spread = "" if std is None else f" ± {metric.show(std)}"
            cells.append("" if mean is None else metric.show(mean) + spread)
        if any(cells):
            label = f"mean over {folds} folds of the protocol{of}"
            rows.append(f"| {label} | " + " | ".join(cells) + " |")
    return rows


def _summary(folder: Path) -> tuple[dict[str, Any], str]:
    """Per test and metric mean and deviation over the run's folds, and "3 of 5": how many."""
    try:
        run = read_json(folder.parent / "result.json")
        trained = {fold["fold"] for fold in run["folds"] if fold["status"] == "finished"}
        summary = {
            str(test): {str(m): _numbers(values) for m, values in metrics.items()}
            for test, metrics in run["summary"].items()
        }
        return summary, f"{len(trained)} of {len(run['plan']['folds'])}"
    except (UserError, KeyError, TypeError, AttributeError):
        return {}, ""  # a fold's folder without its run


def _use(base: Base, upstream: Upstream, in_peft: bool) -> list[str]:
    where = "# of this directory, or its ORG/NAME on the hub"
    argument = ""
    lines = ["```python", "from emopeft.downstream.sharing import load", ""]
    if base.local:
        lines += [f'base = "{base.name}"  # where the base weights are']
        argument = ", upstream_path=base"
    lines += [
        f'place = "."  {where}',
        f"classify = load(place{argument})",
        'print(classify("clip.wav"))  # prediction and scores of a .wav or .flac file',
        "```",
    ]
    if in_peft and upstream.loader == "transformers":
        lines += ["", *_use_with_peft(base, upstream)]
    return lines


def _use_with_peft(base: Base, upstream: Upstream) -> list[str]:
    """The encoder alone, without EmoPEFT."""
    family = FAMILIES[upstream.options["model_type"]]
    module, name, mapping = "", "AutoModel", ""
    if family.renamed:  # AutoModel would be the whole model, decoder and all
        module, name = family.model.split(":")
        module = f".models.{module}"
        mapping = ", key_mapping={" + ", ".join(f'"^{p}": ""' for p in family.renamed) + "}"
    lines = [
        "The adapted encoder alone, with transformers and peft:",
        "",
        "```python",
        "import torch",
        "from peft import PeftModel",
        f"from transformers{module} import {name}",
        "",
        f'base = "{base.name}"',
        f"encoder = {name}.from_pretrained(base, dtype=torch.float32{mapping})",
        'encoder = PeftModel.from_pretrained(encoder, ".").eval()',
        "```",
    ]
    if upstream.options.get("window") == "clip":
        lines += [
            "",
            "transformers' own encoder takes windows of 30 s; this one was trained on clips as "
            "long as they are, which gives other states: the first example has them.",
        ]
    return lines
