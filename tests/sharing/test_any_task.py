"""Exports know no task: one that they have never heard of, older checkpoints, and damaged files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from emopeft.downstream.measures.columns import Column, Metric
from emopeft.downstream.models.build import restore
from emopeft.downstream.models.checkpoint import CONFIG, TENSORS
from emopeft.downstream.sharing import hub
from emopeft.downstream.tasks.base import TASKS, Task
from emopeft.errors import UserError
from tests.models.folds import edit, outputs, trained_fold
from tests.peft_modules.cases import clips


class Loudness(Task):
    """Two numbers of an utterance."""

    name = "loudness"
    target_names = ("mean", "peak")
    outputs = 2
    columns = (
        Column("truth_mean", "truth"), Column("truth_peak", "truth"),
        Column("mean", "prediction"), Column("peak", "prediction"),
    )  # fmt: skip
    metrics = (
        Metric("ccc", "CCC", low=-1.0, percent=False),
        Metric("rmse", "RMSE", better="lower", percent=False),
    )

    def table(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, list[Any]]:
        return {
            "truth_mean": targets[:, 0].tolist(), "truth_peak": targets[:, 1].tolist(),
            "mean": outputs[:, 0].tolist(), "peak": outputs[:, 1].tolist(),
        }  # fmt: skip


@pytest.fixture
def loudness() -> Iterator[None]:
    TASKS.discover()
    TASKS.add("loudness", Loudness)
    yield
    del TASKS._items["loudness"]


def test_a_task_of_numbers_is_exported(loudness: None, tmp_path: Path) -> None:
    folder, _ = trained_fold(tmp_path, "lora:r=2+ws")
    edit(folder, "task", value={"name": "loudness", "version": 1})
    facts = {
        "metrics": {"clean": {"ccc": 0.5, "rmse": 0.25}, "noisy": {"ccc": -0.125, "rmse": 1.5}}
    }
    (folder / "fold.json").write_text(json.dumps(facts))
    files = hub.export(folder, tmp_path / "out")
    assert "labels.json" not in files and "emopeft.json" in files
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| | CCC | RMSE |" in text and "| targets | mean, peak |" in text
    assert "| this fold (1), noisy | -0.125 | 1.500 |" in text and "Speech loudness" in text
    front = yaml.safe_load(text.split("---")[1])
    assert len(front["model-index"][0]["results"]) == 2  # one per test, two metrics each
    found = hub.load(tmp_path / "out", str(tmp_path / "weights"))(clips()[0])
    model, _ = restore(folder)
    with torch.no_grad():
        states = model.upstream(clips()[:1]).means()
        expected = model.head(states, torch.empty(0))[0]
    assert list(found) == ["mean", "peak"]
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_classes_are_exported_as_labels(tmp_path: Path) -> None:
    folder, _ = trained_fold(tmp_path, "lora:r=2")
    hub.export(folder, tmp_path / "out")
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert labels == {"id2label": {"0": "calm", "1": "angry"}, "label2id": {"calm": 0, "angry": 1}}
    found = hub.load(tmp_path / "out", str(tmp_path / "weights"))(clips()[0])
    assert set(found) == {"prediction", "score_calm", "score_angry"}
    assert found["prediction"] in ("calm", "angry")
    assert found["score_calm"] + found["score_angry"] == pytest.approx(1)


@pytest.mark.parametrize("method", ["vera:r=8", "pissa:r=2", "lora:r=2+ba:bottleneck=4"])
def test_exports_are_complete(method: str, tmp_path: Path) -> None:
    """REVIEW A8, A7: the copy gives the same outputs under any seed, with all options in full."""
    folder, expected = trained_fold(tmp_path, method)
    hub.export(folder, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "emopeft.json").read_text())
    assert data["method"]["parts"] and data["upstream"]["path"] is None and not data["seeded"]
    data["seed"] = 77
    (tmp_path / "out" / "emopeft.json").write_text(json.dumps(data))
    hub.import_(tmp_path / "out", tmp_path / "back")
    torch.manual_seed(4321)
    model, _ = restore(tmp_path / "back", str(tmp_path / "weights"))
    assert torch.equal(outputs(model), expected)


def test_an_export_of_schema_1_needs_no_seed_any_more(tmp_path: Path) -> None:
    folder, expected = trained_fold(tmp_path, "vera:r=8")
    new = json.loads((folder / CONFIG).read_text())
    names = ("name", "path", "revision", "window", "dropout", "weights")
    old = {
        "schema": 1, "upstream": {n: new["upstream"][n] for n in names}, "method": "vera:r=8",
        "head": new["head"], "task": "emotion", "classes": ["calm", "angry"], "fold": "1",
        "seed": 3, "corpus": new["corpora"][0],
        "protocol": {"name": "mini-loso", "hash": "ab" * 32},
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(old))
    tensors = load_file(folder / TENSORS)
    save_file({n: t for n, t in tensors.items() if "vera_A" not in n}, folder / TENSORS)
    model, _ = restore(folder)
    hub.export(folder, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "emopeft.json").read_text())
    assert data["schema"] == 2 and not data["seeded"] and data["upstream"]["options"]
    hub.import_(tmp_path / "out", tmp_path / "back")
    edit(tmp_path / "back", "seed", value=5)
    again, _ = restore(tmp_path / "back", str(tmp_path / "weights"))
    assert torch.equal(outputs(again), outputs(model))
    assert expected.shape == outputs(model).shape


def test_wrong_values_in_an_export_are_one_sentence(tmp_path: Path) -> None:
    """REVIEW D6, D4: emopeft.json is checked as adapter.json is."""
    folder, _ = trained_fold(tmp_path, "lora:r=2+ba:bottleneck=4")
    hub.export(folder, tmp_path / "out")
    path = tmp_path / "out" / "emopeft.json"
    good = path.read_text()
    for keys, value, said in (
        (("peft_names",), [1], "peft_names"),
        (("peft_names",), {"a": "b"}, "does not exist; export the run again"),
        (("head", "dropout"), 2, "head.dropout"),
        (("method", "parts", 0, "options", "r"), "nan", "lora:r=nan"),
        (("seed",), "0", "seed"),
        (("task",), {"name": ["emotion"]}, "the task's description has no name"),
    ):
        data = json.loads(good)
        inner = data
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(data))
        with pytest.raises(UserError) as caught:
            hub.load(tmp_path / "out", str(tmp_path / "weights"))
        assert said in str(caught.value) and "\n" not in str(caught.value), keys
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="emopeft.json"):
        hub.load(tmp_path / "out")
    (tmp_path / "out" / "emopeft.json").unlink()
    with pytest.raises(UserError, match="is no export of EmoPEFT"):
        hub.load(tmp_path / "out")


def test_exports_are_made_on_the_cpu_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW B: a GPU's rounding would have dropped peft's format."""
    folder, _ = trained_fold(tmp_path, "lora:r=2")
    seen: list[Any] = []
    inner = hub.restore
    monkeypatch.setattr(hub, "restore", lambda *a, **k: seen.append(inner(*a, **k)) or seen[-1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    files = hub.export(folder, tmp_path / "out")
    assert "adapter_model.safetensors" in files
    kinds = {(p.device.type, p.dtype) for p in seen[0][0].parameters()}
    assert kinds == {("cpu", torch.float32)}
