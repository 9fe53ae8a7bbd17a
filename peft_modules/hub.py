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
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from downstream.apply_checkpoint import fold_folders, logits_of
from downstream.audio import decode
from downstream.build import restore, upstream_of
from downstream.checkpoint import read_adapter, write_adapter
from downstream.emotion import TASKS
from downstream.model import AdaptedModel
from downstream.recipe import UpstreamKeys
from emopeft.errors import UserError
from emopeft.files import read_json, write_json, write_text, writing, writing_folder
from peft_modules import card
from peft_modules.apply import merge as merge_methods
from peft_modules.injection import Injected, injected, plain_model, quiet
from peft_modules.liveness import probe_clips
from upstream.base import SAMPLE_RATE, Upstream
from upstream.hub import quiet as quiet_transformers

CONFIG, HEAD, OURS, THEIRS = (
    *("emopeft.json", "head.safetensors"),
    *("adapter.safetensors", "adapter_model.safetensors"),
)

# States that differ by less, relative to the largest value, are the same but for rounding.
SAME = 1e-3


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
        names = _write_peft(into, model, config, upstream_path, encoder)
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
        saved = _load(place / THEIRS)
        absent = sorted(set(names.values()) - set(saved))
        if absent:
            raise UserError(f"{place / THEIRS} lacks {absent[0]}; export the run again")
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

    def __call__(self, audio: str | Path | Tensor) -> dict[str, float]:
        if not isinstance(audio, Tensor):
            minimum = self.model.upstream.min_samples / SAMPLE_RATE
            audio = torch.from_numpy(decode(Path(audio), SAMPLE_RATE, minimum=minimum))
        with torch.inference_mode():
            logits = logits_of(self.model, audio)
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
    return Classifier(model, list(config["classes"]), config["task"])


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
    before = _states(upstream)
    merge_methods(upstream, model.methods)
    error = _difference(before, _states(upstream))
    if error > SAME:
        raise UserError(f"merging {method} changes the states by {error:.1e}; use export")
    return plain


def _write_peft(
    out: Path,
    model: AdaptedModel,
    config: dict[str, Any],
    upstream_path: str | None,
    encoder: dict[str, Tensor],
) -> dict[str, str] | None:
    """Write peft's files where they say everything; returns our tensors' names in them.

    They are written of a model that peft itself made of them and that gives the same states.
    """
    found = _only_tuner(model)
    if found is None:
        return None
    names = found.config.target_modules
    # A pattern, which must fit from the first letter on: on a larger model (Whisper with its
    # decoder) a list of names would match somewhere else and load nothing, with a warning only.
    # Lily needs the list: its layers share tensors by the name that matched them.
    for targets in ("|".join(map(re.escape, sorted(names))), names):
        wrapped = _wrapped(found, targets, model, config, upstream_path, encoder)
        if wrapped is not None:
            break
    else:
        return None
    wrapped.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # peft's template; ours comes last
    saved = _load(out / THEIRS)
    ours = {name: _wrapped_name(name).replace(".default", "") for name in encoder}
    if all(n in saved and torch.equal(saved[n], encoder[o]) for o, n in ours.items()):
        return ours
    # A method that stores its tensors in another form; peft's files stay, ours are complete.
    return None


def _wrapped(
    found: Injected,
    targets: Any,
    model: AdaptedModel,
    config: dict[str, Any],
    upstream_path: str | None,
    encoder: dict[str, Tensor],
) -> Any:
    """A new plain model with the adapter, by peft alone; None where it gives other states."""
    from peft import get_peft_model

    keys = {k: v for k, v in config["upstream"].items() if k != "weights"}
    fresh = upstream_of(UpstreamKeys(**keys | ({"path": upstream_path} if upstream_path else {})))
    settings = copy.deepcopy(found.config)
    settings.base_model_name_or_path = card.Base.of(fresh, config["upstream"]).name
    settings.revision = fresh.revision
    settings.target_modules = targets
    torch.manual_seed(config.get("seed", 0))  # as `restore` does
    plain: Any = plain_model(fresh)
    with quiet(), torch.no_grad():
        wrapped: Any = get_peft_model(plain, settings)
        parameters = dict(wrapped.named_parameters())
        for name, tensor in encoder.items():
            if _wrapped_name(name) not in parameters:
                return None
            parameters[_wrapped_name(name)].copy_(tensor)
    same = _difference(_states(model.upstream), _states(fresh.eval())) < SAME
    return wrapped if same else None


def _states(upstream: Upstream) -> list[Tensor]:
    """Its states of some noise."""
    with torch.no_grad():
        return [x.cpu() for x in upstream(probe_clips(upstream)).layers]


def _difference(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference of two lists of states, relative to the largest value."""
    largest = max(1.0, *(float(x.abs().max()) for x in some))
    return max(float((x - y).abs().max()) for x, y in zip(some, others, strict=True)) / largest


def _wrapped_name(name: str) -> str:
    return "base_model.model." + name.removeprefix("upstream.model.")


def _only_tuner(model: AdaptedModel) -> Injected | None:
    """The tuner, when it is all that changes the plain model and the plain model calls it."""
    upstream: Upstream = model.upstream
    tuners = list(injected(upstream).values())
    if len(tuners) != 1 or not hasattr(upstream, "model"):
        return None
    own = {id(p) for p in tuners[0].tuner.model.parameters()}
    patched = {id(p) for n, p in upstream.trainable() if "default" in n.split(".")}
    if any(id(p) not in own or id(p) not in patched for _, p in upstream.trainable()):
        return None
    # transformers' own WavLM attention does not call its projections (PROTOCOLS.md, trap 1).
    return None if upstream.options.get("model_type") == "wavlm" else tuners[0]


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
