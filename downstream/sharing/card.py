"""The model card of an exported fold: README.md with the hub's front matter."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.records.record import read_fold
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
METRICS = {"accuracy": "Accuracy", "uar": "Unweighted average recall", "macro_f1": "Macro F1"}


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

    fold = _fold(folder, config)
    metrics = fold.get("metrics", {})
    protocol, corpus = config["protocol"], config["corpus"]
    licence = str(model.upstream.licence)
    known = LICENCES.get(licence.lower())
    title = f"{base.name}, {config['method']}, {corpus['name']}"
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name=f"Speech {config['task']} recognition",
            dataset_type=corpus["name"],
            dataset_name=corpus["name"],
            dataset_split=f"test, fold {config['fold']} of {protocol['name']}",
            metric_type=key,
            metric_name=name,
            metric_value=round(float(metrics[key]), 4),
        )
        for key, name in METRICS.items()
        if key in metrics
    ]
    data = ModelCardData(
        model_name=title,
        license=known or "other",
        license_name=None if known else re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-"),
        library_name="peft" if in_peft else "emopeft",
        pipeline_tag="audio-classification",
        base_model=base.name if base.hub else None,
        tags=["speech-emotion-recognition", "emopeft", *(["peft"] if in_peft else [])],
        metrics=["accuracy", "recall", "f1"],
        eval_results=results or None,
    )
    trained = sum(t.numel() for _, t in model.upstream.trainable())
    lines = [
        *("---", data.to_yaml().strip(), "---", ""),
        *(f"# {title}", ""),
        f"Speech {config['task']} recognition: the encoder `{base.name}` adapted with "
        f"`{config['method']}` and a `{config['head']['name']}` head, trained and tested with "
        "EmoPEFT.",
        "",
        *(["**" + model.upstream.note + "**", ""] if model.upstream.note else []),
        "| | |",
        "|---|---|",
        f"| classes | {', '.join(config['classes'])} |",
        f"| corpus | {corpus['name']}, licence: {corpus['licence']} |",
        f"| protocol | {protocol['name']}, hash `{protocol['hash']}` |",
        f"| fold, seed | {config['fold']}, {config['seed']} |",
        f"| base weights | SHA-256 `{config['upstream']['weights']}`, licence: {licence} |",
        f"| trained in the encoder | {trained:,} parameters |",
        "",
        *("## Results", ""),
        *_results(folder, config, metrics),
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


def _fold(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    try:
        found = read_fold(folder, config["classes"])
    except UserError:
        return {}
    return found.result if found else {}


def _results(folder: Path, config: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    rows = ["| | " + " | ".join(METRICS.values()) + " |", "|---|" + "---|" * len(METRICS)]
    shown = [f"{100 * metrics[k]:.2f}" if k in metrics else "" for k in METRICS]
    rows.append(f"| this fold ({config['fold']}), % | " + " | ".join(shown) + " |")
    try:
        run = read_json(folder.parent / "result.json")
        summary, folds = run["summary"], {fold["fold"] for fold in run["folds"]}
        cells = []
        for key in METRICS:
            spread = summary[key]["std"]
            cells.append(
                f"{100 * summary[key]['mean']:.2f}"
                + (f" ± {100 * spread:.2f}" if spread is not None else "")
            )
        label = f"mean over {len(folds)} of the protocol's {len(run['protocol']['folds'])} folds"
        rows.append(f"| {label}, % | " + " | ".join(cells) + " |")
    except (UserError, KeyError, TypeError):
        pass  # a fold's folder without its run
    return rows


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
        'print(classify("clip.wav"))  # class probabilities of a .wav or .flac file',
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
