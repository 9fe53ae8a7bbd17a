"""A trained fold as a directory for the hub, and back.

README.md                      model card: corpus, protocol, hash, metrics, licences, snippet
adapter_config.json            \\ in peft's own format, where the method is one of peft's and
adapter_model.safetensors      / the plain model can load it (`PeftModel.from_pretrained`)
adapter.safetensors            otherwise: the encoder's trained tensors, under our names
head.safetensors               the head, with the weighted sum
labels.json                    id2label, label2id
emopeft.json                   all that is needed to rebuild the model
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emopeft.downstream.corpora.audio import decode
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.checkpoint import read_adapter, write_adapter
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.runs.apply_checkpoint import fold_folders, logits_of
from emopeft.downstream.sharing import card, peft_format
from emopeft.downstream.tasks.emotion import TASKS
from emopeft.errors import UserError
from emopeft.files import read_json, write_json, write_text, writing, writing_folder
from emopeft.peft_modules.apply import merge as merge_methods
from emopeft.peft_modules.injection import plain_model
from emopeft.upstream.base import SAMPLE_RATE
from emopeft.upstream.hub import quiet as quiet_transformers

CONFIG, HEAD, OURS = "emopeft.json", "head.safetensors", "adapter.safetensors"


def export(
    place: Path, out: Path, fold: str | None = None, upstream_path: str | None = None
) -> list[str]:
    """Write a directory that is ready for the hub; returns the names of its files.

    Args:
        place: a run's folder (its first finished fold, or ``fold``) or a fold's.

    Raises:
        UserError: no such fold, a damaged one, or an ``out`` that holds something already.
    """
    folder = fold_folders(place, "all" if fold is None else fold)[0]
    with writing_folder(out) as into:
        tensors, config = read_adapter(folder)
        model, _ = restore(folder, upstream_path)
        head = {k.removeprefix("head."): t for k, t in tensors.items() if k.startswith("head.")}
        encoder = {k: t for k, t in tensors.items() if not k.startswith("head.")}
        names = peft_format.write(into, model, config, upstream_path, encoder)
        if encoder and names is None:
            _save(into / OURS, encoder)
        _save(into / HEAD, head)
        write_json(
            into / "labels.json",
            {
                "id2label": {str(i): c for i, c in enumerate(config["classes"])},
                "label2id": {c: i for i, c in enumerate(config["classes"])},
            },
        )
        base = card.Base.of(model.upstream, config["upstream"])
        public = copy.deepcopy(config)
        public["upstream"]["path"] = None  # a place on this machine
        write_json(into / CONFIG, public | {"peft_names": names})
        write_text(into / "README.md", card.render(folder, config, model, base, names is not None))
    return sorted(p.name for p in out.iterdir())


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
    config = read_json(place / CONFIG)
    if not isinstance(config, dict) or "method" not in config:
        raise UserError(f"{place / CONFIG} is not an export of EmoPEFT; export the run again")
    names = config.pop("peft_names", None)
    tensors = {f"head.{k}": t for k, t in _load(place / HEAD).items()}
    if names is not None:
        saved = _load(place / peft_format.FILE)
        absent = sorted(set(names.values()) - set(saved))
        if absent:
            raise UserError(f"{place / peft_format.FILE} lacks {absent[0]}; export the run again")
        tensors |= {ours: saved[theirs] for ours, theirs in names.items()}
    elif (place / OURS).exists():
        tensors |= _load(place / OURS)
    return tensors, config


@dataclasses.dataclass
class Classifier:
    """A loaded model: a path or a waveform (samples,) at 16 kHz to class probabilities."""

    model: AdaptedModel
    classes: list[str]
    task: str
    precision: str  # as in training, and in the record's scores

    def __call__(self, audio: str | Path | Tensor) -> dict[str, float]:
        if not isinstance(audio, Tensor):
            minimum = self.model.upstream.min_samples / SAMPLE_RATE
            audio = torch.from_numpy(decode(Path(audio), SAMPLE_RATE, minimum=minimum))
        with torch.inference_mode():
            logits = logits_of(self.model, audio, self.precision)
        scores = TASKS[self.task](self.classes).scores(logits[None])[0].tolist()
        return dict(zip(self.classes, scores, strict=True))


def load(place: str | Path, upstream_path: str | None = None) -> Classifier:
    """A classifier from an exported directory, or from the hub by ``ORG/NAME``.

    Args:
        upstream_path: a local copy of the base weights; by default they come from the hub.
    """
    import tempfile

    folder = Path(place)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(place)))
    with tempfile.TemporaryDirectory() as temporary:
        import_(folder, Path(temporary) / "fold")
        model, config = restore(Path(temporary) / "fold", upstream_path)
    precision = config.get("precision", "fp32")
    return Classifier(model, list(config["classes"]), config["task"], precision)


def merge(
    place: Path, out: Path, fold: str | None = None, upstream_path: str | None = None
) -> list[str]:
    """Write the adapted encoder as a plain model (`save_pretrained`) with its head beside it.

    Raises:
        UserError: the method adds modules that plain weights have no place for, or the merged
            model does not give the same states.
    """
    folder = fold_folders(place, "all" if fold is None else fold)[0]
    with writing_folder(out) as into:
        model, config = restore(folder, upstream_path)
        plain = _merged(model, config["method"])
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
        _save(into / HEAD, model.head.state_dict())
        write_json(into / "labels.json", {"classes": config["classes"], "head": config["head"]})
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


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    with writing(path) as temporary:
        try:
            save_file({k: t.cpu().contiguous() for k, t in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; export the run again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); export the run again") from None
