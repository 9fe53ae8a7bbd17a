"""Export, import and merge: nothing is lost, peft reads its own, the card's snippets run."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from torch import Tensor

from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.build import assemble, restore
from emopeft.downstream.models.checkpoint import write_adapter
from emopeft.downstream.sharing.hub import read_exported
from emopeft.errors import UserError
from emopeft.peft_modules.__main__ import main
from emopeft.peft_modules.apply import adapt
from emopeft.peft_modules.base import METHODS
from emopeft.peft_modules.library import PeftMethod
from emopeft.upstream.catalogue import load
from tests.calls import call, demo_run
from tests.peft_modules.cases import SMALL, batch_of, clips
from tests.peft_modules.test_battery import train
from tests.shared import ROOT
from tests.tiny import plain

NAMES = {"hubert_base_like": "hubert", "hubert_large_like": "hubert", "wavlm": "wavlm",
         "whisper": "whisper_base", "data2vec": "data2vec", "moonshine": "moonshine_tiny",
         "wav2vec2_large_like": "wav2vec2", "unispeech_sat": "unispeech_sat"}  # fmt: skip


def trained_fold(place: Path, family: str, method: str, whole: bool = False) -> Path:
    """A fold's folder with a trained adapter on a base saved by `save_pretrained`.

    ``whole``: the base is Whisper with its decoder, as it is on the hub.
    """
    weights, encoder = place / "weights", plain(family)
    if whole:
        model = transformers.WhisperForConditionalGeneration(encoder.config)
        model.model.encoder.load_state_dict(encoder.state_dict())
        model.save_pretrained(weights)
    else:
        encoder.save_pretrained(weights)
    options = {"window": "30s"} if family == "whisper" else {}
    upstream = load(NAMES[family], weights, **options)
    torch.manual_seed(3)
    adaptation = adapt(upstream, method)
    head = {
        "name": "superb", "width": 32, "states": upstream.num_blocks + 1, "outputs": 2,
        "layers": "weighted_sum", "hidden": 8, "dropout": 0.1, "standardise": False,
    }  # fmt: skip
    model = assemble(adaptation, make_head(**head), dropout=False)
    train(model, batch_of(model))
    keys = {"name": NAMES[family], "path": str(weights), "revision": None, "dropout": False}
    keys["window"] = options.get("window", "clip")
    facts = {"loader": upstream.loader, "options": upstream.options, "code": upstream.code}
    config = {
        "schema": 2, "upstream": keys | facts | {"weights": upstream.weights},
        "method": adaptation.recorded(), "head": head,
        "task": {"name": "emotion", "version": 1, "classes": ["calm", "angry"]},
        "fold": "1", "seed": 3, "corpora": [{"name": "mini", "licence": "CC0-1.0"}],
        "protocol": {"name": "mini-loso", "version": 1, "hash": "ab" * 32},
        "numerics": {"precision": "fp32"},
    }  # fmt: skip
    folder = place / "fold1_seed3"
    write_adapter(folder, model.kept_state(), config)
    return folder


def states(folder: Path) -> tuple[Any, list[Tensor]]:
    model, _ = restore(folder)
    with torch.no_grad():
        return model, model.upstream(clips()[:1]).layers


def inputs_of(model: Any, family: str) -> Tensor:
    """The first clip as transformers' own model takes it."""
    wav = clips()[0]
    if family == "whisper":
        return model.upstream.log_mel(torch.nn.functional.pad(wav, (0, 480000 - len(wav)))[None])
    if getattr(model.upstream, "normalize", False):
        wav = (wav - wav.mean()) / (wav.var(unbiased=False) + 1e-7).sqrt()
    return wav[None]


def loaded_otherwise(family: str, method: str, place: Path) -> str | None:
    """Export, load with `PeftModel.from_pretrained` on the plain model, compare all states."""
    from peft import PeftModel

    folder, out, weights = trained_fold(place, family, method), place / "out", place / "weights"
    assert main(["export", str(folder), str(out)]) == 0
    files = {p.name for p in out.iterdir()}
    if not files >= {"adapter_config.json", "adapter_model.safetensors", "head.safetensors",
                     "README.md", "labels.json", "emopeft.json"}:  # fmt: skip
        return f"only {sorted(files)}"
    model, ours = states(folder)
    inputs = inputs_of(model, family)

    def layers(encoder: Any) -> list[Tensor]:
        with torch.no_grad():
            found = encoder.eval()(inputs, output_hidden_states=True)
        # The last one as SUPERB means it, after the final norm (PROTOCOLS.md, trap 12).
        return [*found.hidden_states[:-1], found.last_hidden_state]

    kind = type(plain(family))
    bare = layers(kind.from_pretrained(weights))
    theirs = layers(PeftModel.from_pretrained(kind.from_pretrained(weights), out))
    error = max(float((a - b).abs().max()) for a, b in zip(theirs, ours, strict=True))
    moved = max(float((a - b).abs().max()) for a, b in zip(bare, ours, strict=True))
    return None if error < 2e-4 and error < moved / 20 else f"{error:.1e} of {moved:.1e}"


TURNS = ("hubert_base_like", "wav2vec2_large_like", "data2vec", "unispeech_sat", "moonshine")


@pytest.mark.parametrize("part", range(2))
def test_peft_loads_all_of_its_own_on_the_plain_model(part: int, tmp_path: Path) -> None:
    """Every method that peft brings, the families taking turns."""
    names = [n for n, cls in METHODS.items() if issubclass(cls, PeftMethod)]
    wrong = {}
    for number, name in enumerate(names):
        if number % 2 == part:
            place = tmp_path / name
            found = loaded_otherwise(TURNS[number % len(TURNS)], SMALL.get(name, name), place)
            wrong |= {name: found} if found else {}
    assert len(names) > 20 and not wrong


@pytest.mark.parametrize(
    ("family", "method"),
    [("hubert_base_like", "lora"), ("hubert_large_like", "lora@peft-ser"),
     ("whisper", "lora:blocks=last:1"), ("whisper", "dora+ws"), ("moonshine", "lora+ws")],
)  # fmt: skip
def test_peft_loads_a_lora_on_the_plain_model(family: str, method: str, tmp_path: Path) -> None:
    assert loaded_otherwise(family, method, tmp_path) is None


@pytest.mark.parametrize("method", ["lora", "lora+ba+ws+wg", "partial:1", "bitfit", "adalora"])
def test_import_gives_back_the_very_fold(method: str, tmp_path: Path) -> None:
    folder = trained_fold(tmp_path, "hubert_base_like", method)
    assert main(["export", str(folder), str(tmp_path / "out")]) == 0
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "back")]) == 0
    model, before = states(folder)
    again, config = restore(tmp_path / "back", str(tmp_path / "weights"))
    saved, other = model.kept_state(), again.kept_state()
    assert saved.keys() == other.keys()
    assert all(torch.equal(saved[k], other[k]) for k in saved)
    assert config["task"]["classes"] == ["calm", "angry"]
    exported = (tmp_path / "out" / "emopeft.json").read_text()
    assert str(tmp_path) not in exported + (tmp_path / "out" / "README.md").read_text()


def test_wavlm_is_exported_in_our_format(tmp_path: Path) -> None:
    """transformers' WavLM would load the adapter and ignore it (trap 1)."""
    folder = trained_fold(tmp_path, "wavlm", "lora")
    assert main(["export", str(folder), str(tmp_path / "out")]) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert "adapter.safetensors" in names and "adapter_config.json" not in names


@pytest.mark.parametrize(
    ("family", "method"),
    [("hubert_base_like", "lora+ws"), ("hubert_large_like", "dora"), ("wavlm", "lora"),
     ("whisper", "partial:1"), ("data2vec", "loha+bitfit"), ("hubert_base_like", "pissa")],
)  # fmt: skip
def test_merge_writes_a_plain_model_with_the_same_states(
    family: str, method: str, tmp_path: Path
) -> None:
    folder = trained_fold(tmp_path, family, method)
    assert main(["merge", str(folder), str(tmp_path / "plain")]) == 0
    _, ours = states(folder)
    options = {"window": "30s"} if family == "whisper" else {}
    merged = load(NAMES[family], tmp_path / "plain", **options)
    with torch.no_grad():
        found = merged(clips()[:1]).layers
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, ours, strict=True))
    names = {n for n, _ in merged.named_parameters()}
    assert names == {n for n, _ in load(NAMES[family], tmp_path / "weights")
                     .named_parameters()}  # fmt: skip


def test_what_cannot_be_merged_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = trained_fold(tmp_path, "hubert_base_like", "lora+ba")
    assert main(["merge", str(folder), str(tmp_path / "plain")]) == 2
    assert "'ba' adds modules" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert main(["export", str(folder), str(tmp_path / "full")]) == 2
    assert main(["import", str(tmp_path / "full"), str(tmp_path / "y")]) == 2
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "z")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(e.startswith("error: ") for e in errors)


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.S)


def execute(code: str, where: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=where, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HF_HUB_OFFLINE": "1", "HOME": str(where),
             "OMP_NUM_THREADS": str(torch.get_num_threads())},  # bf16 rounds with their number
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_runs_card_and_its_snippet(demo_corpus: Path, tmp_path: Path) -> None:
    more = ("-o", "train.precision=bf16")
    assert demo_run(demo_corpus, tmp_path, *more, method="lora+ba+ws+wg") == 0
    run, out, back = tmp_path / "r", tmp_path / "out", tmp_path / "back"
    assert main(["export", str(run), str(out), "--fold", "1"]) == 0
    text = (out / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["pipeline_tag"] == "audio-classification" and front["license"] == "apache-2.0"
    _, config = read_exported(out)
    assert config["protocol"]["hash"] in text and "demo" in text and "random weights" in text
    assert "| mean over 1 of 5 folds of the protocol |" in text
    assert len(front["model-index"][0]["results"][0]["metrics"]) == 3
    clip = sorted(demo_corpus.rglob("*.wav"))[0]
    (out / "clip.wav").write_bytes(clip.read_bytes())
    shown = execute(snippets(text)[0], out)
    assert main(["import", str(out), str(back)]) == 0
    table = tmp_path / "predictions.csv"
    assert call("-m", "predict", "--run", back, "--audio", clip, "--output", table) == 0
    row = next(csv.DictReader(table.open()))
    scores = {k: float(v) for k, v in row.items() if k.startswith("score_")}
    printed = yaml.safe_load(shown)
    assert printed.pop("prediction") == row["prediction"]
    assert printed == pytest.approx(scores, abs=1e-6)


SNIPPETS = [("hubert_base_like", False), ("whisper", True)]


@pytest.mark.parametrize(("family", "whole"), SNIPPETS)
def test_the_snippets_for_local_base_weights(family: str, whole: bool, tmp_path: Path) -> None:
    """Both run as they stand, and the second gives the encoder that was trained."""
    folder, out = trained_fold(tmp_path, family, "lora", whole), tmp_path / "out"
    assert main(["export", str(folder), str(out)]) == 0
    ours, theirs = snippets((out / "README.md").read_text())
    (out / "weights").symlink_to(tmp_path / "weights")
    import soundfile

    soundfile.write(out / "clip.wav", clips()[0].numpy(), 16000)
    assert set(yaml.safe_load(execute(ours, out))) == {"prediction", "score_calm", "score_angry"}
    model, layers = states(folder)
    torch.save((inputs_of(model, family), layers[-1]), out / "states.pt")
    check = """
with torch.no_grad():
    inputs, expected = torch.load("states.pt")
    print(float((encoder.base_model.model(inputs).last_hidden_state - expected).abs().max()))
"""
    guard = "import emopeft.upstream  # torchaudio on this machine may be broken\n"
    assert float(execute(guard + theirs + check, out)) < 1e-4


def test_an_adapter_on_another_model_is_an_error_there(tmp_path: Path) -> None:
    """peft matches names by their ends: the decoder's layers would take the adapter, untrained."""
    from peft import PeftModel

    folder, out = trained_fold(tmp_path, "whisper", "lora", whole=True), tmp_path / "out"
    assert main(["export", str(folder), str(out)]) == 0
    model = transformers.AutoModel.from_pretrained(tmp_path / "weights")
    with pytest.raises(ValueError, match="not found in the base model"):
        PeftModel.from_pretrained(model, out)


def test_other_base_weights_are_refused(tmp_path: Path) -> None:
    folder, other = trained_fold(tmp_path, "hubert_base_like", "lora"), plain("hubert_base_like")
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="other are not the ones that this checkpoint of hubert"):
        restore(folder, str(tmp_path / "other"))
    assert main(["export", str(folder), str(tmp_path / "out"), "--upstream-path",
                 str(tmp_path / "other")]) == 2  # fmt: skip


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    folder = trained_fold(tmp_path, "hubert_base_like", "ba")
    before = sorted(tmp_path.iterdir())
    assert main(["merge", str(folder), str(tmp_path / "out")]) == 2
    (folder / "adapter.safetensors").write_bytes(b"damaged")
    assert main(["export", str(folder), str(tmp_path / "out")]) == 2
    assert sorted(tmp_path.iterdir()) == before
