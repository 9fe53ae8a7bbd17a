"""A trained fold as a directory for the hub, and back.

README.md                      model card: corpus, protocol, hash, metrics, licences, snippet
adapter_config.json            \\ in peft's own format, where the method is one of peft's and
adapter_model.safetensors      / the plain model can load it (`PeftModel.from_pretrained`)
adapter.safetensors            otherwise: the encoder's trained tensors, under our names
head.safetensors               the head, with the weighted sum
labels.json                    id2label, label2id, where the task predicts classes
emopeft.json                   all that is needed to rebuild the model
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.models.build import rebuild, restore
from emopeft.downstream.models.checkpoint import (
    read_config,
    read_tensors,
    write_adapter,
    write_tensors,
)
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.checkpoints import fold_folders, outputs_of_clip
from emopeft.downstream.sharing import card, peft_format
from emopeft.downstream.tasks.base import Task, task_of
from emopeft.errors import UserError
from emopeft.files import write_json, write_text, writing_folder
from emopeft.numerics import Numerics
from emopeft.peft_modules.apply import merge as merge_methods
from emopeft.peft_modules.injection import plain_model
from emopeft.upstream.base import SAMPLE_RATE
from emopeft.upstream.hub import quiet as quiet_transformers

CONFIG, HEAD, OURS = "emopeft.json", "head.safetensors", "adapter.safetensors"
LABELS = "labels.json"
AGAIN = "export the run again"


def export(
    place: Path,
    out: Path,
    fold: str | None = None,
    upstream_path: str | None = None,
    seed: int | None = None,
) -> list[str]:
    """Write a directory that is ready for the hub; returns the names of its files.

    Args:
        place: a run's folder (its first trained fold, or ``fold``; of its first seed, or ``seed``)
            or a fold's.

    Raises:
        UserError: no such fold, a damaged one, or an ``out`` that holds something already.
    """
    folder = fold_folders(place, "all" if fold is None else fold, seed)[0]
    with writing_folder(out) as into:
        # On the CPU in fp32: what is compared there is not a GPU's rounding.
        model, config = restore(folder, upstream_path)
        upstream = model.upstream
        tensors = model.kept_state()
        head = {k.removeprefix("head."): t for k, t in tensors.items() if k.startswith("head.")}
        encoder = {k: t for k, t in tensors.items() if not k.startswith("head.")}
        names = peft_format.write(into, model, config, upstream_path, encoder)
        if encoder and names is None:
            write_tensors(into / OURS, encoder)
        write_tensors(into / HEAD, head)
        task = task_of(config["task"])
        write_labels(into, task)
        base = card.Base.of(upstream, config["upstream"])
        write_json(into / CONFIG, _public(config, model) | {"peft_names": names})
        write_text(into / "README.md", card.render(folder, config, model, base, names is not None))
    return sorted(p.name for p in out.iterdir())


def _public(config: dict[str, Any], model: AdaptedModel) -> dict[str, Any]:
    """What is told to others: no place on this machine, and in full what an older one left out."""
    upstream = model.upstream
    facts = {"loader": upstream.loader, "options": upstream.options, "code": upstream.code}
    return config | {
        "upstream": config["upstream"] | facts | {"path": None},
        "method": model.adaptation.recorded(),
        "seeded": False,
    }


def write_labels(into: Path, task: Task) -> None:
    """labels.json, where the task predicts classes."""
    for column in task.columns:
        if column.role == "prediction" and column.classes is not None:
            by_number = {str(i): c for i, c in enumerate(column.classes)}
            by_name = {c: i for i, c in enumerate(column.classes)}
            write_json(into / LABELS, {"id2label": by_number, "label2id": by_name})


def import_(place: Path, out: Path) -> None:
    """Turn an exported directory back into a fold's folder (``-m predict --run OUT``).

    Raises:
        UserError: files are missing or damaged, or ``out`` holds something already.
    """
    tensors, config = read_exported(place)
    with writing_folder(out) as into:
        write_adapter(into, tensors, config)


def read_exported(place: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors under our names, and the configuration, of an exported directory."""
    path = place / CONFIG
    if not path.exists():
        raise UserError(f"{path} does not exist: {place} is no export of EmoPEFT; {AGAIN}")
    config = read_config(path, AGAIN)
    names = config.pop("peft_names", None)
    tensors = {f"head.{k}": t for k, t in read_tensors(place / HEAD, AGAIN).items()}
    if names is not None:
        saved = read_tensors(place / peft_format.FILE, AGAIN)
        absent = sorted(set(names.values()) - set(saved))
        if absent:
            raise UserError(f"{place / peft_format.FILE} lacks {absent[0]}; {AGAIN}")
        tensors |= {ours: saved[theirs] for ours, theirs in names.items()}
    elif (place / OURS).exists():
        tensors |= read_tensors(place / OURS, AGAIN)
    return tensors, config


@dataclasses.dataclass
class Classifier:
    """A loaded model: a path or a waveform (samples,) at 16 kHz to predictions and scores.

    Returns the task's columns of predictions.csv but the truths; for classes ``prediction`` and a
    ``score_CLASS`` for each.
    """

    model: AdaptedModel
    task: Task
    numerics: Numerics  # as in training, and in the record's scores
    clips: ClipKeys = dataclasses.field(default_factory=ClipKeys)  # how longer clips are taken

    def __call__(self, audio: str | Path | Tensor) -> dict[str, Any]:
        if not isinstance(audio, Tensor):
            minimum = self.model.upstream.min_samples / SAMPLE_RATE
            audio = torch.from_numpy(decode(Path(audio), SAMPLE_RATE, minimum=minimum))
        outputs = outputs_of_clip(self.model, audio, self.numerics, self.clips)
        table = self.task.table(outputs[None], torch.zeros(1, len(self.task.target_names)))
        return {c.name: table[c.name][0] for c in self.task.columns if c.role != "truth"}


def load(
    place: str | Path, upstream_path: str | None = None, device: torch.device | str = "cpu"
) -> Classifier:
    """A classifier from an exported directory, or from the hub by ``ORG/NAME``.

    Args:
        upstream_path: a local copy of the base weights; by default they come from the hub.
        device: where it computes.
    """
    folder = Path(place)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(place)))
    tensors, config = read_exported(folder)
    model = rebuild(folder, tensors, config, upstream_path, device)
    return Classifier(
        model, task_of(config["task"]), Numerics.of(config["numerics"]), ClipKeys(**config["clips"])
    )


def merge(
    place: Path,
    out: Path,
    fold: str | None = None,
    upstream_path: str | None = None,
    seed: int | None = None,
) -> list[str]:
    """Write the adapted encoder as a plain model (`save_pretrained`) with its head beside it.

    Raises:
        UserError: the method adds modules that plain weights have no place for, or the merged
            model does not give the same states.
    """
    folder = fold_folders(place, "all" if fold is None else fold, seed)[0]
    with writing_folder(out) as into:
        model, config = restore(folder, upstream_path)
        plain = _merged(model, config["method"]["spec"])
        with quiet_transformers():
            plain.save_pretrained(into)
        options = model.upstream.options
        if "normalize" in options:
            values = {
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "do_normalize": options["normalize"],
                "sampling_rate": SAMPLE_RATE,
            }
            write_json(into / "preprocessor_config.json", values)
        write_tensors(into / HEAD, model.head.state_dict())
        head = {name: config[name] for name in ("task", "head", "clips")}
        write_json(into / "head.json", head)
        write_labels(into, task_of(config["task"]))
    return sorted(p.name for p in out.iterdir())


def _merged(model: AdaptedModel, method: str) -> Any:
    """The library's own model with all that was trained in its weights, checked."""
    upstream = model.upstream
    plain: Any = plain_model(upstream)
    if not hasattr(plain, "save_pretrained"):
        raise UserError(f"{upstream.name} is no transformers model and cannot be saved as one")
    before = peft_format.states(upstream)
    merge_methods(upstream, model.methods)
    error = peft_format.difference(before, peft_format.states(upstream))
    if error > peft_format.SAME:
        raise UserError(f"merging {method} changes the states by {error:.1e}; use export")
    return plain
