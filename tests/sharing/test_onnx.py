"""ONNX graphs: the same scores in all lengths, eight bits with their loss, refusals, the page."""

from __future__ import annotations

import builtins
import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

from emopeft.commands import door
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.onnx_files import OnnxModel, is_onnx, read_facts
from emopeft.downstream.runs.checkpoints import outputs_of_clip
from emopeft.downstream.runs.delay import Settings, measure
from emopeft.downstream.sharing import onnx_export
from emopeft.downstream.sharing.onnx_export import checked, export_onnx
from emopeft.downstream.sharing.onnx_graph import most_samples, score_names, scores_of, write_graph
from emopeft.downstream.sharing.onnx_int8 import changed, largest_change
from emopeft.downstream.tasks.base import task_of
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.tasks.joint import JointTask
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from tests.calls import demo_run
from tests.models.folds import edit
from tests.peft_modules.cases import built
from tests.shared import ROOT
from tests.sharing.test_sharing import trained_fold
from tests.tiny import CONFIGS, tiny

DOCS = ROOT / "docs" / "onnx.md"


@pytest.fixture(scope="module")
def demo(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with LoRA on the demo corpus, and its graphs."""
    place = tmp_path_factory.mktemp("onnx")
    assert demo_run(demo_corpus, place) == 0
    export_onnx(place / "r", place / "out", int8=True)
    return place / "r" / "fold1_seed0", place / "out"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A frozen Whisper that crops to two seconds."""
    place = tmp_path_factory.mktemp("whisper")
    folder = trained_fold(place, "whisper", "none")
    edit(folder, "upstream", "window", value="clip")
    data = json.loads((folder / "adapter.json").read_text())
    data["upstream"]["options"]["window"] = "clip"
    data["clips"] = {"mode": "crop", "seconds": 2.0, "starts": 1}
    (folder / "adapter.json").write_text(json.dumps(data))
    export_onnx(folder, place / "out")
    return folder, place / "out"


def same(folder: Path, out: Path, lengths: tuple[int, ...]) -> None:
    """The graph, run by onnxruntime alone, gives the checkpoint's outputs and scores."""
    model, config = restore(folder)
    task, clips = task_of(config["task"]), ClipKeys(**config["clips"])
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    for samples in lengths:
        wav = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
        outputs, scores = session.run(None, {"waveform": wav.numpy()})
        expected = outputs_of_clip(model, wav, Numerics(), clips)
        assert outputs == pytest.approx(expected.numpy(), abs=1e-5)
        assert scores == pytest.approx(torch.softmax(expected, -1).numpy(), abs=1e-5)
    assert [f"score_{c}" for c in task.classes] == score_names(task)


def test_lora_on_hubert(demo: tuple[Path, Path]) -> None:
    same(*demo, (400, 5_001, 33_000))
    facts, task = read_facts(demo[1])
    assert facts.merged and facts.classes == list(task.classes) and facts.max_samples is None
    assert {c["clip"] for c in facts.check["clips"]} == {"noise", "silence"}
    assert 0 < facts.check["largest"] < 1e-5 and facts.check["tolerance"] == 1e-4
    text = (demo[1] / "model.onnx").read_bytes()
    assert str(ROOT).encode() not in text and b"site-packages" not in text  # no place of ours


def test_whisper_and_its_cut(whisper: tuple[Path, Path]) -> None:
    same(*whisper, (201, 5_001, 31_999, 32_000, 40_000))
    facts, _ = read_facts(whisper[1])
    assert facts.max_samples == 32_000 and facts.not_merged and not facts.merged
    operations = {n.op_type for n in onnx.load(str(whisper[1] / "model.onnx")).graph.node}
    assert "Conv" in operations and not {"STFT", "DFT"} & operations
    assert most_samples(480_000, ClipKeys()) == 480_000 and most_samples(None, ClipKeys()) is None


SMALLER: dict[str, dict[str, Any]] = {
    "hubert_base_like": {"num_hidden_layers": 1, "conv_dim": (16,) * 2, "conv_stride": (5, 8),
                         "conv_kernel": (10, 8), "num_feat_extract_layers": 2},
    "whisper": {"encoder_layers": 1},
}  # fmt: skip


@pytest.mark.parametrize(("family", "method"), [("hubert_base_like", "none"), ("whisper", "lora")])
def test_the_other_two(
    family: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters that stay in the graph, windows of 30 s; and a graph that is not the model's."""
    kind, values = CONFIGS[family]
    monkeypatch.setitem(CONFIGS, family, (kind, values | SMALLER[family]))
    options = {"window": "30s"} if family == "whisper" else {}
    _, model = built(tiny(family, **options), method, prove=False)
    with torch.no_grad():
        for _, parameter in model.upstream.trainable():
            parameter.normal_(0, 0.2)
    task, path = EmotionTask(["a", "b", "c", "d"], {}), tmp_path / "model.onnx"
    assert write_graph(path, copy.deepcopy(model), task, ClipKeys()) == 20
    found = checked(model, OnnxModel.open(path, ClipKeys()), task, ClipKeys())
    assert found["largest"] < 1e-5 and found["scores"] < 1e-6
    with torch.no_grad():
        model.head.classifier.bias[0] += 1e-2
    with pytest.raises(UserError, match="differ from torch's by"):
        checked(model, OnnxModel.open(path, ClipKeys()), task, ClipKeys())


def test_eight_bits_and_what_they_cost(demo: tuple[Path, Path]) -> None:
    fold, out = demo
    facts, task = read_facts(out)
    assert facts.int8 is not None and facts.files["model.int8.onnx"] < facts.files["model.onnx"]
    assert facts.int8["products"] == 2 * 6 + 1  # q k v o fc1 fc2 of two blocks, the projection
    (test,) = facts.int8["tests"]
    recorded = json.loads((fold / "fold.json").read_text())
    assert test["clips"] == 48 and test["unlike_recorded"] == 0 and test["largest"] > 0
    own = recorded["metrics"]["test"] if "metrics" in recorded else None
    if own:
        assert test["metrics"]["fp32"]["uar"] == pytest.approx(own["uar"])
    nodes = onnx.load(str(out / "model.int8.onnx")).graph.node
    whole = [n for n in nodes if n.op_type in ("MatMul", "Gemm")]
    assert sum("model.head." in name for n in whole for name in n.input) == 2


def test_changes_are_counted() -> None:
    task = EmotionTask(["a", "b"], {})
    one = {"prediction": ["a", "b", "a"], "score_a": [0.9, 0.2, 0.6], "score_b": [0.1, 0.8, 0.4]}
    two = one | {"prediction": ["a", "a", "a"], "score_a": [0.8, 0.55, 0.6]}
    assert changed(task, one, two) == 1 and changed(task, one, one) == 0
    assert largest_change(task, one, two) == pytest.approx(0.35)
    assert changed(DimensionalTask({"valence": (1, 5)}), {}, {}) is None


def test_scores_of_other_tasks() -> None:
    """As their tables have them."""
    task = JointTask([EmotionTask(["a", "b"], {}), DimensionalTask({"valence": (1, 5)})])
    outputs = torch.tensor([0.3, -1.0, 0.25])
    table = task.table(outputs[None], torch.zeros(1, 3))
    scores, names = scores_of(task, outputs), score_names(task)
    assert scores is not None and names is not None and len(names) == 3
    assert scores.tolist() == pytest.approx([table[name][0] for name in names])


def test_delays_stand_beside_torchs(demo: tuple[Path, Path]) -> None:
    settings = Settings(seconds=(0.25,), rounds=1, repeats=1, warm_up=0, device="cpu")
    found = measure(demo, settings)
    names = [way.name for way in found.ways]
    assert names == ["as trained", "merged", "onnx fp32", "onnx int8", "frozen base"]
    wav = torch.randn(8000) * 0.1
    trained, merged, graph, rough, _ = (way.outputs(wav) for way in found.ways)
    assert torch.allclose(trained, graph, atol=1e-5) and torch.allclose(merged, graph, atol=1e-5)
    assert not torch.equal(graph, rough)


def test_the_page_runs(demo: tuple[Path, Path], tmp_path: Path) -> None:
    """onnxruntime and numpy alone; the same class and scores as `emopeft predict`."""
    code = DOCS.read_text().partition("```python\n")[2].partition("```")[0]
    samples = np.random.default_rng(1).normal(0, 3000, 20_000).astype("int16")
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, "PCM_16")
    (tmp_path / "DIR").symlink_to(demo[1])
    code += "\nimport sys; assert not {'torch', 'emopeft'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    name, _, scores = done.stdout.strip().partition(" ")
    model, config = restore(demo[0])
    expected = outputs_of_clip(model, torch.from_numpy(samples / np.float32(32768)), Numerics())
    assert list(eval(scores).values()) == pytest.approx(
        torch.softmax(expected, -1).tolist(), abs=1e-5
    )
    assert name == config["task"]["classes"][int(expected.argmax())]


# ---- mistakes -------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The sentence of a command that fails."""
    assert door.main(["onnx", *map(str, argv)]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


def test_refusals(
    demo: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fold, out = demo
    assert "exists already" in refused(capsys, fold, out)
    assert "does not exist" in refused(capsys, tmp_path / "no", tmp_path / "o")
    assert "--data goes with --int8" in refused(capsys, fold, tmp_path / "o", "--data", "x")
    lost = refused(capsys, fold, tmp_path / "o", "--int8", "--data", str(tmp_path / "gone"))
    assert "gone" in lost
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    monkeypatch.setattr(onnx_export, "write_graph", lambda path, *a: path.write_bytes(b"no") and 1)
    assert "onnxruntime cannot read" in refused(capsys, fold, tmp_path / "o")
    assert sorted(tmp_path.iterdir()) == []


def test_without_the_packages(
    demo: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    inner = builtins.__import__

    def without(name: str, *args: Any, **keys: Any) -> Any:
        if name.partition(".")[0] in ("onnxruntime", "onnxscript"):
            raise ImportError(name)
        return inner(name, *args, **keys)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'emopeft[onnx]'" in refused(capsys, demo[0], tmp_path / "o")
    assert door.main(["delay", str(demo[1])]) == 2
    assert "pip install 'emopeft[onnx]'" in capsys.readouterr().err


def test_damaged_folders_are_one_sentence(
    demo: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.loads((demo[1] / "onnx.json").read_text())
    for key, value in (("schema", 2), ("min_samples", "x"), ("task", {"name": "no"}),
                       ("clips", {"mode": "all"})):  # fmt: skip
        (tmp_path / "onnx.json").write_text(json.dumps(good | {key: value}))
        assert is_onnx(tmp_path) and door.main(["delay", str(tmp_path)]) == 2
        assert "onnx.json" in (error := capsys.readouterr().err.strip()) and "\n" not in error
    (tmp_path / "onnx.json").write_text(json.dumps(good))
    assert door.main(["delay", str(tmp_path)]) == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["egemaps", "s3prl"])
def test_what_cannot_be_a_graph(name: str, tmp_path: Path) -> None:
    class Upstream:
        options = {"opensmile": "2"} if name == "egemaps" else {}
        loader = name

    class Model:
        upstream = Upstream()
        adaptation = type("A", (), {"spec": "none"})()

    Upstream.name = name  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="cannot become an ONNX graph"):
        write_graph(tmp_path / "x", Model(), None, ClipKeys())  # type: ignore[arg-type]
